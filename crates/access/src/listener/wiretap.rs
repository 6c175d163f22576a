//! Remembers the bytes of a request's head as they came.
//!
//! hyper takes `Transfer-Encoding` over `Content-Length` when a request has both, and hides the latter. RFC 9112
//! §6.3 allows that, but a proxy in front of us may have believed the other one, and then the rest of the body is the
//! beginning of somebody's next request. So the head is kept until it has been looked at.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The head being read on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Head(Arc<Mutex<Tape>>);

#[derive(Debug, Default)]
struct Tape {
    bytes: BytesMut,
    /// Whether what is read now belongs to a head.
    running: bool,
    /// Bound: as large as a head may be.
    max: usize,
}

/// A connection whose heads are remembered.
pub(super) struct Tapped<S> {
    stream: S,
    head: Head,
}

impl Head {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Tape { bytes: BytesMut::new(), running: true, max })))
    }

    /// A request has been read: whether its head has both framings. Stops remembering until [`Head::rewind`].
    pub(super) fn framed_twice(&self) -> bool {
        let mut tape = self.lock();
        tape.running = false;
        let bytes = std::mem::take(&mut tape.bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        // A head whose beginning was read together with the request before it cannot be judged: refuse it too.
        let Some(head) = end.and_then(|end| bytes.get(..end)) else { return true };
        head.split(|byte| *byte == b'\n')
            .any(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:")))
    }

    /// A request has been read and is of no interest.
    pub(super) fn pause(&self) {
        let mut tape = self.lock();
        tape.running = false;
        tape.bytes.clear();
    }

    /// Its answer is out: what comes next is a head again.
    pub(super) fn rewind(&self) {
        self.lock().running = true;
    }

    fn record(&self, bytes: &[u8]) {
        let mut tape = self.lock();
        if tape.running {
            let room = tape.max.saturating_sub(tape.bytes.len()).min(bytes.len());
            tape.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Tapped<S> {
    pub(super) fn new(stream: S, head: Head) -> Self {
        Self { stream, head }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(read) = buf.filled().get(before..).filter(|read| !read.is_empty()) {
            self.head.record(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(bytes: &str) -> bool {
        let head = Head::new(1 << 16);
        head.record(bytes.as_bytes());
        head.framed_twice()
    }

    #[test]
    fn a_head_with_both_framings_is_told_in_any_order_and_case() {
        assert!(judged("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"));
        assert!(judged("POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"));
        assert!(!judged("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 3\r\n\r\n"));
        assert!(judged("chunked\r\n"), "what cannot be judged is refused");
    }

    #[test]
    fn nothing_is_remembered_between_head_and_answer() {
        let head = Head::new(1 << 16);
        head.pause();
        head.record(b"body");
        head.rewind();
        head.record(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!head.framed_twice());
    }
}
