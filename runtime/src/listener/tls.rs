//! The server's certificate and key, read from files and read again when they
//! change.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use crate::files::{self, RELOAD_INTERVAL, read_at_most};

/// How often the files are looked at.
pub const TLS_RELOAD_INTERVAL: Duration = RELOAD_INTERVAL;
/// Longest certificate file and longest key file, in bytes.
pub const MAX_TLS_FILE_BYTES: u64 = 1024 * 1024;

/// Where the certificate and its key are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM: the certificate, then its chain.
    pub cert: PathBuf,
    /// PEM: the key, as PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// A certificate and key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: holds no {wanted} in PEM", file.display())]
    NotPem {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The pair cannot be used, or is none.
    #[error("{} and {} cannot be used together: {source}", cert.display(), key.display())]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// TLS as the server speaks it: 1.2 and 1.3, HTTP/2 only unless
/// [`Tls::with_http1`]. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    current: Arc<dyn Reload>,
}

/// What was read from files, and can be read again.
pub(crate) trait Reload: fmt::Debug + Send + Sync {
    /// Whether there was something new, which is in use now.
    fn reload(&self) -> Result<bool, TlsError>;
}

impl Tls {
    /// Reads the files. It blocks, shortly.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current::load(files)?);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&current.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|source| current.files.refuse(source))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self::new(config, current))
    }

    pub(crate) fn new(config: ServerConfig, current: Arc<dyn Reload>) -> Self {
        Self {
            config: Arc::new(config),
            current,
        }
    }

    /// The same certificate for connections that may speak HTTP/1.1, too.
    #[must_use]
    pub fn with_http1(&self) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::new(config, Arc::clone(&self.current))
    }

    /// Looks at the files every [`TLS_RELOAD_INTERVAL`] for as long as it is
    /// polled, and takes a new pair for the handshakes to come. A pair that
    /// cannot be used is logged once, and the one before stays.
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + 'static {
        let current = Arc::clone(&self.current);
        files::keep_fresh("tls certificate", move || current.reload())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.current).finish()
    }
}

/// The pair in use.
struct Current {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    pair: Mutex<Arc<CertifiedKey>>,
    /// What was read last, be it usable or not.
    tried: Mutex<Digest>,
}

impl Current {
    fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(provider::default_provider());
        let contents = Contents::read(&files)?;
        Ok(Self {
            pair: Mutex::new(contents.pair(&files, &provider)?),
            tried: Mutex::new(contents.digest()),
            provider,
            files,
        })
    }
}

impl Reload for Current {
    fn reload(&self) -> Result<bool, TlsError> {
        // A file that cannot be read is perhaps about to be replaced; like a bad
        // pair it is told once, until the files read differently.
        let contents = Contents::read(&self.files);
        let digest = contents.as_ref().map_or_else(
            |error| digest(&SHA256, error.to_string().as_bytes()),
            Contents::digest,
        );
        {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if tried.as_ref() == digest.as_ref() {
                return Ok(false);
            }
            *tried = digest;
        }
        let pair = contents?.pair(&self.files, &self.provider)?;
        *self.pair.lock().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(true)
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&pair))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl TlsFiles {
    pub(crate) fn refuse(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

/// Both files as they were read.
pub(crate) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |file: &Path| {
            read_at_most(file, MAX_TLS_FILE_BYTES).map_err(|source| TlsError::Unreadable {
                file: file.to_owned(),
                source,
            })
        };
        let (cert, key) = (read(&files.cert)?, read(&files.key)?);
        Ok(Self { cert, key })
    }

    pub(crate) fn digest(&self) -> Digest {
        let parts = [&self.cert, &self.key].map(|part| digest(&SHA256, part));
        digest(&SHA256, &[parts[0].as_ref(), parts[1].as_ref()].concat())
    }

    pub(crate) fn pair(
        &self,
        files: &TlsFiles,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let not_pem = |file: &Path, wanted| TlsError::NotPem {
            file: file.to_owned(),
            wanted,
        };
        let chain: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| not_pem(&files.cert, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| not_pem(&files.key, "private key"))?;
        CertifiedKey::from_der(chain, key, provider)
            .map(Arc::new)
            .map_err(|source| files.refuse(source))
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
