//! Both ends of a connection between services show a certificate, and each looks
//! at the other's: signed by the configured authority, for an allowed name.
//!
//! Names are those in the certificate (DNS names among the subject's alternative
//! names), not the address that was dialled: replicas are reached by address, and
//! a service's name says more than a host's.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Digest, SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConfig, ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, ServerConfig,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::server_tls::{authorities, not_authorities};
use crate::files::read_at_most;
use crate::listener::tls::{Contents, Reload};
use crate::listener::{MAX_TLS_FILE_BYTES, Tls, TlsError, TlsFiles};

/// Where the certificates are.
#[derive(Debug, Clone)]
pub struct MutualTlsFiles {
    /// This service's own, to call and to be called.
    pub own: TlsFiles,
    /// PEM: the authorities whose certificates are believed.
    pub ca: PathBuf,
}

/// TLS 1.3 with certificates on both sides. Clones share them.
#[derive(Clone)]
pub(super) struct MutualTls(Arc<Current>);

/// What is in use.
struct Current {
    files: MutualTlsFiles,
    peers: Vec<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
    certificates: Mutex<Certificates>,
    /// What was read last, be it usable or not.
    tried: Mutex<Digest>,
}

#[derive(Clone)]
struct Certificates {
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// Judges clients, but for their names.
    clients: Arc<dyn ClientCertVerifier>,
}

impl MutualTls {
    /// Reads the files. It blocks, shortly.
    pub(super) fn load(
        files: MutualTlsFiles,
        peers: Vec<ServerName<'static>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(provider::default_provider());
        let contents = MutualContents::read(&files)?;
        Ok(Self(Arc::new(Current {
            certificates: Mutex::new(contents.certificates(&files, &provider)?),
            tried: Mutex::new(contents.digest()),
            files,
            peers,
            provider,
        })))
    }

    /// The side that is called.
    pub(super) fn server(&self) -> Result<Tls, TlsError> {
        let Self(current) = self;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&current.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| current.files.own.refuse(source))?
            .with_client_cert_verifier(Arc::clone(current) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session that is resumed is not judged again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Tls::new(config, Arc::clone(current) as Arc<dyn Reload>))
    }

    /// The side that calls.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let Self(current) = self;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&current.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| current.files.own.refuse(source))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(current) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::clone(current) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        self.0.reload()
    }
}

impl fmt::Debug for MutualTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Current {
    fn certificates(&self) -> Certificates {
        let certificates = self.certificates.lock();
        certificates.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }

    /// One allowed name is enough.
    fn check_name(&self, cert: &ParsedCertificate<'_>) -> Result<(), Error> {
        let is_allowed = |name| verify_server_name(cert, name).is_ok();
        if self.peers.iter().any(is_allowed) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }
}

impl Reload for Current {
    fn reload(&self) -> Result<bool, TlsError> {
        let contents = MutualContents::read(&self.files);
        let digest = contents.as_ref().map_or_else(
            |error| digest(&SHA256, error.to_string().as_bytes()),
            MutualContents::digest,
        );
        {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if tried.as_ref() == digest.as_ref() {
                return Ok(false);
            }
            *tried = digest;
        }
        let certificates = contents?.certificates(&self.files, &self.provider)?;
        let current = self.certificates.lock();
        *current.unwrap_or_else(PoisonError::into_inner) = certificates;
        Ok(true)
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutualTls")
            .field("files", &self.files)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificates().own)
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certificates().own)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Current {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // They may change, and a service has one certificate to show.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let clients = self.certificates().clients;
        let verified = clients.verify_client_cert(end_entity, intermediates, now)?;
        self.check_name(&ParsedCertificate::try_from(end_entity)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let roots = self.certificates().roots;
        verify_server_cert_signed_by_trust_anchor(
            &cert,
            &roots,
            intermediates,
            now,
            self.algorithms().all,
        )?;
        self.check_name(&cert)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

/// All three files as they were read.
struct MutualContents {
    own: Contents,
    ca: Vec<u8>,
}

impl MutualContents {
    fn read(files: &MutualTlsFiles) -> Result<Self, TlsError> {
        let ca = read_at_most(&files.ca, MAX_TLS_FILE_BYTES);
        let ca = ca.map_err(|source| TlsError::Unreadable {
            file: files.ca.clone(),
            source,
        })?;
        let own = Contents::read(&files.own)?;
        Ok(Self { own, ca })
    }

    fn digest(&self) -> Digest {
        let parts = [self.own.digest(), digest(&SHA256, &self.ca)];
        digest(&SHA256, &[parts[0].as_ref(), parts[1].as_ref()].concat())
    }

    fn certificates(
        &self,
        files: &MutualTlsFiles,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Certificates, TlsError> {
        let roots = Arc::new(authorities(&self.ca, &files.ca)?);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .build()
                .map_err(|_| not_authorities(&files.ca))?;
        Ok(Certificates {
            own: self.own.pair(&files.own, provider)?,
            roots,
            clients,
        })
    }
}
