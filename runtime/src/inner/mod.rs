//! The inner door: which service may call which, on listeners that no user sees.
//!
//! The two ends of a connection know each other by certificates, or by a secret
//! that they share; on loopback they may do without. A user's token opens nothing
//! here, and what opens this door opens no other. On whose behalf a call is made
//! is a field of its request, never a header.

mod mutual_tls;
mod secret;
mod server_tls;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::auth::bearer;
use crate::files;
use crate::listener::{Tls, TlsError, TlsFiles};
use crate::refusal::{Reason, Refusal};
use mutual_tls::MutualTls;
pub use mutual_tls::MutualTlsFiles;
use secret::SharedSecret;
pub use secret::{MAX_SECRET_FILE_BYTES, MAX_SECRETS, MIN_SECRET_BYTES, SecretError};

/// Calls at the same time on one connection between services.
pub const INNER_MAX_STREAMS_PER_CONNECTION: u32 = 1_024;
/// Bytes that one stream between services may have in flight.
pub const INNER_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that one connection between services may have in flight.
pub const INNER_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// How services are to know each other.
#[derive(Debug, Clone, Default)]
pub struct InnerConfig {
    /// Certificates.
    pub tls: Option<MutualTlsFiles>,
    /// The DNS names of services that may call and be called, with certificates.
    pub peers: Vec<String>,
    /// The file of the shared secret.
    pub secret: Option<PathBuf>,
}

/// Why the inner door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum InnerError {
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Certificates and a secret were given.
    #[error("--internal-tls-cert and --internal-secret exclude each other: give one of them")]
    Both,
    /// Any certificate of the authority would be let in.
    #[error("--internal-tls-cert needs --internal-peer: the DNS names that services may have")]
    NoPeer,
    /// Names that nobody would check.
    #[error("--internal-peer needs --internal-tls-cert: a secret has no names")]
    PeerWithoutTls,
    /// A peer's name that no certificate can have.
    #[error("--internal-peer {0}: is not a DNS name")]
    BadPeer(String),
    /// Anybody could call.
    #[error(
        "{0} can be reached from other machines, and nothing tells who calls: give \
         --internal-tls-cert, --internal-tls-key and --internal-tls-ca, or --internal-secret on a \
         private network, or listen on 127.0.0.1"
    )]
    Exposed(SocketAddr),
}

/// What a service shows to others, and asks of them. Clones share it.
#[derive(Debug, Clone)]
pub struct Credentials(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Loopback only.
    Open,
    Tls(MutualTls),
    Secret(Arc<SharedSecret>),
    /// To call the door of users, with what the users themselves show.
    OfUsers(Option<Arc<ClientConfig>>),
}

impl Credentials {
    /// Reads what is configured. It blocks, shortly.
    pub fn load(config: InnerConfig) -> Result<Self, InnerError> {
        let peers = config.peers.into_iter().map(peer);
        let peers = peers.collect::<Result<Vec<_>, _>>()?;
        match (config.tls, config.secret) {
            (Some(_), Some(_)) => Err(InnerError::Both),
            (Some(_), None) if peers.is_empty() => Err(InnerError::NoPeer),
            (None, _) if !peers.is_empty() => Err(InnerError::PeerWithoutTls),
            (Some(files), None) => Ok(Self(Kind::Tls(MutualTls::load(files, peers)?))),
            (None, Some(file)) => Ok(Self(Kind::Secret(Arc::new(SharedSecret::load(file)?)))),
            (None, None) => Ok(Self::none()),
        }
    }

    /// Nothing is shown and nothing is asked.
    pub fn none() -> Self {
        Self(Kind::Open)
    }

    /// For calls on behalf of users who show their own tokens: nothing is added. With
    /// the authorities in a file, the other side must show a certificate of theirs.
    pub fn of_users(ca: Option<&Path>) -> Result<Self, InnerError> {
        let tls = ca.map(server_tls::load).transpose()?;
        Ok(Self(Kind::OfUsers(tls)))
    }

    /// The flag by which the side that calls gets its TLS.
    pub(crate) fn tls_flag(&self) -> &'static str {
        match &self.0 {
            Kind::OfUsers(_) => "--chat-tls-ca",
            Kind::Open | Kind::Tls(_) | Kind::Secret(_) => "--internal-tls-cert",
        }
    }

    /// Whether this may be listened on.
    pub fn check_exposure(&self, addr: SocketAddr) -> Result<(), InnerError> {
        let is_open = matches!(self.0, Kind::Open);
        if is_open && !addr.ip().to_canonical().is_loopback() {
            return Err(InnerError::Exposed(addr));
        }
        Ok(())
    }

    /// TLS of the listener, if certificates are in use.
    pub fn tls(&self) -> Result<Option<Tls>, InnerError> {
        match &self.0 {
            Kind::Tls(tls) => Ok(Some(tls.server()?)),
            Kind::Open | Kind::Secret(_) | Kind::OfUsers(_) => Ok(None),
        }
    }

    /// Looks at the files again and again, for as long as it is polled.
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + 'static {
        let kind = self.0.clone();
        async move {
            match kind {
                Kind::Open | Kind::OfUsers(_) => std::future::pending().await,
                Kind::Tls(tls) => {
                    files::keep_fresh("internal tls certificate", move || tls.reload()).await;
                }
                Kind::Secret(secret) => {
                    files::keep_fresh("internal secret", move || secret.reload()).await;
                }
            }
        }
    }

    /// Whether a call may come in, by its headers. With certificates the
    /// connection has been judged already.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.0 {
            Kind::Secret(secret) => match bearer(headers) {
                Ok(given) if secret.is_one(given) => Ok(()),
                Ok(_) | Err(_) => Err(refusal("the secret of the services is needed")),
            },
            Kind::OfUsers(_) => Err(refusal("nobody is let in by these")),
            // Who shows a token takes this for another door.
            Kind::Open | Kind::Tls(_) if headers.contains_key(AUTHORIZATION) => {
                Err(refusal("no token is taken"))
            }
            Kind::Open | Kind::Tls(_) => Ok(()),
        }
    }

    /// Adds what a call must show.
    pub(crate) fn authorize(&self, headers: &mut HeaderMap) {
        if let Kind::Secret(secret) = &self.0 {
            headers.insert(AUTHORIZATION, secret.header());
        }
    }

    /// TLS of the side that calls, if certificates are in use.
    pub(crate) fn client_tls(&self) -> Result<Option<Arc<ClientConfig>>, InnerError> {
        match &self.0 {
            Kind::Tls(tls) => Ok(Some(tls.client()?)),
            Kind::OfUsers(tls) => Ok(tls.clone()),
            Kind::Open | Kind::Secret(_) => Ok(None),
        }
    }
}

fn refusal(what: &str) -> Refusal {
    Refusal::new(
        Reason::NotAService,
        format!("this listener is for services, not for users: {what}"),
    )
}

fn peer(name: String) -> Result<ServerName<'static>, InnerError> {
    match ServerName::try_from(name.clone()) {
        Ok(ServerName::DnsName(dns)) => Ok(ServerName::DnsName(dns)),
        Ok(_) | Err(_) => Err(InnerError::BadPeer(name)),
    }
}

/// The files of [`InnerConfig::tls`], if all three are given.
pub fn mutual_tls_files(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
) -> Option<MutualTlsFiles> {
    let own = cert.zip(key).map(|(cert, key)| TlsFiles { cert, key })?;
    Some(MutualTlsFiles { own, ca: ca? })
}

#[cfg(test)]
mod tests;
