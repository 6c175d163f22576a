//! The bodies of answers, and with them the end of the visit.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use kernel::{Delta, Deltas, Error, Outcome};
use tokio::time::{Instant, Sleep};
use wire::openai::fault;

use super::Visit;
use crate::announcement::Announcement;

/// Said on a silent stream. A comment by the standard: clients skip it.
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// How an event can end.
const ENDS: [&[u8]; 4] = [b"\n\n", b"\r\r", b"\n\r", b"\r\n\r\n"];

/// An answer's body. The visit ends with its last byte.
pub struct Outgoing(State);

enum State {
    Whole(Bytes),
    Stream(Box<Streaming>),
    Flow(Box<Flowing>),
    Over,
}

/// Whatever a service answers, as it comes.
struct Flowing {
    deltas: Box<dyn Deltas>,
    /// Dropped after the deltas.
    held: Vec<Box<dyn Any + Send>>,
    /// Said when it must end. Whoever polls it is woken then.
    closing: Arc<Announcement>,
    status: u16,
    /// How long it is, where its head says so: nobody asks for more then.
    length: Option<u64>,
    visit: Visit,
}

struct Streaming {
    deltas: Box<dyn Deltas>,
    /// Dropped after the deltas.
    _held: Vec<Box<dyn Any + Send>>,
    company: Option<Company>,
    between_events: bool,
    /// Said when it must end. Whoever polls it is woken then.
    closing: Arc<Announcement>,
    visit: Visit,
}

/// Keeps a silent stream alive. The timer runs through; pieces only leave a mark, so none costs a timer.
struct Company {
    interval: Duration,
    timer: Pin<Box<Sleep>>,
    moved: bool,
}

impl Outgoing {
    /// A body that is there already. Its visit ends here: that it is written out is the connection's business, and on a
    /// HEAD request it never is.
    pub(super) fn whole(bytes: Bytes, status: u16, outcome: Outcome, mut visit: Visit) -> Self {
        visit.sent = bytes.len() as u64;
        visit.finish(status, outcome);
        Self(State::Whole(bytes))
    }

    pub(super) fn stream(
        deltas: Box<dyn Deltas>,
        held: Vec<Box<dyn Any + Send>>,
        silence: Duration,
        visit: Visit,
        closing: Arc<Announcement>,
    ) -> Self {
        let company = (!silence.is_zero()).then(|| Company::new(silence));
        Self(State::Stream(Box::new(Streaming { deltas, _held: held, company, between_events: true, closing, visit })))
    }
}

impl Outgoing {
    /// An answer that is passed on as it comes. Where it breaks off, so does the connection: nothing else would tell the
    /// client that it has not got all of it.
    pub(super) fn flow(
        deltas: Box<dyn Deltas>,
        held: Vec<Box<dyn Any + Send>>,
        (status, length): (u16, Option<u64>),
        visit: Visit,
        closing: Arc<Announcement>,
    ) -> Self {
        Self(State::Flow(Box::new(Flowing { deltas, held, closing, status, length, visit })))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = match std::mem::replace(&mut self.0, State::Over) {
            State::Over => None,
            State::Whole(bytes) => (!bytes.is_empty()).then_some(bytes),
            State::Flow(mut flowing) => match flowing.poll(cx) {
                Poll::Pending => {
                    self.0 = State::Flow(flowing);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok((bytes, more)))) => {
                    if more {
                        self.0 = State::Flow(flowing);
                    }
                    Some(bytes)
                }
                Poll::Ready(Some(Err(fault))) => return Poll::Ready(Some(Err(fault))),
                Poll::Ready(None) => None,
            },
            State::Stream(mut streaming) => match streaming.poll(cx) {
                Poll::Pending => {
                    self.0 = State::Stream(streaming);
                    return Poll::Pending;
                }
                Poll::Ready(Piece::More(bytes)) => {
                    streaming.visit.sent += bytes.len() as u64;
                    self.0 = State::Stream(streaming);
                    Some(bytes)
                }
                Poll::Ready(Piece::Last(bytes)) => bytes,
            },
        };
        Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            State::Over => SizeHint::with_exact(0),
            State::Stream(_) | State::Flow(_) => SizeHint::default(),
        }
    }
}

