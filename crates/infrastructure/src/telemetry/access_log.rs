//! The access log: one JSON line per request.
//!
//! Lines are formatted in rounds and handed to a thread of their own, because standard output may be a pipe nobody
//! reads: then lines are counted and dropped, and nothing else waits.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::{Outcome, Receipt};
use serde::Serialize;

/// Bound: batches waiting to be written.
const BATCHES: usize = 64;

/// Writes receipts as lines.
pub struct AccessLog {
    batches: Mutex<Option<SyncSender<Vec<u8>>>>,
    dropped: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One line. Absent facts are left out.
#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    id: &'a str,
    method: &'a str,
    path: &'a str,
    status: u16,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    stream: bool,
    attempts: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<Failure<'a>>,
    queue_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    took_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Tokens>,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    cause: &'a str,
}

#[derive(Serialize)]
struct Tokens {
    input: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

impl AccessLog {
    /// A log that writes to `output`.
    ///
    /// # Errors
    /// When its thread cannot be made.
    pub fn to(mut output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (batches, arriving) = sync_channel::<Vec<u8>>(BATCHES);
        let write = move || {
            for batch in arriving {
                // A reader that has gone away will not come back; the lines have nowhere to go.
                if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("sluice-access-log".into()).spawn(write)?;
        Ok(Self { batches: Mutex::new(Some(batches)), dropped: AtomicU64::new(0), thread: Mutex::new(Some(thread)) })
    }

    /// Formats receipts and hands them on; drops and counts them when the writer is behind.
    pub(super) fn write(&self, receipts: &[Receipt]) {
        let mut batch = Vec::with_capacity(receipts.len() * 512);
        for receipt in receipts {
            if serde_json::to_writer(&mut batch, &line(receipt)).is_ok() {
                batch.push(b'\n');
            }
        }
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = batches.as_ref().map(|batches| batches.try_send(batch));
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
            self.dropped.fetch_add(receipts.len() as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    /// Writes what is left, unless the writer is stuck: then the process must still be able to end.
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        drop(self.batches.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let until = std::time::Instant::now() + PATIENCE;
        while !thread.is_finished() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn line(receipt: &Receipt) -> Line<'_> {
    let journal = &receipt.journal;
    let (outcome, cause) = match &receipt.outcome {
        Outcome::Answered => ("answered", None),
        Outcome::Failed(cause) => ("failed", Some(&**cause)),
        Outcome::Cancelled => ("cancelled", None),
    };
    Line {
        ts: jiff::Timestamp::try_from(receipt.at).map_or_else(|_| String::new(), |at| format!("{at:.3}")),
        id: receipt.id.as_str(),
        method: &receipt.method,
        path: &receipt.path,
        status: receipt.status,
        outcome,
        cause,
        tenant: receipt.caller.as_ref().map(|caller| caller.tenant.as_str()),
        key: receipt.caller.as_ref().and_then(|caller| caller.key.as_ref()).map(|key| key.as_str()),
        operation: receipt.operation.map(|operation| operation.as_str()),
        model: receipt.model.as_ref().map(|model| model.as_str()),
        version: journal.placed.as_ref().map(|(deployment, _)| deployment.version.as_str()),
        instance: journal.placed.as_ref().map(|(_, instance)| &**instance),
        stream: receipt.stream,
        attempts: journal.attempts,
        failures: journal
            .failures
            .iter()
            .map(|(instance, cause)| Failure { instance: instance.as_deref(), cause })
            .collect(),
        queue_ms: millis(journal.queued),
        ttft_ms: journal.first_byte.map(|at| millis(at.since(receipt.started))),
        took_ms: millis(receipt.took),
        tokens: journal.usage.map(|usage| Tokens {
            input: usage.input.0,
            cached: usage.cached.0,
            output: usage.output.0,
            reasoning: usage.reasoning.0,
            estimated: usage.estimated,
        }),
        bytes_in: receipt.bytes.0,
        bytes_out: receipt.bytes.1,
    }
}

/// Milliseconds with three digits behind the point.
fn millis(span: Duration) -> f64 {
    (span.as_micros() as f64) / 1e3
}
