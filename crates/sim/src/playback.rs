//! A plan being played in time, on tokio's clock (which a test may pause and turn by hand).

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::plan::{End, Head, Plan, Steps};

/// The body of an answer whose head has been sent.
#[derive(Debug)]
pub struct Playback {
    steps: Steps,
    /// When the step in `waiting` is due. Absolute, so that late timers do not add up.
    due: Instant,
    waiting: Option<Bytes>,
    /// Made for the first wait, reset for each later one; none while there is nothing to wait for.
    sleep: Option<Pin<Box<Sleep>>>,
    asleep: bool,
    over: bool,
}

/// The body was cut: more was due, and the connection is to be closed without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

// === impl Plan ===

impl Plan {
    /// Waits until the head is due, then gives it and the body to come.
    ///
    /// Never completes for a call that is to be left without an answer: put it under a deadline.
    pub async fn start(self) -> (Head, Playback) {
        let Some(head) = self.head else { return pending().await };
        let due = Instant::now() + head.after;
        if !head.after.is_zero() {
            sleep_until(due).await;
        }
        (head, Playback { steps: self.steps, due, waiting: None, sleep: None, asleep: false, over: false })
    }
}

// === impl Playback ===

impl Playback {
    /// The next piece when it is due; none at a good end, an error once at a cut, never for a body that hangs.
    /// Dropping the future loses nothing: the piece is given by the next call.
    pub async fn next(&mut self) -> Option<Result<Bytes, Ended>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Playback::next`], for those who implement streams and bodies.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Ended>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.waiting.is_none() {
            let Some(step) = self.steps.next() else { return self.finish() };
            self.due += step.after;
            self.waiting = Some(step.bytes);
            if !step.after.is_zero() {
                self.fall_asleep();
            }
        }
        if self.asleep
            && let Some(sleep) = &mut self.sleep
        {
            ready!(sleep.as_mut().poll(context));
            self.asleep = false;
        }
        Poll::Ready(self.waiting.take().map(Ok))
    }

    fn fall_asleep(&mut self) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(self.due),
            None => self.sleep = Some(Box::pin(sleep_until(self.due))),
        }
        self.asleep = true;
    }

    fn finish(&mut self) -> Poll<Option<Result<Bytes, Ended>>> {
        match self.steps.end() {
            // Nobody is woken: silence lasts until the caller goes away.
            End::Hang => return Poll::Pending,
            End::Done => self.over = true,
            End::Cut => {
                self.over = true;
                return Poll::Ready(Some(Err(Ended)));
            }
        }
        Poll::Ready(None)
    }
}

// === impl Ended ===

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the simulator cut the answer short")
    }
}

impl std::error::Error for Ended {}
