//! A streamed answer on its way through.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use kernel::error::Kind;
use kernel::journal::Gaps;
use kernel::{Ctx, Delta, Deltas, Error, Moment, Note, Permit, Placed, Result};
use tokio::time::Sleep;
use wire::openai::stream::Watch;

use super::exchange;
use crate::adaptive::Awaited;
use crate::connection::Inbound;
use crate::instance::Instance;

/// How it is said that the backend ended its answer with an error.
const ERROR_EVENT: &str = "error_event";

/// A stream from a backend: watched, timed, holding its slot and its connection until it ends.
pub(super) struct Stream {
    ctx: Ctx,
    instance: Arc<Instance>,
    body: Inbound,
    watch: Watch,
    /// Read ahead while the first event was awaited.
    ahead: Bytes,
    state: State,
    last: Moment,
    deadline: Moment,
    idle: Duration,
    /// When the first byte must be there.
    first_by: Moment,
    /// Whether any byte has come.
    begun: bool,
    /// Whether the stream was handed on before its first event.
    unproven: bool,
    /// One timer for every time-out, set again only when it fires: none is touched per piece.
    timer: Pin<Box<Sleep>>,
    gaps: Box<Gaps>,
    permit: Option<Permit>,
    /// Pieces of the answer handed on.
    handed_on: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// The backend is done; something may still be handed on.
    Drained,
    Over,
}

impl Stream {
    pub(super) fn new(ctx: &Ctx, placed: Placed, instance: Arc<Instance>, body: Inbound, first_by: Moment) -> Self {
        let now = Moment::now();
        let (deadline, idle) = (placed.attempt.deadline, instance.timeouts.idle);
        let strip = instance.force_usage && !placed.attempt.call.wants_usage;
        Self {
            ctx: ctx.clone(),
            body,
            watch: Watch::new(strip),
            ahead: Bytes::new(),
            state: State::Flowing,
            last: now,
            deadline,
            idle,
            first_by,
            begun: false,
            unproven: false,
            timer: Box::pin(tokio::time::sleep(first_by.since(now))),
            gaps: Box::default(),
            permit: Some(placed.permit),
            handed_on: 0,
            instance,
        }
    }

    /// Waits for the first piece of the answer and keeps what came up to it: comments before it promise nothing yet.
    /// An error event in its place is an error.
    pub(super) async fn first(&mut self) -> Result<()> {
        while self.watch.seen().pieces == 0 && !self.watch.seen().done && self.ahead.len() <= wire::sse::EVENT_MAX {
            match std::future::poll_fn(|cx| self.poll_body(cx)).await? {
                Some(read) => {
                    self.last = Moment::now();
                    self.begin();
                    let more = self.watch.feed(read);
                    self.ahead =
                        if self.ahead.is_empty() { more } else { [&self.ahead[..], &more[..]].concat().into() };
                }
                None => {
                    self.state = State::Drained;
                    let rest = self.watch.finish();
                    self.ahead = [&self.ahead[..], &rest[..]].concat().into();
                    if self.ahead.is_empty() && !self.watch.seen().done {
                        return Err(exchange::broken(&self.instance, "empty_stream"));
                    }
                    break;
                }
            }
            if let (Some((status, message)), 0) = (&self.watch.seen().error, self.watch.seen().pieces) {
                return Err(exchange::disguised(&self.instance, *status, message));
            }
        }
        Ok(())
    }

    /// The stream is given up before anything of it was shown: leaves no trace in the journal.
    pub(super) fn refuse(mut self, error: Error) -> Error {
        self.state = State::Over;
        error
    }

    /// Not even a first event has come, but the stream is handed on.
    pub(super) fn expect_first(&mut self) {
        self.unproven = true;
    }

