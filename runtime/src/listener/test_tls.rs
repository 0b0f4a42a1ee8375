//! Certificates and a real TLS client, for tests.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Tls, TlsFiles};

/// A self-signed certificate for localhost, with its key.
pub(crate) struct Pair(CertifiedKey<rcgen::KeyPair>);

impl Pair {
    pub(crate) fn new() -> Self {
        Self(generate_simple_self_signed(vec!["localhost".into()]).unwrap())
    }

    pub(crate) fn cert(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }

    pub(crate) fn cert_pem(&self) -> String {
        self.0.cert.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.0.signing_key.serialize_pem()
    }
}

/// Files in a directory that lives as long as this.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn of(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("cert.pem", &pair.cert_pem());
        files.write("key.pem", &pair.key_pem());
        files
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.path().join(name), content).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).unwrap();
    }

    pub(crate) fn paths(&self) -> TlsFiles {
        let path = |name: &str| Path::join(self.0.path(), name);
        TlsFiles {
            cert: path("cert.pem"),
            key: path("key.pem"),
        }
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::load(self.paths()).unwrap()
    }
}

/// What a client insists on.
pub(crate) struct Client {
    pub(crate) trusts: Vec<CertificateDer<'static>>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) alpn: Vec<Vec<u8>>,
}

impl Client {
    pub(crate) fn trusting(pairs: &[&Pair]) -> Self {
        Self::trusting_certs(pairs.iter().map(|pair| pair.cert()).collect())
    }

    pub(crate) fn trusting_certs(trusts: Vec<CertificateDer<'static>>) -> Self {
        Self {
            trusts,
            versions: vec![&TLS13, &TLS12],
            alpn: vec![b"h2".to_vec()],
        }
    }

    pub(crate) async fn connect<IO>(&self, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_to("localhost", io).await
    }

    pub(crate) async fn connect_to<IO>(
        &self,
        name: &'static str,
        io: IO,
    ) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut roots = RootCertStore::empty();
        for cert in &self.trusts {
            roots.add(cert.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&self.alpn);
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, io).await
    }
}
