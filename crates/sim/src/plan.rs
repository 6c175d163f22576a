//! What will be answered: a head, then pieces of body with the waits between them, then an end.
//!
//! A plan is data. It knows no clock: the waits are durations, and whoever plays it ([`crate::Playback`], or a
//! test that just counts) decides what a duration means.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

/// One answer.
#[derive(Debug)]
pub struct Plan {
    /// What is sent first. None: the call is never answered, not even with a head.
    pub head: Option<Head>,
    /// The body.
    pub steps: Steps,
}

/// The beginning of an answer.
#[derive(Debug)]
pub struct Head {
    /// Wait between the request's last byte and this head.
    pub after: Duration,
    /// The status.
    pub status: StatusCode,
    /// The headers, without those that frame the body.
    pub headers: HeaderMap,
    /// Length of the whole body in bytes, as if nothing went wrong; none for a stream.
    pub length: Option<u64>,
}

/// One piece of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Wait since the piece before it, or since the head.
    pub after: Duration,
    /// The piece. In a stream: one token of each choice, as whole server-sent events.
    pub bytes: Bytes,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Whole.
    Done,
    /// The connection is closed although more was due.
    Cut,
    /// Nothing more comes, and the connection stays open.
    Hang,
}

/// The pieces of a body, made one at a time. Ask [`Steps::end`] once they have run out.
pub struct Steps {
    source: Box<dyn Iterator<Item = Step> + Send + Sync>,
    count: u64,
    /// How many whole steps remain until it breaks, and how.
    breaks: Option<(u64, End)>,
    end: Option<End>,
    _running: Option<Running>,
}

/// Counts a call as in flight for as long as its plan or its playback lives.
#[derive(Debug)]
pub(crate) struct Running(Arc<AtomicU64>);

// === impl Plan ===

impl Plan {
    /// A JSON body, answered at once with status 200.
    pub(crate) fn json(body: &impl Serialize) -> Self {
        // Serialisation of our own types to memory cannot fail; an empty body would be seen by every test.
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        Self::whole("application/json", bytes.into())
    }

    /// A whole body, answered at once with status 200.
    pub(crate) fn whole(content_type: &'static str, bytes: Bytes) -> Self {
        let head = Head { length: Some(bytes.len() as u64), ..Head::of(content_type) };
        let step = Step { after: Duration::ZERO, bytes };
        Self { head: Some(head), steps: Steps::of(1, std::iter::once(step)) }
    }

    /// A stream of server-sent events whose head is answered at once.
    pub(crate) fn stream(count: u64, source: impl Iterator<Item = Step> + Send + Sync + 'static) -> Self {
        let mut head = Head::of("text/event-stream; charset=utf-8");
        head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Self { head: Some(head), steps: Steps::of(count, source) }
    }

    /// The same answer, its head later.
    pub(crate) fn delayed(mut self, after: Duration) -> Self {
        if let Some(head) = &mut self.head {
            head.after = after;
        }
        self
    }

    /// The same answer, counted as in flight while it lives.
    pub(crate) fn holding(mut self, running: Running) -> Self {
        self.steps._running = Some(running);
        self
    }

    /// Whether the body is a stream of events rather than one piece.
    pub fn is_stream(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.length.is_none())
    }
}

// === impl Head ===

impl Head {
    fn of(content_type: &'static str) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { after: Duration::ZERO, status: StatusCode::OK, headers, length: None }
    }
}

// === impl Steps ===

impl Steps {
    fn of(count: u64, source: impl Iterator<Item = Step> + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source), count, breaks: None, end: None, _running: None }
    }

    /// How the body ended. [`End::Done`] until the steps have run out.
    pub fn end(&self) -> End {
        self.end.unwrap_or(End::Done)
    }

    /// How many steps the whole body has, as if nothing went wrong.
    pub fn planned(&self) -> u64 {
        self.count
    }

    /// Ends the body inside the step that follows this many whole ones.
    pub(crate) fn break_after(&mut self, whole: u64, end: End) {
        self.breaks = Some((whole, end));
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.end.is_some() {
            return None;
        }
        let Some(mut step) = self.source.next() else {
            self.end = Some(End::Done);
            return None;
        };
        match &mut self.breaks {
            Some((0, end)) => {
                self.end = Some(*end);
                step.bytes.truncate(step.bytes.len() / 2);
            }
            Some((whole, _)) => *whole -= 1,
            None => {}
        }
        Some(step)
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Steps");
        debug.field("count", &self.count).field("breaks", &self.breaks).field("end", &self.end).finish_non_exhaustive()
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
