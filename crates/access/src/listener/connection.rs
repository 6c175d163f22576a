//! One client connection: which protocol it speaks, and its requests. The only file of this crate that names hyper.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Tls;
use super::wiretap::{Head, Tapped};
use crate::Door;
use crate::door::{Arriving, FramedTwice, Outgoing};
use crate::settings::LimitSettings;

/// How h2 clients open a connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bound: read and write buffers of one connection.
const BUFFER_MAX: usize = 64 << 10;
/// Flow-control windows of h2: enough for a large prompt in one round trip, small enough for many streams.
const H2_STREAM_WINDOW: u32 = 256 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// h2 connections are asked for a sign of life this often, and closed when none comes.
const H2_PING: Duration = Duration::from_secs(30);

/// What every connection of a core is treated with.
pub(super) struct Manners {
    pub(super) door: Arc<Door>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) drain: CancellationToken,
}

/// Serves a connection until it ends. How it ends is logged nowhere: clients come and go.
pub(super) async fn serve(stream: std::net::TcpStream, manners: Manners) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let limits = manners.door.machine().limits.clone();
    let patience = limits.header_timeout_ms.duration();
    match &manners.tls {
        Some(tls) => {
            let Ok(Ok(stream)) = tokio::time::timeout(patience, tls.0.accept(stream)).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                h2(stream, manners, &limits).await;
            } else {
                h1(stream, manners, &limits).await;
            }
        }
        None => match tokio::time::timeout(patience, speaks_h2(&stream)).await {
            Ok(Ok(true)) => h2(stream, manners, &limits).await,
            Ok(Ok(false)) => h1(stream, manners, &limits).await,
            Ok(Err(_)) | Err(_) => {}
        },
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

async fn h1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, manners: Manners, limits: &LimitSettings) {
    let tape = Head::new(limits.header_max.len());
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout_ms.duration())
        .max_headers(usize::from(limits.headers_max))
        .max_header_size(limits.header_max.len())
        .max_buf_size(limits.header_max.len().max(BUFFER_MAX));
    let (door, service_tape) = (Arc::clone(&manners.door), tape.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, tape) = (Arc::clone(&door), service_tape.clone());
        async move { Ok::<_, Infallible>(exchange(door, request, &tape).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(Tapped::new(stream, tape)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = manners.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// One request on an HTTP/1.1 connection.
async fn exchange(door: Arc<Door>, request: Request<Incoming>, tape: &Head) -> Response<Outgoing> {
    let (mut head, body) = request.into_parts();
    if head.headers.contains_key(TRANSFER_ENCODING) && tape.framed_twice() {
        head.extensions.insert(FramedTwice);
    } else {
        tape.pause();
    }
    let response = door.handle(head, body).await;
    tape.rewind();
    response
}

async fn h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, manners: Manners, limits: &LimitSettings) {
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
        let door = Arc::clone(&door);
        async move {
            let (head, body) = request.into_parts();
            Ok::<_, Infallible>(door.handle(head, body).await)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = manners.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
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
