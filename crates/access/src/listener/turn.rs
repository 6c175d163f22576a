//! Whose turn it is on an HTTP/1.1 connection, and how the head that is arriving frames its body.
//!
//! hyper takes `Transfer-Encoding` over `Content-Length` when a request has both, and hides the latter. RFC 9112
//! §6.3 allows that, but a proxy in front of us may have believed the other one, and then the rest of the body is the
//! beginning of somebody's next request. So the bytes of a head are looked at as they come; none are kept.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use kernel::Moment;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The turns of one connection. Cheap to clone; all clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Since when the client has the turn: its head is awaited. `None` while its request is being answered.
    client_since: Option<Moment>,
    /// Since when the client has taken nothing of an answer, though there is more of it.
    stuck_since: Option<Moment>,
    head: Framing,
}

/// Our turn: a request is being answered. When it is dropped, the client has the turn again.
#[derive(Debug)]
pub(super) struct OurTurn(Turns);

/// A connection whose heads are looked at.
pub(super) struct Watched<S> {
    stream: S,
    turns: Turns,
}

/// How much of a line decides what it is.
const LENGTH: &[u8] = b"content-length:";

/// What the lines of a head say about the body's length.
#[derive(Debug, Default)]
struct Framing {
    /// The beginning of the line that is arriving.
    line: [u8; LENGTH.len()],
    filled: usize,
    /// Whether a line of this head has been seen: empty ones before the first do not end it.
    begun: bool,
    ended: bool,
    length: bool,
}

// === impl Turns ===

impl Turns {
    /// Turns of a new connection: the client begins.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            client_since: Some(Moment::now()),
            stuck_since: None,
            head: Framing::default(),
        })))
    }

    /// A request has been read. Tells also whether its head, which has a `Transfer-Encoding`, has a `Content-Length`
    /// too. One whose beginning was read together with the request before it cannot be judged: that counts as yes unless it
    /// looks whole, which is why no connection is used again after a `Transfer-Encoding`.
    pub(super) fn take(&self) -> (OurTurn, bool) {
        let mut state = self.lock();
        state.client_since = None;
        let head = std::mem::take(&mut state.head);
        (OurTurn(self.clone()), head.length || !head.ended)
    }

    /// For how long the client has been waited for: to send a head, or to take what there is of an answer. `None` while
    /// it owes nothing.
    pub(super) fn waited(&self, now: Moment) -> Option<Duration> {
        let state = self.lock();
        state.client_since.or(state.stuck_since).map(|since| now.since(since))
    }

    /// Some of an answer went out. The end of a long one may be on its way for long: that is no silence of the client's.
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        let mut state = self.lock();
        match polled {
            Poll::Pending => drop(state.stuck_since.get_or_insert_with(Moment::now)),
            Poll::Ready(_) => {
                state.stuck_since = None;
                state.client_since = state.client_since.map(|_| Moment::now());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OurTurn {
    fn drop(&mut self) {
        self.0.lock().client_since = Some(Moment::now());
    }
}

// === impl Framing ===

impl Framing {
    fn look(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
            for (to, from) in self.line.iter_mut().skip(self.filled).zip(line) {
                *to = *from;
                self.filled += 1;
            }
            if end.is_some() {
                self.end_line();
            }
            bytes = rest;
        }
    }

    fn end_line(&mut self) {
        let line = self.line.get(..self.filled).unwrap_or_default();
        if matches!(line, b"\n" | b"\r\n") {
            self.ended = self.begun;
        } else {
            self.begun = true;
            self.length |= line.eq_ignore_ascii_case(LENGTH);
        }
        self.filled = 0;
    }
}

// === impl Watched ===

impl<S> Watched<S> {
    pub(super) fn new(stream: S, turns: Turns) -> Self {
        Self { stream, turns }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(read) = buf.filled().get(before..).filter(|read| !read.is_empty()) {
            let mut state = self.turns.lock();
            if state.client_since.is_some() {
                state.head.look(read);
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.turns.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.turns.wrote(&polled);
        polled
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
    use proptest::prelude::*;

    use super::*;

    fn judged(reads: &[&[u8]]) -> bool {
        let turns = Turns::new();
        reads.iter().for_each(|read| turns.lock().head.look(read));
        turns.take().1
    }

    #[test]
    fn a_head_with_a_length_is_told_in_any_order_and_case() {
        let both = |head: &str| judged(&[head.as_bytes()]);
        assert!(both("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"));
        assert!(both("POST / HTTP/1.1\r\ncontent-LENGTH:3\r\nTransfer-Encoding: chunked\r\n\r\nabc"));
        assert!(both("\r\n\r\nPOST / HTTP/1.1\nContent-Length: 3\n\n"));
        assert!(!both("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 3\r\n\r\n"));
        assert!(!both("POST /content-length: HTTP/1.1\r\nx-content-length: 3\r\n\r\n"));
        assert!(both("POST / HTTP/1.1\r\n"), "what cannot be judged is refused");
    }

    #[test]
    fn what_comes_in_our_turn_is_no_head() {
        let turns = Turns::new();
        turns.lock().head.look(b"POST / HTTP/1.1\r\n\r\n");
        let (ours, _) = turns.take();
        assert_eq!(turns.waited(Moment::now()), None);
        drop(ours);
        assert!(turns.waited(Moment::now()).is_some());
        turns.lock().client_since = Some(Moment::from_micros(0));
        turns.wrote(&Poll::Ready(Ok(1)));
        let waited = turns.waited(Moment::now()).unwrap();
        assert!(waited < Duration::from_millis(500), "an answer that goes on is no silence: {waited:?}");
        let _ours = turns.take();
        turns.wrote(&Poll::Pending);
        assert!(turns.waited(Moment::now()).is_some(), "a client that takes nothing is waited for in our turn too");
        turns.wrote(&Poll::Ready(Ok(1)));
        assert_eq!(turns.waited(Moment::now()), None);
        turns.lock().head.look(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!turns.take().1);
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_how_the_head_was_read(
            lines in proptest::collection::vec("(Content-Length: 1|content-length|Transfer-Encoding: chunked|x: y|content-length :1)", 0..5),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let head = format!("POST / HTTP/1.1\r\n{}\r\nbody\r\ncontent-length:\r\n", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % head.len()).chain([0, head.len()]).collect();
            cuts.sort_unstable();
            let reads: Vec<&[u8]> = cuts.windows(2).map(|pair| &head.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(judged(&reads), lines.iter().any(|line| line == "Content-Length: 1"));
        }
    }
}
