//! Words for configuration that every section shares.

mod secret;
pub mod size;

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use secret::Secret;
pub use size::Size;

/// A fault a section found in itself: where, and what is wrong and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path from the top of the file, as in `models[0].endpoint`.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Collects the faults of a section and its parts.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

/// A time span in milliseconds, as in every `…_ms` key; at most 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// Bound: no span of a config makes sense beyond it, and none can overflow a clock below it.
const MILLIS_MAX: u64 = 30 * 24 * 3600 * 1000;

// === impl Findings ===

impl Findings {
    /// Adds a fault.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { path: path.into(), message: message.into() });
    }

    /// Adds a fault unless `holds`.
    pub fn require(&mut self, holds: bool, path: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.add(path, message);
        }
    }
}

// === impl Millis ===

impl JsonSchema for Millis {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Millis".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": MILLIS_MAX })
    }
}

impl Millis {
    /// The span itself.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}
