//! Who is at the other end of a proxy: told by a header, which is believed of proxies
//! that the operator trusts, and of nobody else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Peer;

/// A list of addresses: each proxy adds the one that called it, at the end.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Bits of an address of IPv6, as which all are compared.
const BITS: u8 = 128;
/// Bits that an address of IPv4 has before it when it is compared.
const MAPPED_BITS: u8 = 96;

/// The addresses of proxies: one, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy {
    network: u128,
    prefix: u8,
}

/// Text that is neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an address such as 10.0.0.7, or a network such as 10.0.0.0/24")]
pub struct InvalidTrustedProxy;

impl FromStr for TrustedProxy {
    type Err = InvalidTrustedProxy;

    fn from_str(text: &str) -> Result<Self, InvalidTrustedProxy> {
        let (ip, prefix) = text
            .split_once('/')
            .map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.parse().map_err(|_| InvalidTrustedProxy)?;
        let before = if ip.is_ipv4() { MAPPED_BITS } else { 0 };
        let prefix = match prefix {
            None => BITS,
            Some(text) => {
                let bits: u8 = text.parse().map_err(|_| InvalidTrustedProxy)?;
                let prefix = before.checked_add(bits).filter(|prefix| *prefix <= BITS);
                prefix.ok_or(InvalidTrustedProxy)?
            }
        };
        let network = bits(ip) & mask(prefix);
        Ok(Self { network, prefix })
    }
}

impl TrustedProxy {
    fn contains(self, ip: IpAddr) -> bool {
        bits(ip) & mask(self.prefix) == self.network
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(BITS - prefix)).unwrap_or(0)
}

/// All proxies that are trusted; none, if nothing else is said. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[TrustedProxy]>);

impl Proxies {
    /// These.
    pub fn of(trusted: &[TrustedProxy]) -> Self {
        Self(trusted.into())
    }

    /// Whether a connection is that of a trusted proxy.
    pub fn contains(&self, peer: Peer) -> bool {
        peer.addr.is_some_and(|addr| self.trust(addr.ip()))
    }

    /// For whom a request is made: whoever is connected, unless that is a trusted proxy
    /// which says otherwise.
    ///
    /// Of a list, each entry was written by the one behind it; so it is believed from
    /// its end, as far as those who wrote it are trusted.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        let mut client = peer;
        if !self.contains(peer) {
            return client;
        }
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        for value in values.into_iter().rev() {
            let Ok(value) = value.to_str() else {
                return client;
            };
            for entry in value.rsplit(',') {
                let Some(ip) = address(entry.trim()) else {
                    return client;
                };
                client.addr = Some(SocketAddr::new(ip, 0));
                if !self.trust(ip) {
                    return client;
                }
            }
        }
        client
    }

    fn trust(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|trusted| trusted.contains(ip))
    }
}

/// With a port, which some proxies add, or without.
fn address(entry: &str) -> Option<IpAddr> {
    if let Ok(ip) = entry.parse() {
        return Some(ip);
    }
    if let Ok(addr) = entry.parse::<SocketAddr>() {
        return Some(addr.ip());
    }
    let inside = entry.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Says in the headers of a call for whom it is made, and nothing that anybody else has
/// said of it.
pub fn forward_for(peer: Option<Peer>, headers: &mut HeaderMap) {
    headers.remove(header::FORWARDED);
    headers.remove(FORWARDED_FOR);
    let ip = peer.and_then(|peer| peer.addr).map(|addr| addr.ip());
    // An address is always a header's value.
    if let Some(Ok(value)) = ip.map(|ip| HeaderValue::try_from(ip.to_canonical().to_string())) {
        headers.insert(FORWARDED_FOR, value);
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = Ipv6Addr::from_bits(self.network);
        match ip.to_ipv4_mapped() {
            Some(ip) if self.prefix >= MAPPED_BITS => {
                write!(f, "{ip}/{}", self.prefix - MAPPED_BITS)
            }
            Some(_) | None => write!(f, "{ip}/{}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(trusted: &[&str]) -> Proxies {
        let trusted: Vec<_> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Proxies::of(&trusted)
    }

    fn peer(ip: &str) -> Peer {
        let ip = ip.parse().unwrap();
        Peer {
            addr: Some(SocketAddr::new(ip, 4_711)),
        }
    }

    fn client(trusted: &[&str], ip: &str, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let client = proxies(trusted).client(peer(ip), &headers);
        client.addr.unwrap().ip().to_string()
    }

    #[test]
    fn an_address_or_a_network_is_trusted_and_nothing_beside_it() {
        for (trusted, inside, beside) in [
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("10.1.0.0/16", "10.1.255.3", "10.2.0.0"),
            ("10.1.2.3/16", "::ffff:10.1.9.9", "::10.1.9.9"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
        ] {
            let proxies = proxies(&[trusted]);
            assert!(proxies.contains(peer(inside)), "{trusted} {inside}");
            assert!(!proxies.contains(peer(beside)), "{trusted} {beside}");
        }
        assert!(proxies(&["::/0"]).contains(peer("192.0.2.1")));
        assert!(!Proxies::default().contains(peer("127.0.0.1")));
        for bad in [
            "",
            "gateway",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "1.2.3.4:5",
        ] {
            assert_eq!(
                bad.parse::<TrustedProxy>(),
                Err(InvalidTrustedProxy),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_network_is_written_as_it_is_read() {
        for text in ["10.1.0.0/16", "10.0.0.7/32", "2001:db8::/32", "::/0"] {
            assert_eq!(text.parse::<TrustedProxy>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let said = ["203.0.113.9"];
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &said), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &said), "192.0.2.1");
        assert_eq!(client(&[], "10.0.0.1", &said), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_list_is_believed_from_its_end_as_far_as_it_was_written_by_trusted_proxies() {
        let trusted = ["10.0.0.0/8"];
        let ask = |values: &[&str]| client(&trusted, "10.0.0.1", values);
        // What stands before the client's own address is what the client said.
        assert_eq!(ask(&["1.1.1.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(ask(&["1.1.1.1, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(ask(&["1.1.1.1", "203.0.113.9,10.0.0.2"]), "203.0.113.9");
        assert_eq!(ask(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(ask(&["203.0.113.9, garbage"]), "10.0.0.1");
        assert_eq!(ask(&["203.0.113.9, garbage, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(ask(&[""]), "10.0.0.1");
        for (written, read) in [
            ("203.0.113.9:51234", "203.0.113.9"),
            ("2001:db8::9", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("[2001:db8::9]:51234", "2001:db8::9"),
        ] {
            assert_eq!(ask(&[written]), read);
        }
    }

    #[test]
    fn what_others_said_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, "1.1.1.1".parse().unwrap());
        headers.append(FORWARDED_FOR, "2.2.2.2".parse().unwrap());
        headers.append(header::FORWARDED, "for=3.3.3.3".parse().unwrap());
        forward_for(Some(peer("::ffff:203.0.113.9")), &mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[FORWARDED_FOR], "203.0.113.9");
        forward_for(None, &mut headers);
        assert!(headers.is_empty());
    }
}