/// What a stream has to send.
enum Piece {
    More(Bytes),
    /// Nothing comes after it.
    Last(Option<Bytes>),
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        match self.deltas.poll_next(cx) {
            Poll::Ready(Some(Ok(Delta { bytes, .. }))) => {
                self.between_events = ENDS.iter().any(|end| bytes.ends_with(end));
                if let Some(company) = &mut self.company {
                    company.moved = true;
                }
                Poll::Ready(Piece::More(bytes))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.break_off(&error)),
            Poll::Ready(None) => {
                self.end(Outcome::Answered);
                Poll::Ready(Piece::Last(None))
            }
            Poll::Pending if self.closing.said() => Poll::Ready(self.break_off(&super::stopping())),
            Poll::Pending => match &mut self.company {
                Some(company) if self.between_events => company.poll(cx).map(|()| Piece::More(COMMENT)),
                _ => Poll::Pending,
            },
        }
    }

    fn break_off(&mut self, error: &Error) -> Piece {
        let cause = if error.cause.is_empty() { "stopping" } else { &error.cause };
        self.end(Outcome::Failed(cause.into()));
        let event = fault::event(error);
        // Behind half an event it must not be taken for its other half.
        Piece::Last(Some(if self.between_events { event } else { [b"\n\n", &event[..]].concat().into() }))
    }

    /// Lets go of the backend first, so that the journal is complete, then ends the visit.
    fn end(&mut self, outcome: Outcome) {
        self.deltas = Box::new(Ended);
        self._held.clear();
        self.visit.finish(200, outcome);
    }
}

impl Flowing {
    /// The next bytes, and whether there may be more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<(Bytes, bool)>>> {
        match self.deltas.poll_next(cx) {
            Poll::Ready(Some(Ok(Delta { bytes, .. }))) => {
                self.visit.sent += bytes.len() as u64;
                let more = self.length.is_none_or(|length| self.visit.sent < length);
                if !more {
                    // Asked once more, the backend's side sees its end and can give its connection back.
                    let _ = self.deltas.poll_next(cx);
                    self.end(Outcome::Answered);
                }
                Poll::Ready(Some(Ok((bytes, more))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.break_off(&error)))),
            Poll::Ready(None) => {
                self.end(Outcome::Answered);
                Poll::Ready(None)
            }
            Poll::Pending if self.closing.said() => Poll::Ready(Some(Err(self.break_off(&super::stopping())))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn break_off(&mut self, error: &Error) -> io::Error {
        let cause = if error.cause.is_empty() { "stopping" } else { &error.cause };
        self.end(Outcome::Failed(cause.into()));
        io::ErrorKind::ConnectionAborted.into()
    }

    /// Lets go of the backend first, so that the journal is complete, then ends the visit.
    fn end(&mut self, outcome: Outcome) {
        self.deltas = Box::new(Ended);
        self.held.clear();
        self.visit.finish(self.status, outcome);
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        self.deltas = Box::new(Ended);
        self.held.clear();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // The client has left: the backend's stream writes its last notes before the visit is closed.
        self.deltas = Box::new(Ended);
        self._held.clear();
    }
}

struct Ended;

impl Deltas for Ended {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<kernel::Result<Delta>>> {
        Poll::Ready(None)
    }
}

impl Company {
    /// Looks twice per span of silence, so that a comment comes after half to the whole of it.
    fn new(silence: Duration) -> Self {
        let interval = silence / 2;
        Self { interval, timer: Box::pin(tokio::time::sleep(interval)), moved: false }
    }

    /// Ready when a comment is due.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            self.timer.as_mut().reset(Instant::now() + self.interval);
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
