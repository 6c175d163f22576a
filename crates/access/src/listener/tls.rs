//! TLS towards clients: certificate, key, the two protocols offered, and whose certificates clients may show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::settings::{ClientAuth, TlsSettings};

/// A certificate ready to serve.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or is no PEM.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, rustls::pki_types::pem::Error),
    /// No certificate in it.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Certificate and key do not belong together, or are of a kind not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// Certificates of clients cannot be judged with what was given.
    #[error("client certificates cannot be verified with {0}: {1}")]
    Verifier(PathBuf, String),
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let certs = certificates(&settings.cert)?;
        let key = PrivateKeyDer::from_pem_file(&settings.key)
            .map_err(|fault| TlsError::Unreadable(settings.key.clone(), fault))?;
        let mut config =
            ServerConfig::builder().with_client_cert_verifier(verifier(settings)?).with_single_cert(certs, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Who may show a certificate, and whether everybody must.
fn verifier(settings: &TlsSettings) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &settings.client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let broken = |fault: &dyn std::fmt::Display| TlsError::Verifier(path.clone(), fault.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|fault| broken(&fault))?;
    }
    let mut revoked = Vec::new();
    for list in &settings.client_crl {
        let unreadable = |fault| TlsError::Unreadable(list.clone(), fault);
        let lists = CertificateRevocationListDer::pem_file_iter(list).map_err(unreadable)?;
        revoked.extend(lists.collect::<Result<Vec<_>, _>>().map_err(unreadable)?);
    }
    let mut builder = WebPkiClientVerifier::builder(Arc::new(roots));
    if !revoked.is_empty() {
        // Only the end of a chain is looked up: lists of those above it are rarely at hand.
        builder = builder.with_crls(revoked).only_check_end_entity_revocation();
    }
    if settings.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(|verifier| verifier as _).map_err(|fault| broken(&fault))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |fault| TlsError::Unreadable(path.to_owned(), fault);
    let certs: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if certs.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(certs) }
}
