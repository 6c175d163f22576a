//! The engine served over HTTP/1.1.
//!
//! It plays plans faithfully, the bad ones too: a cut closes the socket in the middle of an answer, a hang
//! lasts until the client leaves.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::engine::Sim;
use crate::plan::Plan;
use crate::playback::{Ended, Playback};
use crate::refusal::Refusal;

/// The largest request body, in bytes. Larger ones are answered 413.
pub const BODY_LIMIT: usize = 32 << 20;
/// How long a client may take over a request's head, idle time on a kept connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take over a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long answers in flight may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(5);
/// Connections served at a time; more wait in the kernel's accept queue.
// Bound: above the ten thousand open streams that load tests want.
const MAX_CONNECTIONS: usize = 16_384;
/// Pause after a failed accept: out of file descriptors does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on the listener until `shutdown` completes, then lets answers in flight end, for a few seconds at most.
pub async fn serve(listener: TcpListener, sim: Arc<Sim>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, Arc::clone(&sim), stopped.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop((listener, stop));
    // What is left after the grace is aborted when the set is dropped.
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(socket: TcpStream, sim: Arc<Sim>, mut stopped: watch::Receiver<()>) {
    // Tokens are small and must not wait for each other; without it the server works, only less evenly.
    let _ = socket.set_nodelay(true);
    let service = service_fn(|request| {
        let sim = Arc::clone(&sim);
        async move { Ok::<_, Infallible>(answer(&sim, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        // A connection ends with an error when the client leaves or the simulator cuts it: both are business as usual.
        _ = connection.as_mut() => return,
        // The sender is dropped, nothing is ever sent.
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(sim: &Sim, request: Request<Incoming>) -> Response<Answer> {
    let (parts, body) = request.into_parts();
    let plan = match read(body).await {
        Ok(body) => {
            // A value that is not text is a value all the same: this one is in no header's range.
            let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("\u{FFFD}"));
            sim.plan(&parts.method, parts.uri.path(), header, &body)
        }
        Err(refusal) => Plan::from(refusal),
    };
    let (head, playback) = plan.start().await;
    let mut response = Response::new(Answer { playback, left: head.length, cut: None });
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response.headers_mut().insert("server", HeaderValue::from_static("sluice-sim"));
    response
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    // A declared length is refused before any of the body is sent; without one, reading stops at the limit.
    if http_body::Body::size_hint(&body).lower() > BODY_LIMIT as u64 {
        return Err(Refusal::too_large(BODY_LIMIT));
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large(BODY_LIMIT)),
        Ok(Err(_)) => Err(Refusal::malformed("the body could not be read")),
        Err(_) => Err(Refusal::simulated(StatusCode::REQUEST_TIMEOUT)),
    }
}

/// A playback as the body of a response.
struct Answer {
    playback: Playback,
    /// Bytes to come; none for a stream.
    left: Option<u64>,
    /// The cut, held back once so that what was sent before it leaves first.
    cut: Option<Ended>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Ended;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        if let Some(ended) = self.cut.take() {
            return Poll::Ready(Some(Err(ended)));
        }
        match ready!(self.playback.poll_next(context)) {
            Some(Ok(bytes)) => {
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // hyper drops what it has buffered when a body fails, but writes it out when a body has to wait.
            Some(Err(ended)) => {
                self.cut = Some(ended);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
