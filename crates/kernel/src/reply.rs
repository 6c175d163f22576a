//! An answer on its way back.

use std::any::Any;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::Result;

/// An answer: its head, its body, and what must be held until the last byte has left.
pub struct Reply {
    /// Status and headers worth passing on.
    pub head: Head,
    /// Whole, or as it comes.
    pub body: Body,
    // Declared after `body`: fields drop in order, so a stream lets go of its slot before whoever waits
    // for that slot is told.
    held: Vec<Box<dyn Any + Send>>,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// HTTP status of the backend's answer.
    pub status: u16,
    /// Its content type.
    pub content_type: Bytes,
    /// Further headers on the provider's allow-list, lower-case.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece, as server-sent events.
    Stream(Box<dyn Deltas>),
    /// Piece by piece, whatever it is: nothing is put in between, and a break is a break of the connection.
    Flow(Box<dyn Deltas>),
}

/// One piece of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// In the caller's dialect, made of whole events except where a single event is too large to hold.
    pub bytes: Bytes,
    /// How many pieces of the answer are in it: events with words, each about a token.
    pub pieces: u32,
    /// Whether the answer is complete with it: what it consumed is in the journal, and nothing with words follows.
    pub last: bool,
}

/// A stream of deltas. Dropping it cancels the upstream call.
pub trait Deltas: Send {
    /// The next piece; `None` after a proper end; an error where the answer broke off. Nothing follows
    /// either of them.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delta>>>;
}

// === impl Reply ===

impl Reply {
    /// A reply with nothing held yet.
    pub fn new(head: Head, body: Body) -> Self {
        Self { head, body, held: Vec::new() }
    }

    /// Keeps `guard` alive for as long as the backend is at work: with a stream until its last byte has left or the
    /// client is gone; with a whole answer no longer, for how fast a client reads it is no business of the backend's.
    #[must_use]
    pub fn holding(mut self, guard: impl Send + 'static) -> Self {
        match self.body {
            Body::Whole(_) => drop(guard),
            Body::Stream(_) | Body::Flow(_) => self.held.push(Box::new(guard)),
        }
        self
    }

    /// Takes the reply apart: what is held must be kept beside the body and dropped after it.
    pub fn into_parts(self) -> (Head, Body, Vec<Box<dyn Any + Send>>) {
        (self.head, self.body, self.held)
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("head", &self.head).finish_non_exhaustive()
    }
}
