//! What may be listened on with which protection.

use std::net::SocketAddr;

/// A listener that would expose what must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExposureError {
    /// The development key would be accepted from other machines.
    #[error(
        "{0} can be reached from other machines, and the development key is accepted on loopback \
         only: give --jwt-public-key, or listen on 127.0.0.1"
    )]
    DevelopmentKey(SocketAddr),
    /// Tokens and messages would cross a network in the clear.
    #[error(
        "{0} can be reached from other machines without TLS: give --tls-cert and --tls-key, or \
         --plaintext-behind-proxy if a proxy in front of it does TLS"
    )]
    Plaintext(SocketAddr),
}

/// Whether this may be listened on. `dev_key`: the development key is accepted.
pub fn check_exposure(
    addr: SocketAddr,
    tls: bool,
    plaintext_behind_proxy: bool,
    dev_key: bool,
) -> Result<(), ExposureError> {
    if addr.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    if dev_key {
        return Err(ExposureError::DevelopmentKey(addr));
    }
    if !tls && !plaintext_behind_proxy {
        return Err(ExposureError::Plaintext(addr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: [&str; 4] = [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ];
    const BEYOND: [&str; 4] = ["0.0.0.0:1", "192.168.0.1:1", "[::]:1", "[2001:db8::1]:1"];

    fn check(addr: &str, tls: bool, proxy: bool, dev_key: bool) -> Result<(), ExposureError> {
        check_exposure(addr.parse().unwrap(), tls, proxy, dev_key)
    }

    #[test]
    fn loopback_may_be_in_the_clear_and_with_the_development_key() {
        for addr in LOOPBACK {
            assert_eq!(check(addr, false, false, true), Ok(()), "{addr}");
        }
    }

    #[test]
    fn beyond_loopback_takes_tls_or_an_explicit_proxy() {
        for addr in BEYOND {
            let refused = Err(ExposureError::Plaintext(addr.parse().unwrap()));
            assert_eq!(check(addr, false, false, false), refused);
            assert_eq!(check(addr, true, false, false), Ok(()));
            assert_eq!(check(addr, false, true, false), Ok(()));
        }
    }

    #[test]
    fn the_development_key_never_goes_beyond_loopback() {
        for addr in BEYOND {
            let refused = Err(ExposureError::DevelopmentKey(addr.parse().unwrap()));
            for (tls, proxy) in [(false, false), (true, false), (false, true), (true, true)] {
                assert_eq!(check(addr, tls, proxy, true), refused);
            }
        }
    }
}
