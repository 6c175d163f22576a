//! Words for configuration that every section shares.

mod secret;
pub mod size;

use std::time::Duration;

use schemars::JsonSchema;
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

/// A time span in milliseconds, as in every `…_ms` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Millis(pub u64);

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

impl Millis {
    /// The span itself.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}
