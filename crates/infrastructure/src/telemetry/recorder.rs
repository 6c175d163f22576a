//! The shelves where receipts wait, and the thread that empties them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::{Receipt, Sink, core};

use super::drain::Drain;
use super::{AccessLog, Metrics, OperatorLog};

/// Between two rounds. Long enough that a round is worth waking up for, short enough for a person watching a log.
const ROUND: Duration = Duration::from_millis(100);
/// Bound: receipts on one core's shelf, some seconds of full load. Beyond it they are counted and dropped.
const SHELF_MAX: usize = 65_536;

/// Takes receipts from the data path; feeds metrics and access log.
pub struct Recorder {
    shelves: Vec<Mutex<Vec<Receipt>>>,
    dropped: AtomicU64,
    metrics: Arc<Metrics>,
    log: Option<AccessLog>,
    /// The operator's log, to tell what it has lost.
    operator: Drain,
    /// One round at a time: the thread's, or that of somebody who asked for metrics.
    round: Mutex<()>,
}

/// The thread behind a recorder. Dropping it records what is left and ends it.
pub struct Rounds {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// A recorder for so many data-plane threads.
    pub fn new(cores: usize, metrics: Arc<Metrics>, log: Option<AccessLog>, operator: &OperatorLog) -> Arc<Self> {
        let shelves = (0..cores.max(1)).map(|_| Mutex::default()).collect();
        let operator = operator.drain().clone();
        Arc::new(Self { shelves, dropped: AtomicU64::new(0), metrics, log, operator, round: Mutex::default() })
    }

    /// Starts the rounds.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Rounds> {
        let (stop, stopped) = sync_channel(1);
        let recorder = Arc::clone(self);
        let work = move || {
            while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
                recorder.record();
            }
            recorder.record();
        };
        let thread = std::thread::Builder::new().name("sluice-recorder".into()).spawn(work)?;
        Ok(Rounds { stop: Some(stop), thread: Some(thread) })
    }

    /// Empties the shelves.
    pub fn record(&self) {
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        for shelf in &self.shelves {
            let receipts = std::mem::take(&mut *shelf.lock().unwrap_or_else(PoisonError::into_inner));
            if receipts.is_empty() {
                continue;
            }
            self.metrics.count(&receipts);
            if let Some(log) = &self.log {
                log.write(&receipts);
            }
        }
    }

    /// All metrics as text, up to this moment.
    pub fn show(&self) -> String {
        self.record();
        let lines = [("access", self.log.as_ref().map_or(0, AccessLog::dropped)), ("operator", self.operator.lost())];
        self.metrics.lost(self.dropped.load(Ordering::Relaxed), lines);
        self.metrics.show()
    }
}

impl Sink for Recorder {
    fn close(&self, receipt: Receipt) {
        let Some(shelf) = self.shelves.get(core::current() % self.shelves.len()) else { return };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < SHELF_MAX {
            shelf.push(receipt);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
