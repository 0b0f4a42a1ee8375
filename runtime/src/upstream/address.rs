//! Where the replicas of a service are: a list, or a name whose addresses change.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;

/// Replicas of one service that are connected to; further ones are left out.
pub const MAX_ENDPOINTS: usize = 64;

const RULE: &str = "must be http://HOST:PORT (https:// with certificates), several of them with \
                    commas between, or dns://NAME:PORT for all addresses of a name";

/// One replica, as it is dialled and told apart from others. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

impl Address {
    /// `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self(addr.to_string().into())
    }
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub(super) place: Place,
    /// Whether TLS was asked for; none: as the credentials are.
    tls: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    List(Vec<Address>),
    /// `name:port`.
    Dns(Arc<str>),
}

impl Addresses {
    /// One replica.
    pub fn one(address: Address) -> Self {
        Self {
            place: Place::List(vec![address]),
            tls: None,
        }
    }

    /// One replica, as `HOST:PORT`, with TLS if the credentials have it.
    pub fn at(text: &str) -> Option<Self> {
        endpoint(&format!("http://{text}")).map(|(_, address)| Self::one(address))
    }

    /// The name that all replicas have, if they were given by one.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.place {
            Place::Dns(name) => name.rsplit_once(':').map(|(host, _)| host),
            Place::List(_) => None,
        }
    }

    /// Whether all are on this machine, as far as can be told without looking.
    pub fn are_loopback(&self) -> bool {
        let is_loopback = |address: &Address| {
            let addr: Result<SocketAddr, _> = address.as_str().parse();
            addr.is_ok_and(|addr| addr.ip().to_canonical().is_loopback())
        };
        match &self.place {
            Place::List(list) => list.iter().all(is_loopback),
            Place::Dns(_) => false,
        }
    }

    /// Whether they fit what is shown to them, which `flag` sets; the text says what
    /// does not.
    pub(super) fn check(&self, tls: bool, flag: &str) -> Result<(), String> {
        match self.tls {
            Some(true) if !tls => Err(format!("https:// needs {flag}")),
            Some(false) if tls => Err(format!("http:// does not go with {flag}: write https://")),
            Some(_) | None => Ok(()),
        }
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        let parsed: Option<Vec<_>> = parts.iter().map(|part| endpoint(part)).collect();
        let parsed = parsed.ok_or_else(|| format!("`{text}` {RULE}"))?;
        let mut schemes: Vec<_> = parsed.iter().map(|(scheme, _)| scheme.as_str()).collect();
        schemes.dedup();
        match (schemes.as_slice(), parsed.as_slice()) {
            (["dns"], [(_, name)]) => Ok(Self {
                place: Place::Dns(Arc::clone(&name.0)),
                tls: None,
            }),
            ([scheme @ ("http" | "https")], _) => {
                let mut list: Vec<_> = parsed.iter().map(|(_, it)| it.clone()).collect();
                list.sort_unstable();
                list.dedup();
                if list.len() > MAX_ENDPOINTS {
                    return Err(format!("names more than {MAX_ENDPOINTS} replicas"));
                }
                Ok(Self {
                    place: Place::List(list),
                    tls: Some(*scheme == "https"),
                })
            }
            _ => Err(format!("`{text}` {RULE}")),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Dns(name) => write!(f, "dns://{name}"),
            Place::List(list) => {
                let list: Vec<_> = list.iter().map(Address::as_str).collect();
                f.write_str(&list.join(","))
            }
        }
    }
}

/// The scheme, and `host:port`.
fn endpoint(text: &str) -> Option<(String, Address)> {
    let uri: Uri = text.parse().ok()?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().filter(|_| is_bare)?;
    let (host, port) = (authority.host(), authority.port_u16()?);
    let has_user = authority.as_str().contains('@');
    let bare = host.trim_matches(['[', ']']);
    let is_host = !bare.is_empty() && (host == bare || bare.parse::<IpAddr>().is_ok());
    if has_user || !is_host || port == 0 {
        return None;
    }
    let address = Address(format!("{host}:{port}").into());
    Some((uri.scheme_str()?.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Addresses>().unwrap().to_string()
    }

    #[test]
    fn a_service_is_a_list_or_a_name() {
        assert_eq!(shown("http://h1:7001"), "h1:7001");
        assert_eq!(
            shown("http://h2:7001, http://h1:7001/,http://h2:7001"),
            "h1:7001,h2:7001"
        );
        assert_eq!(shown("https://[::1]:7001"), "[::1]:7001");
        assert_eq!(shown("dns://history:7001"), "dns://history:7001");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_rule() {
        for wrong in [
            "",
            ",",
            "h1:7001",
            "http://h1",
            "http://h1:0",
            "http://h1:7001/x",
            "http://u@h1:7001",
            "http://h1:7001,https://h2:7001",
            "dns://a:1,dns://b:1",
            "ftp://h1:7001",
        ] {
            let error = wrong.parse::<Addresses>().unwrap_err();
            assert!(error.contains("dns://NAME:PORT"), "{wrong}: {error}");
        }
        let many: Vec<_> = (1..=65).map(|port| format!("http://h:{port}")).collect();
        assert!(many.join(",").parse::<Addresses>().is_err());
        assert!(many[1..].join(",").parse::<Addresses>().is_ok());
    }

    #[test]
    fn the_scheme_must_fit_the_credentials() {
        let check = |text: &str, tls| {
            text.parse::<Addresses>()
                .unwrap()
                .check(tls, "--flag")
                .is_ok()
        };
        assert!(check("http://h:1", false) && check("https://h:1", true));
        assert!(!check("http://h:1", true) && !check("https://h:1", false));
        assert!(check("dns://h:1", true) && check("dns://h:1", false));
    }
}
