//! TLS towards clients: certificate, key, and the two protocols offered.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::settings::TlsSettings;

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
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |fault| TlsError::Unreadable(path.to_owned(), fault);
    let certs: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if certs.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(certs) }
}
