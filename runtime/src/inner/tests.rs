use std::io;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::*;
use crate::files::RELOAD_INTERVAL;
use crate::listener::test_tls::Client;
use crate::task::spawn;

const PEER: &str = "history.internal";

/// An authority that signs for services.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Writes the files of a service of this name, which trusts `trusted`.
    fn issue(&self, dir: &Path, name: &str, trusted: &[&Self]) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let cas: Vec<_> = trusted.iter().map(|ca| ca.0.pem()).collect();
        std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("ca.pem"), cas.concat()).unwrap();
    }
}

/// A service with certificates, and where they are.
struct Service {
    dir: TempDir,
    credentials: Credentials,
}

impl Service {
    fn of(authority: &Authority, name: &str, trusted: &[&Authority], peers: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        authority.issue(dir.path(), name, trusted);
        let credentials = Credentials::load(config(dir.path(), peers)).unwrap();
        Self { dir, credentials }
    }
}

fn config(dir: &Path, peers: &[&str]) -> InnerConfig {
    let path = |name| Some(dir.join(name));
    InnerConfig {
        tls: mutual_tls_files(path("cert.pem"), path("key.pem"), path("ca.pem")),
        peers: peers.iter().map(|&peer| peer.to_owned()).collect(),
        secret: None,
    }
}

/// Whether a byte gets through from one to the other: with TLS 1.3 the side that
/// calls learns of its refusal only then.
async fn reaches(from: &Credentials, to: &Credentials) -> io::Result<()> {
    let (near, far) = duplex(16 * 1024);
    let connector = TlsConnector::from(from.client_tls().unwrap().unwrap());
    let acceptor = to.tls().unwrap().unwrap().acceptor();
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let server = async {
        let mut io = acceptor.accept(far).await?;
        io.write_all(b"x").await
    };
    let client = async {
        let mut io = connector.connect(name, near).await?;
        io.read_u8().await
    };
    let (server, client) = tokio::join!(server, client);
    server.and(client.map(|_| ()))
}

