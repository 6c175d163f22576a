//! What an upstream has seen.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Plan, Script};

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection it came on: an index into `Upstream::connections`.
    pub connection: usize,
    /// As sent.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names as sent (case kept), in order, repeated ones repeated.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Without its transfer coding.
    pub body: Bytes,
    /// When the head was complete.
    pub head_at: Instant,
    /// When the body was complete.
    pub arrived: Instant,
    /// How it went.
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its script is being performed.
    Open,
    /// Its script is at a hang.
    Hanging,
    /// Its script was performed to the end.
    Finished(Instant),
    /// The peer closed before the script's end: a cancellation.
    Abandoned(Instant, Gone),
}

/// How the peer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// FIN.
    Closed,
    /// RST, or any other error of the socket.
    Reset,
}

/// One connection the peer opened.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The peer's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub opened: Instant,
    /// When and how the peer closed it; none while open, or when the upstream closed it itself.
    pub closed: Option<(Instant, Gone)>,
    /// How many whole requests came on it, probes counted.
    pub requests: usize,
    /// Bytes of a request that was not complete when the peer closed.
    pub partial: usize,
}

/// The upstream's books, shared between its thread and the test.
pub(super) struct Record {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

pub(super) struct Inner {
    pub(super) requests: Vec<Request>,
    pub(super) probes: Vec<Request>,
    pub(super) connections: Vec<Connection>,
    pub(super) queue: VecDeque<Plan>,
    pub(super) always: Plan,
    pub(super) probe: Plan,
}

/// Where a request is in the books.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Request(usize),
    Probe(usize),
}

// === impl Request ===

impl Request {
    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first header of that name, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body in JSON")
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(always: Plan) -> Self {
        let inner = Inner {
            requests: Vec::new(),
            probes: Vec::new(),
            connections: Vec::new(),
            queue: VecDeque::new(),
            always,
            probe: Script::json(200, r#"{"object":"list","data":[],"status":"ok"}"#).into(),
        };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(0) }
    }

    pub(super) fn read(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.read());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn opened(&self, peer: SocketAddr) -> usize {
        let connection = Connection { peer, opened: Instant::now(), closed: None, requests: 0, partial: 0 };
        self.write(|inner| {
            inner.connections.push(connection);
            inner.connections.len() - 1
        })
    }

    /// The peer left between two requests, or in the middle of sending one.
    pub(super) fn closed(&self, connection: usize, gone: Gone, partial: usize) {
        self.write(|inner| inner.closed(connection, gone, partial, Instant::now()));
    }

    /// The peer left before its request's script had ended.
    pub(super) fn abandoned(&self, entry: Entry, connection: usize, gone: Gone, partial: usize) {
        // Invariant: one step and one moment, so that who sees the one sees the other.
        self.write(|inner| {
            let now = Instant::now();
            inner.closed(connection, gone, partial, now);
            inner.outcome(entry, Outcome::Abandoned(now, gone));
        });
    }

    /// Books a request and says what to do with it.
    pub(super) fn arrived(&self, request: Request) -> (Entry, Script) {
        let (entry, plan) = self.write(|inner| {
            inner.connections[request.connection].requests += 1;
            if request.method == "GET" {
                inner.probes.push(request.clone());
                return (Entry::Probe(inner.probes.len() - 1), inner.probe.clone());
            }
            inner.requests.push(request.clone());
            let plan = inner.queue.pop_front().unwrap_or_else(|| inner.always.clone());
            (Entry::Request(inner.requests.len() - 1), plan)
        });
        // Outside the lock: the plan is the test's code and may ask the upstream.
        (entry, plan.script(&request))
    }

    pub(super) fn outcome(&self, entry: Entry, outcome: Outcome) {
        self.write(|inner| inner.outcome(entry, outcome));
    }

    /// All connections were cut from this side: nothing is in flight any more.
    pub(super) fn ended_by_us(&self) {
        self.write(|inner| {
            for request in inner.requests.iter_mut().chain(&mut inner.probes) {
                if matches!(request.outcome, Outcome::Open | Outcome::Hanging) {
                    request.outcome = Outcome::Finished(Instant::now());
                }
            }
        });
    }
}

// === impl Inner ===

impl Inner {
    fn closed(&mut self, connection: usize, gone: Gone, partial: usize, at: Instant) {
        self.connections[connection].closed = Some((at, gone));
        self.connections[connection].partial = partial;
    }

    fn outcome(&mut self, entry: Entry, outcome: Outcome) {
        match entry {
            Entry::Request(at) => self.requests[at].outcome = outcome,
            Entry::Probe(at) => self.probes[at].outcome = outcome,
        }
    }
}
