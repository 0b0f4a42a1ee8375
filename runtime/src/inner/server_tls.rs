//! TLS of a service that calls the door of users: it looks at the certificate of the
//! other side, by the name that was dialled, and shows none.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::version::{TLS12, TLS13};

use crate::files::read_at_most;
use crate::listener::{MAX_TLS_FILE_BYTES, TlsError};

/// Believes certificates of the authorities in this file only. It blocks, shortly.
pub(super) fn load(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let text = read_at_most(ca, MAX_TLS_FILE_BYTES).map_err(|source| TlsError::Unreadable {
        file: ca.to_owned(),
        source,
    })?;
    let roots = Arc::new(authorities(&text, ca)?);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| not_authorities(ca))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The authorities in the text of a file.
pub(super) fn authorities(text: &[u8], file: &Path) -> Result<RootCertStore, TlsError> {
    let certs: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let mut roots = RootCertStore::empty();
    for cert in certs.map_err(|_| not_authorities(file))? {
        roots.add(cert).map_err(|_| not_authorities(file))?;
    }
    if roots.is_empty() {
        return Err(not_authorities(file));
    }
    Ok(roots)
}

pub(super) fn not_authorities(file: &Path) -> TlsError {
    TlsError::NotPem {
        file: file.to_owned(),
        wanted: "certificates of authorities",
    }
}
