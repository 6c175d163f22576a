//! One HTTP/1.1 connection to a backend. The only file of this crate that names hyper.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kernel::Moment;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::endpoint::Endpoint;
use crate::tls;

/// Bound: how long a connection may take to be ready for its next request.
const SETTLE: Duration = Duration::from_millis(5);

/// A connection that can take one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<Outbound>,
    driver: Driver,
    /// When it was last put aside.
    pub(crate) idle_since: Moment,
}

/// The task that moves the connection's bytes. Dropping it closes the socket at once, wherever it is: this
/// is how a client's leaving reaches the backend.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

/// An answer's head, and its body still to come.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Inbound,
}

/// An answer's body as it arrives.
pub(crate) struct Inbound {
    source: Source,
    /// Whether the end of the body is marked by more than the end of the connection.
    framed: bool,
}

/// Where a body comes from.
enum Source {
    Network(Incoming),
    Simulated(Box<sim::Playback>),
}

/// A request body: pieces that are sent without being joined.
#[derive(Debug)]
pub(crate) struct Outbound(VecDeque<Bytes>);

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection could be made.
    Connect(io::Error),
    /// No connection in time.
    ConnectTimeout,
    /// The connection broke before the head of the answer.
    Broken(hyper::Error),
}

impl Connection {
    /// Opens a connection: resolves, connects, speaks TLS if needed.
    pub(crate) async fn open(endpoint: &Endpoint, within: Duration) -> Result<Self, Failure> {
        tokio::time::timeout(within, Self::connect(endpoint)).await.unwrap_or(Err(Failure::ConnectTimeout))
    }

    async fn connect(endpoint: &Endpoint) -> Result<Self, Failure> {
        let stream = TcpStream::connect((&*endpoint.host, endpoint.port)).await.map_err(Failure::Connect)?;
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        if !endpoint.tls {
            return Self::handshake(stream).await;
        }
        let name = rustls::pki_types::ServerName::try_from(endpoint.host.to_string());
        let name = name.map_err(|fault| Failure::Connect(io::Error::other(fault)))?;
        let stream = tls::connector().connect(name, stream).await.map_err(Failure::Connect)?;
        Self::handshake(stream).await
    }

    async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, Failure> {
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
        // How it ends is seen by whoever waits for an answer; an idle connection's end is of no interest.
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        Ok(Self { sender, driver, idle_since: Moment::now() })
    }

    /// Whether it can still take a request. An idle connection the backend has closed is noticed here, and one whose
    /// last request was answered before it was fully sent.
    pub(crate) async fn usable(&mut self) -> bool {
        if self.sender.is_ready() {
            return true;
        }
        // It may just not have been told yet that its last answer has been read.
        !self.sender.is_closed()
            && tokio::time::timeout(SETTLE, self.sender.ready()).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&mut self, request: http::Request<Outbound>) -> Result<Answered, Failure> {
        let response = self.sender.send_request(request).await.map_err(Failure::Broken)?;
        let (head, incoming) = response.into_parts();
        let framed =
            head.headers.contains_key(http::header::TRANSFER_ENCODING) || incoming.size_hint().exact().is_some();
        Ok(Answered {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Inbound { source: Source::Network(incoming), framed },
        })
    }

    /// Whether its task has ended already.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.0.is_finished() || self.sender.is_closed()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Inbound {
    /// The body of a simulated answer.
    pub(crate) fn simulated(playback: sim::Playback) -> Self {
        Self { source: Source::Simulated(Box::new(playback)), framed: true }
    }

    /// The next bytes; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match &mut self.source {
            Source::Network(incoming) => poll_data(incoming, cx),
            Source::Simulated(playback) => {
                playback.poll_next(cx).map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))
            }
        }
    }

    /// The same, to wait for.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whether the end of the body can be told from a broken connection.
    pub(crate) const fn framed(&self) -> bool {
        self.framed
    }

    /// Whether everything has been read.
    pub(crate) fn ended(&self) -> bool {
        match &self.source {
            Source::Network(incoming) => incoming.is_end_stream(),
            Source::Simulated(_) => false,
        }
    }
}

fn poll_data(incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
    loop {
        return match std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            None => Poll::Ready(None),
            Some(Err(fault)) => Poll::Ready(Some(Err(io::Error::other(fault)))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Poll::Ready(Some(Ok(bytes))),
                Err(_trailers) => continue,
            },
        };
    }
}

impl Outbound {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into())
    }

    /// The whole body in one piece.
    pub(crate) fn joined(self) -> Vec<u8> {
        self.0.iter().flat_map(|piece| piece.iter().copied()).collect()
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self(VecDeque::new())
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

impl Failure {
    /// For operators: what happened, in one word.
    pub(crate) const fn cause(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Broken(_) => "broken",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(fault) => write!(f, "connect: {fault}"),
            Self::ConnectTimeout => f.write_str("connect: timed out"),
            Self::Broken(fault) => write!(f, "broken: {fault}"),
        }
    }
}
