//! One client connection: which protocol it speaks, and its requests. The only file of this crate that names hyper.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kernel::Moment;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;

use super::alarm::Alarm;
use super::turn::{OurTurn, Turns, Watched};
use super::{Peer, Tls};
use crate::Door;
use crate::announcement::Announcement;
use crate::credential::Certificate;
use crate::door::{Arriving, FramedTwice, Outgoing};
use crate::settings::LimitSettings;

/// How h2 clients open a connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bound: read and write buffers of one connection.
const BUFFER_MAX: usize = 64 << 10;
/// How many headers hyper has room for without being told.
const HEADERS_USUAL: usize = 100;
/// Flow-control windows of h2: enough for a large prompt in one round trip, small enough for many streams.
const H2_STREAM_WINDOW: u32 = 256 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// h2 connections are asked for a sign of life this often, and closed when none comes.
const H2_PING: Duration = Duration::from_secs(30);

/// What every connection of a core is treated with.
pub(super) struct Manners {
    pub(super) door: Arc<Door>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) ending: Arc<Announcement>,
}

/// Serves a connection until it ends. How it ends is logged nowhere: clients come and go.
pub(super) async fn serve(stream: std::net::TcpStream, manners: Manners) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let address = stream.peer_addr().ok().map(|address| address.ip().to_canonical());
    let mut ending = pin!(manners.ending.listen());
    let limits = manners.door.machine().limits.clone();
    let patience = limits.header_timeout_ms.duration();
    match &manners.tls {
        Some(tls) => {
            let accepted = Box::pin(tokio::time::timeout(patience, tls.0.accept(stream)));
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = ending.as_mut() => return,
            };
            let Ok(Ok(stream)) = accepted else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.and_then(|certificate| Certificate::read(certificate));
            let peer = Arc::new(Peer { address, secure: true, certificate });
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(h2(stream, manners, peer, &limits)).await;
            } else {
                Box::pin(h1(stream, manners, peer, &limits)).await;
            }
        }
        None => {
            let spoken = tokio::select! {
                spoken = tokio::time::timeout(patience, speaks_h2(&stream)) => spoken,
                () = ending.as_mut() => return,
            };
            let peer = Arc::new(Peer { address, secure: false, certificate: None });
            match spoken {
                Ok(Ok(true)) => Box::pin(h2(stream, manners, peer, &limits)).await,
                Ok(Ok(false)) => h1(stream, manners, peer, &limits).await,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

/// Looks at the first bytes without taking them.
async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        let same = first.iter().zip(PREFACE).take(seen).take_while(|(a, b)| a == b).count();
        if seen == 0 || same < seen || seen == PREFACE.len() {
            return Ok(seen > 0 && same == PREFACE.len());
        }
        // So far it could be either; readiness does not change for bytes already seen.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn h1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    manners: Manners,
    peer: Arc<Peer>,
    limits: &LimitSettings,
) {
    let turns = Turns::new();
    let mut builder = http1::Builder::new();
    builder.max_header_size(limits.header_max.len()).max_buf_size(limits.header_max.len().max(BUFFER_MAX));
    // Said only where it differs: hyper clears the room for it anew for each request then.
    if usize::from(limits.headers_max) != HEADERS_USUAL {
        builder.max_headers(usize::from(limits.headers_max));
    }
    let (door, served) = (Arc::clone(&manners.door), turns.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, turns, peer) = (Arc::clone(&door), served.clone(), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(exchange(door, request, &turns, &peer).await) }
    });
    // Boxed, so that a task has the size of what it does and not of the largest of all protocols.
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(Watched::new(stream, turns.clone())), service));
    let mut ending = Once::new(manners.ending.listen());
    let mut closing = Once::new(manners.door.closing());
    let patience = limits.header_timeout_ms.duration();
    let mut watchman = Alarm::after(patience);
    let mut told = false;
    std::future::poll_fn(|cx| {
        ending.listen(cx);
        closing.listen(cx);
        if !told && manners.ending.said() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // One timer for all heads of the connection, set again only when it fires. It closes what it finds overdue.
        while watchman.rang(cx) {
            let waited = turns.waited(Moment::now()).unwrap_or_default();
            if waited >= patience {
                return Poll::Ready(());
            }
            watchman.again(patience - waited);
        }
        Poll::Pending
    })
    .await;
}

/// One request on an HTTP/1.1 connection.
async fn exchange(
    door: Arc<Door>,
    request: Request<Incoming>,
    turns: &Turns,
    peer: &Peer,
) -> Response<Guarded<OurTurn>> {
    let (turn, two_lengths) = turns.take();
    let (mut head, body) = request.into_parts();
    let chunked = head.headers.contains_key(TRANSFER_ENCODING);
    if two_lengths && chunked {
        head.extensions.insert(FramedTwice);
    }
    let mut response = door.handle(head, body, peer).await.map(|body| Guarded { body, _guard: turn });
    if chunked {
        // Who before us counted the body's bytes otherwise must not have the rest taken for a request (RFC 9112 §6.3).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn h2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    manners: Manners,
    peer: Arc<Peer>,
    limits: &LimitSettings,
) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(limits.header_max.bytes()).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);
    let door = Arc::clone(&manners.door);
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, peer) = (Arc::clone(&door), Arc::clone(&peer));
        async move {
            let (head, body) = request.into_parts();
            // Each stream is a task of its own, to be woken by itself.
            let mut closing = Once::new(door.closing());
            std::future::poll_fn(|cx| {
                closing.listen(cx);
                Poll::Ready(())
            })
            .await;
            Ok::<_, Infallible>(door.handle(head, body, &peer).await.map(|body| Guarded { body, _guard: closing }))
        }
    });
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    let mut ending = Once::new(manners.ending.listen());
    let mut told = false;
    std::future::poll_fn(|cx| {
        ending.listen(cx);
        if !told && manners.ending.said() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// A listener that registers its task at the first call; a task is always woken the same way.
struct Once {
    listener: Pin<Box<OwnedNotified>>,
    registered: bool,
}

/// An answer's body, and what is held until it is out.
struct Guarded<G> {
    body: Outgoing,
    _guard: G,
}

impl Once {
    fn new(listener: OwnedNotified) -> Self {
        Self { listener: Box::pin(listener), registered: false }
    }

    fn listen(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.registered, true) {
            // Ready or not: whoever listens asks himself whether it has been said.
            let _ = self.listener.as_mut().poll(cx);
        }
    }
}

impl<G: Unpin> Body for Guarded<G> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Arriving for Incoming {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *self).poll_frame(cx)).await?;
            match frame.map_err(io::Error::other).map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) if bytes.is_empty() => continue,
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                Ok(Err(_trailers)) => continue,
                Err(fault) => return Some(Err(fault)),
            }
        }
    }
}