    /// The next bytes, in time, or what went wrong; tells the instance's health of the latter.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        match self.body.poll_next(cx) {
            Poll::Pending => self.overdue(cx).map(Err),
            Poll::Ready(Some(Err(_))) => Poll::Ready(Err(exchange::broken(&self.instance, "broken_stream"))),
            Poll::Ready(read) => Poll::Ready(Ok(read.and_then(std::io::Result::ok))),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        loop {
            if !self.ahead.is_empty() {
                return Poll::Ready(Some(Ok(self.hand_on())));
            }
            if self.state != State::Flowing {
                return Poll::Ready(self.end());
            }
            match std::task::ready!(self.poll_body(cx)) {
                Ok(Some(read)) => self.take(read),
                Ok(None) => {
                    self.ahead = self.watch.finish();
                    self.state = State::Drained;
                }
                Err(error) => {
                    self.ctx.note(Note::Failed(error.cause.as_ref().into()));
                    self.close();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// What has been read, with what it means.
    fn hand_on(&mut self) -> Delta {
        let seen = self.watch.seen();
        let (pieces, last) = (seen.pieces - self.handed_on, seen.done);
        self.handed_on = seen.pieces;
        if last && let Some(usage) = seen.usage_or_estimate() {
            // Before the last piece is handed on: whoever keeps the books does so before the client has it all.
            self.ctx.note(Note::Used(usage));
        }
        if seen.error.is_some() {
            // For the same reason. An end mark behind it makes the answer no better.
            self.ctx.note(Note::Broke(ERROR_EVENT));
        }
        Delta { bytes: std::mem::take(&mut self.ahead), pieces: u32::try_from(pieces).unwrap_or(u32::MAX), last }
    }

    /// The first byte is there: the prompt has been read, and from now on silence is what is timed.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            if let Some(permit) = &mut self.permit {
                permit.begun();
            }
            let left = self.idle.min(self.deadline.remaining());
            self.timer.as_mut().reset(tokio::time::Instant::now() + left);
        }
    }

    fn take(&mut self, read: Bytes) {
        let now = Moment::now();
        self.begin();
        self.ahead = self.watch.feed(read);
        if !self.unproven {
            self.gaps.add(now.since(self.last));
        } else if self.watch.seen().pieces > 0 {
            self.unproven = false;
            self.ctx.note(Note::FirstByte(now));
            self.instance.succeeded(Awaited::FirstPiece, now.since(self.last), now);
        }
        self.last = now;
    }

    /// The backend has closed the body. A stream that does not look finished was cut, however properly it was closed.
    fn end(&mut self) -> Option<Result<Delta>> {
        if self.state == State::Over {
            return None;
        }
        let seen = self.watch.seen();
        if !seen.done && seen.error.is_none() && !(self.body.framed() && seen.finished()) {
            return Some(Err(self.break_off("cut_stream")));
        }
        self.instance.give_back(&mut self.body, Moment::now());
        self.close();
        None
    }

    fn break_off(&mut self, cause: &'static str) -> Error {
        let error = exchange::broken(&self.instance, cause);
        self.ctx.note(Note::Failed(cause.into()));
        self.close();
        error
    }

    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Moment::now();
            let silent = if self.begun { self.last + self.idle } else { self.first_by };
            let due = silent.min(self.deadline);
            if now >= due {
                return Poll::Ready(self.too_late(due));
            }
            self.timer.as_mut().reset(tokio::time::Instant::now() + due.since(now));
        }
        Poll::Pending
    }

    fn too_late(&self, due: Moment) -> Error {
        if due == self.deadline && self.ctx.facts().deadline == Some(due) {
            let message = "The answer was not complete by the call's own deadline.";
            return Error::upstream(Kind::UpstreamTimeout, "client_deadline", message).final_();
        }
        let (cause, message) = match self.begun {
            _ if due == self.deadline => ("call_timeout", "The answer took longer than this call may take."),
            true => ("idle_timeout", "The backend fell silent in the middle of its answer."),
            false => ("first_byte_timeout", "The backend did not begin its answer in time."),
        };
        self.instance.failed(cause, None);
        Error::upstream(Kind::UpstreamTimeout, cause, message)
    }

    /// Frees the slot, closes the connection if it is still ours, and writes down what was consumed. Once.
    fn close(&mut self) {
        if self.state == State::Over {
            return;
        }
        self.state = State::Over;
        drop(self.body.take_connection());
        self.permit = None;
        if let Some(usage) = self.watch.seen().usage_or_estimate() {
            self.ctx.note(Note::Used(usage));
        }
        self.ctx.note(Note::Spaced(std::mem::take(&mut self.gaps)));
        if let Some((status, _)) = &self.watch.seen().error {
            // What the backend said may quote the prompt: it is the client's to read, not the log's.
            self.ctx.note(Note::Broke(ERROR_EVENT));
            self.ctx.note(Note::Failed(ERROR_EVENT.into()));
            if !status.is_some_and(|status| (400..500).contains(&status)) {
                self.instance.failed(ERROR_EVENT, None);
            }
        }
    }
}

impl Deltas for Stream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        self.read(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}
