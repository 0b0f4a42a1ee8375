//! Connections on their way to the server: accepted, counted, secured, and
//! closed if they do not get on with it.
//!
//! Read from top to bottom, as a connection passes: [`bind`], [`accepted`],
//! [`guard`]. A simulated network enters at [`guard`]. Nothing here ends the
//! server, whatever a peer does.

mod accept;
mod connection;
mod exposure;
mod guard;
pub(crate) mod preface;
mod proxies;
#[cfg(test)]
pub(crate) mod test_tls;
pub(crate) mod tls;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

pub use accept::{ACCEPT_BACKOFF, accepted, accepted_and_watched};
pub use connection::{Connection, PREFACE_TIMEOUT};
pub use exposure::{ExposureError, check_exposure};
pub use guard::{
    Accepted, ConnectionEvent, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_CONNECTIONS_PER_ADDRESS, Guard,
    GuardConfig, Seats, TLS_HANDSHAKE_TIMEOUT, guard,
};
pub use proxies::{InvalidTrustedProxy, Proxies, TrustedProxy, forward_for};
pub use tls::{MAX_TLS_FILE_BYTES, TLS_RELOAD_INTERVAL, Tls, TlsError, TlsFiles};

/// Who is at the other end, and for whom a trusted proxy asks; among the extensions of
/// every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// The address, unless the network is simulated.
    pub addr: Option<SocketAddr>,
}

impl Peer {
    /// The address that caps count by. Of IPv6 it is the network (/64), since
    /// one customer commonly has all of its addresses.
    pub fn origin(&self) -> Option<IpAddr> {
        match self.addr?.ip().to_canonical() {
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & !u128::from(u64::MAX);
                Some(Ipv6Addr::from_bits(network).into())
            }
            ip @ IpAddr::V4(_) => Some(ip),
        }
    }
}

/// Listens; the error names the address.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let refuse = |error: io::Error| {
        let text = format!("cannot listen on {addr}: {error}");
        io::Error::new(error.kind(), text)
    };
    TcpListener::bind(addr).await.map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(addr: &str) -> String {
        let addr = Some(addr.parse().unwrap());
        Peer { addr }.origin().unwrap().to_string()
    }

    #[test]
    fn caps_count_by_address_and_by_network_in_ipv6() {
        assert_eq!(origin("192.0.2.7:1"), "192.0.2.7");
        assert_eq!(origin("[::ffff:192.0.2.7]:1"), "192.0.2.7");
        assert_eq!(origin("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::");
        assert_eq!(Peer::default().origin(), None);
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let error = bind(addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
}
