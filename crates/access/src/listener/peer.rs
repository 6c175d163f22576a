//! The other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::credential::certificate::Certificate;

/// Who is at the other end; the listener puts it into the extensions of each request's head.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    secure: bool,
    certificate: Option<Arc<Certificate>>,
}

impl Peer {
    /// A peer without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, secure: false, certificate: None }
    }

    /// A peer by TLS; `certificate` is the one it showed, verified by then.
    pub(super) fn secured(address: SocketAddr, certificate: Option<Arc<Certificate>>) -> Self {
        Self { address, secure: true, certificate }
    }

    /// The socket's address. Of a client behind a proxy it is the proxy's.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Whether it came by TLS.
    pub fn secure(&self) -> bool {
        self.secure
    }

    /// The certificate it showed.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }
}
