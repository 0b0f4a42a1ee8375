//! Whose pages may call: origins, compared exactly as browsers write them.
//!
//! What is allowed comes from configuration. A `Host` header never widens it, since
//! whoever rebinds a name chooses that header.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::Authority;

/// An origin of the web: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    /// In lower case, without the scheme's own port.
    authority: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The authority as an origin has it; none for what is not a host with at most a
    /// port.
    fn normal(self, authority: &str) -> Option<String> {
        let own_port = match self {
            Self::Http => 80,
            Self::Https => 443,
        };
        let parsed = Authority::from_str(authority).ok()?;
        let behind = authority.strip_prefix(parsed.host())?;
        let is_plain = behind.is_empty() || parsed.port_u16().is_some();
        if parsed.host().is_empty() || !is_plain {
            return None;
        }
        let host = parsed.host().to_ascii_lowercase();
        let port = parsed.port_u16().filter(|port| *port != own_port);
        Some(match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    }
}

impl Origin {
    /// Whether a header names it. Browsers write an origin in one way only: what differs
    /// from that is no browser's.
    fn is(&self, header: &[u8]) -> bool {
        let rest = header.strip_prefix(self.scheme.as_str().as_bytes());
        let authority = rest.and_then(|rest| rest.strip_prefix(b"://"));
        authority == Some(self.authority.as_bytes())
    }
}

/// Text that is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be scheme://host or scheme://host:port with http or https, nothing behind and no *")]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(InvalidOrigin)?;
        let scheme = [Scheme::Http, Scheme::Https]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(scheme))
            .ok_or(InvalidOrigin)?;
        let authority = scheme.normal(authority).ok_or(InvalidOrigin)?;
        // It would match nothing, and seem to match much.
        if authority.contains('*') {
            return Err(InvalidOrigin);
        }
        Ok(Self { scheme, authority })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

/// The origins that are allowed. Clones share them.
#[derive(Debug, Clone)]
pub struct Origins(Arc<BTreeSet<Origin>>);

impl Origins {
    /// These.
    pub fn of(origins: impl IntoIterator<Item = Origin>) -> Self {
        Self(Arc::new(origins.into_iter().collect()))
    }

    /// Those that a listener has by itself: none if it listens on any address, which
    /// is no host; the usual names, too, on loopback.
    pub fn own(addr: SocketAddr, tls: bool) -> Self {
        let scheme = if tls { Scheme::Https } else { Scheme::Http };
        let ip = addr.ip().to_canonical();
        let mut hosts = Vec::new();
        if !ip.is_unspecified() {
            hosts.push(match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            });
        }
        if ip.is_loopback() {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        let origins = hosts.into_iter().filter_map(|host| {
            let authority = scheme.normal(&format!("{host}:{}", addr.port()))?;
            Some(Origin { scheme, authority })
        });
        Self::of(origins)
    }

    /// Whether pages of this `Origin` header may call.
    pub(crate) fn allow(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|allowed| allowed.is(origin.as_bytes()))
    }

    /// Whether a request was sent to a host of an allowed origin.
    pub(crate) fn allow_host(&self, host: &str) -> bool {
        let is_it = |allowed: &Origin| {
            let host = allowed.scheme.normal(host);
            host.is_some_and(|host| host == allowed.authority)
        };
        self.0.iter().any(is_it)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(Origin::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(addr: &str, tls: bool) -> String {
        Origins::own(addr.parse().unwrap(), tls).to_string()
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_at_most_a_port() {
        for (text, wanted) in [
            ("https://chat.example.com", "https://chat.example.com"),
            ("HTTPS://Chat.Example.com:443", "https://chat.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), wanted);
        }
        for bad in [
            "",
            "*",
            "null",
            "chat.example.com",
            "ftp://example.com",
            "https://",
            "https://example.com/",
            "https://example.com/chat",
            "https://example.com?x",
            "https://user@example.com",
            "https://example.com:",
            "https://example.com:x",
            "https://example.com:70000",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidOrigin), "{bad}");
        }
    }

    #[test]
    fn a_listener_has_the_origins_of_its_address_and_of_loopback_by_name() {
        assert_eq!(
            own("127.0.0.1:8080", false),
            "http://127.0.0.1:8080, http://[::1]:8080, http://localhost:8080"
        );
        assert_eq!(own("192.0.2.7:443", true), "https://192.0.2.7");
        assert_eq!(own("[2001:db8::7]:80", true), "https://[2001:db8::7]:80");
        assert_eq!(own("0.0.0.0:8080", false), "");
    }

    #[test]
    fn an_origin_is_compared_as_browsers_write_it() {
        let origins = Origins::of(["https://chat.example.com".parse().unwrap()]);
        let allow = |text: &'static str| origins.allow(&HeaderValue::from_static(text));
        assert!(allow("https://chat.example.com"));
        for foreign in [
            "",
            "null",
            "http://chat.example.com",
            "https://chat.example.com:444",
            "https://chat.example.com.evil.example",
            "https://evil.example/https://chat.example.com",
            "https://CHAT.example.com",
        ] {
            assert!(!allow(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_host_is_that_of_an_allowed_origin() {
        let origins = Origins::own("127.0.0.1:8080".parse().unwrap(), false);
        for host in [
            "127.0.0.1:8080",
            "localhost:8080",
            "LOCALHOST:8080",
            "[::1]:8080",
        ] {
            assert!(origins.allow_host(host), "{host}");
        }
        for host in [
            "",
            "localhost",
            "127.0.0.1:80",
            "rebound.example:8080",
            "a@localhost:8080",
        ] {
            assert!(!origins.allow_host(host), "{host}");
        }
        let usual = Origins::own("127.0.0.1:80".parse().unwrap(), false);
        assert!(usual.allow_host("localhost") && usual.allow_host("localhost:80"));
    }
}
