//! Sockets: one acceptor, and a thread per core that owns its connections from the first byte to the last.
//!
//! The acceptor hands each connection to the core with the fewest; from there on nothing of it crosses a
//! thread. gRPC will join on the same port: an h2 request whose content type is `application/grpc` gets its own
//! service in [`connection`].

mod alarm;
mod connection;
mod cores;
mod tls;
mod turn;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::credential::Certificate;

pub use self::cores::Cores;
pub use self::tls::{Tls, TlsError};

/// Bound: connections the kernel may hold that have not been accepted yet.
const BACKLOG: i32 = 4096;
/// How long accepting rests after an error (out of file descriptors, mostly).
const REST: Duration = Duration::from_millis(50);

/// The other end of a connection.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its address; `None` where the system does not tell any more.
    pub address: Option<IpAddr>,
    /// Whether it came by TLS.
    pub secure: bool,
    /// The certificate it showed, verified by then.
    pub certificate: Option<Certificate>,
}

/// A connection on its way to a core.
struct Incoming {
    stream: std::net::TcpStream,
    /// Its share of `connections_max`.
    place: OwnedSemaphorePermit,
}

/// Accepts connections until told to stop.
pub struct Listener {
    socket: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener {
    /// Binds the data plane's address.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub fn bind(address: SocketAddr, connections_max: u32) -> std::io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let places = Arc::new(Semaphore::new(connections_max as usize));
        Ok(Self { socket: TcpListener::from_std(socket.into())?, places })
    }

    /// The address in use.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop`, handing connections to the cores; then closes the socket.
    pub async fn run(self, cores: Arc<Cores>, stop: CancellationToken) {
        loop {
            let incoming = tokio::select! {
                incoming = self.accept() => incoming,
                () = stop.cancelled() => return,
            };
            match incoming {
                Ok(incoming) => cores.assign(incoming).await,
                Err(fault) => {
                    tracing::warn!(%fault, "could not accept a connection");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    /// The next connection, once there is room for it.
    async fn accept(&self) -> std::io::Result<Incoming> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, _) = self.socket.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Incoming { stream: stream.into_std()?, place })
    }
}
