//! One HTTP/1.1 connection to a backend. The only file of this crate that names hyper.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kernel::Moment;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::endpoint::Endpoint;
use crate::tls;

/// A connection that can take one request at a time.
pub(crate) struct Connection {
    sender: http1::SendRequest<Outbound>,
    driver: Driver,
    /// When it was last put aside.
    pub(crate) idle_since: Moment,
}

/// What moves the connection's bytes, run by whoever waits for them and not by a task of its own: an answer crosses no
/// queue and wakes nobody. Dropping it closes the socket at once, wherever it is: this is how a client's leaving
/// reaches the backend.
struct Driver {
    /// `None` once the connection has ended. How it ended is seen by whoever waits for an answer.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    bell: Arc<Bell>,
    /// The bell as the work is given it.
    waker: Waker,
}

/// Tells who is waiting that the work can go on. While the work is being run it only remembers that it rang: whoever
/// runs it looks again himself, instead of being woken for what he has just done.
#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    waiting: Mutex<Waker>,
}

/// The bell wakes.
const LISTENING: u8 = 0;
/// The work is being run.
const RUNNING: u8 = 1;
/// It rang meanwhile.
const RANG: u8 = 2;

/// An answer's head, and its body still to come.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Inbound,
}

/// An answer's body as it arrives. Dropped before its end it closes the connection.
pub(crate) struct Inbound {
    source: Source,
    /// Whether the end of the body is marked by more than the end of the connection.
    framed: bool,
}

/// Where a body comes from.
enum Source {
    Network(Incoming, Connection),
    Simulated(Box<sim::Playback>),
    /// Nothing comes any more.
    Spent,
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

// === impl Connection ===

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
        let driver = Driver::new(async move { drop(connection.await) });
        Ok(Self { sender, driver, idle_since: Moment::now() })
    }

    /// Whether it can take a request. An idle connection the backend has closed is noticed here, and one whose last
    /// request was answered before it was fully sent.
    pub(crate) fn usable(&mut self) -> bool {
        // Nobody waits for what an idle connection does; whoever takes it next looks again.
        self.driver.run(&mut Context::from_waker(Waker::noop()));
        self.driver.work.is_some() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer; the connection goes with its body.
    pub(crate) async fn send(mut self, request: http::Request<Outbound>) -> Result<Answered, Failure> {
        let response = {
            let mut answer = pin!(self.sender.send_request(request));
            let driver = &mut self.driver;
            let answered = std::future::poll_fn(|cx| driver.run_for(cx, |inner| answer.as_mut().poll(inner))).await;
            answered.map_err(Failure::Broken)?
        };
        let (head, incoming) = response.into_parts();
        let framed =
            head.headers.contains_key(http::header::TRANSFER_ENCODING) || incoming.size_hint().exact().is_some();
        Ok(Answered {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Inbound { source: Source::Network(incoming, self), framed },
        })
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("idle_since", &self.idle_since).finish_non_exhaustive()
    }
}

// === impl Driver ===

impl Driver {
    fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(LISTENING), waiting: Mutex::new(Waker::noop().clone()) });
        Self { work: Some(Box::pin(work)), waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Does what can be done without waiting.
    fn run(&mut self, cx: &mut Context<'_>) {
        let Poll::Pending = self.run_for(cx, |_| Poll::<Infallible>::Pending);
    }

    /// Does what can be done until `wanted` has come.
    fn run_for<T>(&mut self, cx: &mut Context<'_>, mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let mut inner = Context::from_waker(&self.waker);
        self.bell.listen_for(cx.waker());
        loop {
            self.bell.state.store(RUNNING, Ordering::Release);
            if let Poll::Ready(come) = wanted(&mut inner) {
                self.bell.state.store(LISTENING, Ordering::Release);
                return Poll::Ready(come);
            }
            match &mut self.work {
                Some(work) => {
                    if work.as_mut().poll(&mut inner).is_ready() {
                        // What it had to say to the end is there at the next look.
                        self.work = None;
                        continue;
                    }
                }
                None => self.bell.state.store(LISTENING, Ordering::Release),
            }
            if self.bell.state.swap(LISTENING, Ordering::AcqRel) != RANG {
                return Poll::Pending;
            }
        }
    }
}

// === impl Bell ===

impl Bell {
    /// Whoever this wakes waits from now on.
    fn listen_for(&self, waker: &Waker) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone_from(waker);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let rang = self.state.compare_exchange(RUNNING, RANG, Ordering::AcqRel, Ordering::Acquire);
        if rang == Err(LISTENING) {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

// === impl Inbound ===

impl Inbound {
    /// The body of a simulated answer.
    pub(crate) fn simulated(playback: sim::Playback) -> Self {
        Self { source: Source::Simulated(Box::new(playback)), framed: true }
    }

    /// The next bytes; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match &mut self.source {
            Source::Network(incoming, connection) => connection.driver.run_for(cx, |inner| poll_data(incoming, inner)),
            Source::Simulated(playback) => {
                playback.poll_next(cx).map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))
            }
            Source::Spent => Poll::Ready(None),
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
            Source::Network(incoming, _) => incoming.is_end_stream(),
            Source::Simulated(_) => false,
            Source::Spent => true,
        }
    }

    /// Nothing more of it is wanted, or it has been read to its end: closes the connection, or hands it out.
    pub(crate) fn take_connection(&mut self) -> Option<Connection> {
        match std::mem::replace(&mut self.source, Source::Spent) {
            Source::Network(_, connection) => Some(connection),
            Source::Simulated(_) | Source::Spent => None,
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

// === impl Outbound ===

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

// === impl Failure ===

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