#[tokio::test]
async fn services_know_each_other_by_authority_and_name() {
    let (ours, other) = (Authority::new(), Authority::new());
    let of = |name, peers: &[&str]| Service::of(&ours, name, &[&ours], peers).credentials;
    let chat = of("chat.internal", &[PEER]);
    let history = of(PEER, &["chat.internal", "gateway.internal"]);
    reaches(&chat, &history).await.unwrap();

    // Neither side takes a name that it was not told.
    let stranger = of("stranger.internal", &[PEER]);
    let refused = reaches(&stranger, &history).await.unwrap_err();
    assert!(refused.to_string().contains("NotValidForName"), "{refused}");
    let choosy = of("chat.internal", &["presence.internal"]);
    let refused = reaches(&choosy, &history).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");

    // Nor one that somebody else has signed.
    let forged = Service::of(&other, "chat.internal", &[&ours], &[PEER]).credentials;
    reaches(&forged, &history).await.unwrap_err();
    let false_history = Service::of(&other, PEER, &[&ours, &other], &["chat.internal"]);
    reaches(&chat, &false_history.credentials)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let authority = Authority::new();
    let history = Service::of(&authority, PEER, &[&authority], &[PEER]).credentials;
    let client = Client::trusting_certs(vec![authority.0.der().clone()]);
    let (near, far) = duplex(16 * 1024);
    let acceptor = history.tls().unwrap().unwrap().acceptor();
    let (server, _) = tokio::join!(acceptor.accept(far), client.connect_to(PEER, near));
    let refused = server.unwrap_err().to_string();
    assert!(refused.contains("peer sent no certificates"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_new_authority_and_certificate_are_taken_on_both_sides() {
    let (old, new) = (Authority::new(), Authority::new());
    let of = |name, peer| Service::of(&old, name, &[&old], &[peer]);
    let (chat, history) = (of("chat.internal", PEER), of(PEER, "chat.internal"));
    let reloading = [&chat, &history].map(|it| spawn("reload", it.credentials.keep_fresh()));
    reaches(&chat.credentials, &history.credentials)
        .await
        .unwrap();

    new.issue(history.dir.path(), PEER, &[&new]);
    sleep(2 * RELOAD_INTERVAL).await;
    reaches(&chat.credentials, &history.credentials)
        .await
        .unwrap_err();
    new.issue(chat.dir.path(), "chat.internal", &[&new]);
    sleep(2 * RELOAD_INTERVAL).await;
    reaches(&chat.credentials, &history.credentials)
        .await
        .unwrap();

    // What cannot be used changes nothing.
    std::fs::write(chat.dir.path().join("ca.pem"), "hello").unwrap();
    sleep(2 * RELOAD_INTERVAL).await;
    reaches(&chat.credentials, &history.credentials)
        .await
        .unwrap();
    for task in reloading {
        task.abort();
    }
}

#[test]
fn what_is_half_configured_or_contradicts_itself_is_refused() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(dir.path(), PEER, &[&authority]);
    let refused = |config| Credentials::load(config).unwrap_err();
    assert!(matches!(
        refused(config(dir.path(), &[])),
        InnerError::NoPeer
    ));
    for bad in ["", "10.0.0.1", "a b", "*.internal"] {
        let error = refused(config(dir.path(), &[bad]));
        assert!(matches!(error, InnerError::BadPeer(_)), "{bad}");
    }
    let secret = Some(dir.path().join("secret"));
    let both = InnerConfig {
        secret: secret.clone(),
        ..config(dir.path(), &[PEER])
    };
    assert!(matches!(refused(both), InnerError::Both));
    let named = InnerConfig {
        tls: None,
        secret,
        ..config(dir.path(), &[PEER])
    };
    assert!(matches!(refused(named), InnerError::PeerWithoutTls));
    std::fs::write(dir.path().join("ca.pem"), "").unwrap();
    let error = refused(config(dir.path(), &[PEER])).to_string();
    assert!(
        error.ends_with("ca.pem: holds no certificates of authorities in PEM"),
        "{error}"
    );
}

#[test]
fn without_credentials_only_loopback_may_be_listened_on() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(dir.path(), PEER, &[&authority]);
    std::fs::write(dir.path().join("secret"), "0123456789abcdef".repeat(2)).unwrap();
    let secret = InnerConfig {
        secret: Some(dir.path().join("secret")),
        ..InnerConfig::default()
    };
    let protected = [config(dir.path(), &[PEER]), secret].map(|it| Credentials::load(it).unwrap());
    for (addr, open_is_allowed) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("10.0.0.1:1", false),
        ("[::]:1", false),
    ] {
        let addr = addr.parse().unwrap();
        let open = Credentials::none().check_exposure(addr);
        assert_eq!(open.is_ok(), open_is_allowed, "{addr}");
        for credentials in &protected {
            credentials.check_exposure(addr).unwrap();
        }
    }
}

#[test]
fn a_token_opens_nothing_whatever_the_credentials_are() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(dir.path(), PEER, &[&authority]);
    let secret = "0123456789abcdef".repeat(2);
    std::fs::write(dir.path().join("secret"), &secret).unwrap();
    let of_secret = InnerConfig {
        secret: Some(dir.path().join("secret")),
        ..InnerConfig::default()
    };
    let load = |config| Credentials::load(config).unwrap();
    let (tls, of_secret) = (load(config(dir.path(), &[PEER])), load(of_secret));
    let with = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    };
    let reason =
        |it: &Credentials, headers: &HeaderMap| it.admit(headers).map_err(|it| it.reason());
    for credentials in [&tls, &of_secret, &Credentials::none()] {
        assert_eq!(
            reason(credentials, &with("Bearer a.b.c")),
            Err(Reason::NotAService)
        );
    }
    let nothing = HeaderMap::new();
    assert_eq!(reason(&tls, &nothing), Ok(()));
    assert_eq!(reason(&Credentials::none(), &nothing), Ok(()));
    assert_eq!(reason(&of_secret, &nothing), Err(Reason::NotAService));
    assert_eq!(reason(&of_secret, &with(&secret)), Err(Reason::NotAService));
    let mut shown = HeaderMap::new();
    of_secret.authorize(&mut shown);
    assert_eq!(reason(&of_secret, &shown), Ok(()));
    let error = format!("{:?}", of_secret.admit(&with("Bearer a.b.c")));
    assert!(
        !error.contains(&secret) && !error.contains("a.b.c"),
        "{error}"
    );
}
