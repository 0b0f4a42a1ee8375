use std::io;

use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use tokio::io::duplex;
use tokio::time::sleep;

use super::*;
use crate::listener::test_tls::{Client, Files, Pair};
use crate::task::spawn;

/// What a client learns in a handshake.
#[derive(Debug, PartialEq)]
struct Learned {
    cert: CertificateDer<'static>,
    version: Option<ProtocolVersion>,
    alpn: Option<Vec<u8>>,
}

async fn handshake(tls: &Tls, client: &Client) -> io::Result<Learned> {
    let (near, far) = duplex(16 * 1024);
    let (server, client) = tokio::join!(tls.acceptor().accept(far), client.connect(near));
    let client = client?;
    server?;
    let (_, session) = client.get_ref();
    Ok(Learned {
        cert: session.peer_certificates().unwrap()[0].clone(),
        version: session.protocol_version(),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
    })
}

async fn shown(tls: &Tls, client: &Client) -> CertificateDer<'static> {
    handshake(tls, client).await.unwrap().cert
}

#[tokio::test]
async fn http2_is_agreed_on_in_both_versions_of_tls() {
    let pair = Pair::new();
    let files = Files::of(&pair);
    let versions: [&'static SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    for version in versions {
        let client = Client {
            versions: vec![version],
            ..Client::trusting(&[&pair])
        };
        let learned = Learned {
            cert: pair.cert(),
            version: Some(version.version),
            alpn: Some(b"h2".to_vec()),
        };
        assert_eq!(handshake(&files.tls(), &client).await.unwrap(), learned);
    }
}

#[tokio::test]
async fn a_client_that_speaks_only_another_protocol_is_refused() {
    let pair = Pair::new();
    let client = Client {
        alpn: vec![b"http/1.1".to_vec()],
        ..Client::trusting(&[&pair])
    };
    let refused = handshake(&Files::of(&pair).tls(), &client).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_new_pair_is_used_once_both_its_files_are_there() {
    let (old, new) = (Pair::new(), Pair::new());
    let client = Client::trusting(&[&old, &new]);
    let files = Files::of(&old);
    let tls = files.tls();
    let reloading = spawn("tls reload", tls.keep_fresh());
    let look = || sleep(2 * TLS_RELOAD_INTERVAL);

    look().await;
    assert_eq!(shown(&tls, &client).await, old.cert());
    files.write("cert.pem", &new.cert_pem());
    look().await;
    assert_eq!(shown(&tls, &client).await, old.cert());
    files.write("key.pem", &new.key_pem());
    look().await;
    assert_eq!(shown(&tls, &client).await, new.cert());
    files.remove("key.pem");
    look().await;
    assert_eq!(shown(&tls, &client).await, new.cert());
    files.write("cert.pem", &old.cert_pem());
    files.write("key.pem", &old.key_pem());
    look().await;
    assert_eq!(shown(&tls, &client).await, old.cert());
    reloading.abort();
}

#[test]
fn a_bad_pair_is_told_once_and_the_old_one_stays() {
    let (old, other) = (Pair::new(), Pair::new());
    let files = Files::of(&old);
    let current = Current::load(files.paths()).unwrap();
    assert!(matches!(current.reload(), Ok(false)));
    files.write("key.pem", &other.key_pem());
    assert!(matches!(current.reload(), Err(TlsError::Pair { .. })));
    assert!(matches!(current.reload(), Ok(false)));
    files.write("cert.pem", "hello");
    assert!(matches!(current.reload(), Err(TlsError::NotPem { .. })));
    files.remove("cert.pem");
    assert!(matches!(current.reload(), Err(TlsError::Unreadable { .. })));
    assert!(matches!(current.reload(), Ok(false)));
    let pair = current.pair.lock().unwrap();
    assert_eq!(pair.end_entity_cert().unwrap(), &old.cert());
}

#[test]
fn a_pair_that_is_none_is_refused_at_start_by_name() {
    let (pair, other) = (Pair::new(), Pair::new());
    let files = Files::of(&pair);
    let load = || Tls::load(files.paths()).unwrap_err().to_string();

    files.write("key.pem", &other.key_pem());
    assert!(load().contains("cannot be used together"));
    files.write("key.pem", &pair.cert_pem());
    assert!(load().ends_with("key.pem: holds no private key in PEM"));
    files.write("cert.pem", &pair.key_pem());
    assert!(load().ends_with("cert.pem: holds no certificate in PEM"));
    files.remove("cert.pem");
    assert!(load().contains("cert.pem: cannot be read"));
}

#[test]
fn no_debug_shows_the_key() {
    let shown = format!("{:?}", Files::of(&Pair::new()).tls());
    assert!(shown.starts_with("Tls(TlsFiles { cert:"), "{shown}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
