//! The one record a finished call leaves behind.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{Caller, Journal, ModelName, Operation, Priority, RequestId};

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The client got the whole answer.
    Answered,
    /// The client got an error, or its stream ended with one; in the operator's words.
    Failed(Arc<str>),
    /// The client went away first.
    Cancelled,
}

/// Everything worth knowing about one finished request. Holds no prompt and no answer.
#[derive(Debug)]
pub struct Receipt {
    /// Which request.
    pub id: RequestId,
    /// When it came, by the wall clock.
    pub at: SystemTime,
    /// How long it took, first byte in to last byte out.
    pub took: Duration,
    /// HTTP method.
    pub method: Arc<str>,
    /// Path, without query.
    pub path: Arc<str>,
    /// HTTP status; 499 when the client went away.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Who called; `None` when nobody could be told.
    pub caller: Option<Caller>,
    /// What was asked for, as far as it could be read.
    pub model: Option<ModelName>,
    /// Which kind of work; `None` for lists and unknown paths.
    pub operation: Option<Operation>,
    /// How urgent it was; `None` where it did not get that far.
    pub priority: Option<Priority>,
    /// Whether the answer was to be a stream.
    pub stream: bool,
    /// When the request came, on the monotonic clock, to place the journal's moments.
    pub started: crate::Moment,
    /// What happened on the way.
    pub journal: Journal,
    /// Whether it is to be written into the access log.
    pub logged: bool,
    /// Bytes of body received and sent.
    pub bytes: (u64, u64),
}

/// Where receipts go: access log, metrics, later the ledger. Must not block; what cannot be taken is counted.
pub trait Sink: Send + Sync + 'static {
    /// Takes one receipt.
    fn close(&self, receipt: Receipt);
}
