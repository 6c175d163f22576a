//! How much may be asked for per time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Findings;

/// How much may be asked for per time. What is not set is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests per second; a burst of one second's worth is let through at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<u32>,
    /// Requests per minute; a burst of one minute's worth is let through at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    /// Tokens per minute, read and generated together; a burst of one minute's worth is let through at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// Limits for calls to some models.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// Which: a name, or with `*` at its end all names that begin so. Each model has counters of its own.
    pub model: String,
    /// How much.
    #[serde(default)]
    pub limits: Limits,
}

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// These where they say something, else `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            rps: self.rps.or(others.rps),
            rpm: self.rpm.or(others.rpm),
            tpm: self.tpm.or(others.tpm),
            concurrency: self.concurrency.or(others.concurrency),
        }
    }

    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let zero = [
            ("rps", self.rps == Some(0)),
            ("rpm", self.rpm == Some(0)),
            ("tpm", self.tpm == Some(0)),
            ("concurrency", self.concurrency == Some(0)),
        ];
        for (name, zero) in zero {
            let message = "must be at least 1: leave it out for no limit, or suspend the tenant";
            findings.require(!zero, format!("{path}.{name}"), message);
        }
    }
}
