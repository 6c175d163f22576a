//! What operators see: metrics and the access log, both written from receipts.
//!
//! On the hot path a receipt is pushed onto its core's shelf and that is all: no system call, no formatting, nobody woken.
//! One thread empties the shelves ten times a second. The operator's log beside them is written line by line, but by
//! a thread of its own too: nobody who moves clients' bytes ever waits for an output.

mod access_log;
mod drain;
mod metrics;
mod operator_log;
mod recorder;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access_log::AccessLog;
pub use metrics::Metrics;
pub use operator_log::{OperatorLines, OperatorLog};
pub use recorder::Recorder;

/// The `telemetry:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How the operator's log (on standard error) is written.
    pub log: Format,
    /// One JSON line per request on standard output. Never holds prompts or answers.
    pub access_log: bool,
}

/// A way of writing logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl Default for Settings {
    fn default() -> Self {
        Self { log: Format::Json, access_log: true }
    }
}
