//! Idle connections to one backend, kept per data-plane thread.
//!
//! A connection lives on the thread that opened it, so each thread has its own shelf; the lock on a shelf is
//! for the metrics reader and the rare foreign thread, not for contention. Newest first: what was used last
//! is least likely to have been closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::{Moment, core};

use crate::connection::{Answered, Connection, Failure, Outbound};
use crate::endpoint::Endpoint;
use crate::settings::PoolSettings;

/// Bound: threads beyond this share shelves.
const SHELVES: usize = 64;

/// A used connection that breaks this soon after a request was written had been closed by the backend before it saw
/// it. Bound: above a round trip within a data centre, below the time any model needs for an answer.
const STALE_WITHIN: Duration = Duration::from_millis(50);

/// The connections to one backend.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoint: Endpoint,
    shelves: Vec<Mutex<Vec<Connection>>>,
    opened: AtomicU64,
    reused: AtomicU64,
}

/// How many idle connections are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    idle_max: usize,
    idle_timeout: Duration,
}

/// Figures for the metrics.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Census {
    pub(crate) idle: usize,
    pub(crate) opened: u64,
    pub(crate) reused: u64,
}

impl From<&PoolSettings> for Limits {
    fn from(settings: &PoolSettings) -> Self {
        Self { idle_max: settings.idle_max as usize, idle_timeout: settings.idle_timeout_ms.duration() }
    }
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        let shelves = std::thread::available_parallelism().map_or(1, usize::from).min(SHELVES);
        let shelves = (0..shelves).map(|_| Mutex::default()).collect();
        Self { endpoint, shelves, opened: AtomicU64::new(0), reused: AtomicU64::new(0) }
    }

    /// Sends a request over an idle connection, or a new one, and waits for the head of the answer.
    ///
    /// An idle connection may have been closed by the backend just as we wrote to it. That costs the client
    /// nothing: the request goes out once more on a new connection, where it is `repeatable`. `request` is therefore
    /// a maker.
    pub(crate) async fn send(
        &self,
        limits: Limits,
        connect_within: Duration,
        now: Moment,
        repeatable: bool,
        request: impl Fn() -> http::Request<Outbound>,
    ) -> Result<Answered, Failure> {
        while let Some(mut connection) = self.take(limits, now) {
            if !connection.usable() {
                continue;
            }
            self.reused.fetch_add(1, Ordering::Relaxed);
            match connection.send(request()).await {
                Err(Failure::Broken(_)) if repeatable && Moment::now().since(now) < STALE_WITHIN => break,
                result => return result,
            }
        }
        // Boxed: opening is rare, and its state is larger than that of all the rest.
        let connection = Box::pin(Connection::open(&self.endpoint, connect_within)).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        connection.send(request()).await
    }

    /// Opens connections ahead on the running thread, until it has so many idle.
    pub(crate) async fn warm(&self, limits: Limits, count: u32, connect_within: Duration) {
        let idle = self.shelf().map_or(0, |shelf| shelf.lock().unwrap_or_else(PoisonError::into_inner).len());
        for _ in idle..count as usize {
            let Ok(connection) = Connection::open(&self.endpoint, connect_within).await else { return };
            self.opened.fetch_add(1, Ordering::Relaxed);
            self.put(connection, limits, Moment::now());
        }
    }

    /// Lets go of connections that have been idle for too long or are closed.
    pub(crate) fn sweep(&self, limits: Limits, now: Moment) {
        for shelf in &self.shelves {
            let keep = |connection: &mut Connection| {
                now.since(connection.idle_since) < limits.idle_timeout && connection.usable()
            };
            shelf.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(keep);
        }
    }

    pub(crate) fn census(&self) -> Census {
        let count = |shelf: &Mutex<Vec<Connection>>| shelf.lock().unwrap_or_else(PoisonError::into_inner).len();
        Census {
            idle: self.shelves.iter().map(count).sum(),
            opened: self.opened.load(Ordering::Relaxed),
            reused: self.reused.load(Ordering::Relaxed),
        }
    }

    fn shelf(&self) -> Option<&Mutex<Vec<Connection>>> {
        self.shelves.get(core::current() % self.shelves.len().max(1))
    }

    fn take(&self, limits: Limits, now: Moment) -> Option<Connection> {
        let mut shelf = self.shelf()?.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest is on top: whatever is below one that is too old is older still.
        let connection = shelf.pop()?;
        if now.since(connection.idle_since) < limits.idle_timeout {
            return Some(connection);
        }
        shelf.clear();
        None
    }

    /// Keeps a connection whose last answer has been read to its end.
    pub(crate) fn put(&self, mut connection: Connection, limits: Limits, now: Moment) {
        connection.idle_since = now;
        let Some(shelf) = self.shelf() else { return };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < limits.idle_max {
            shelf.push(connection);
        }
    }
}
