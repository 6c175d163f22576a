//! `models[].health`: when an instance counts as down, and as up again.

use kernel::settings::{Findings, Millis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When an instance counts as down, and as up again.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSettings {
    /// Path asked by active checks, below the endpoint without its version; any 2xx is healthy. Without it there are no
    /// active checks.
    pub path: Option<String>,
    /// Between two active checks.
    pub interval_ms: Millis,
    /// One active check.
    pub timeout_ms: Millis,
    /// Active checks that must fail in a row before the instance is down. One success brings it back.
    pub fall: u32,
    /// Failed calls after which an instance is passed over; 0: never. As in nginx, a success does not lower
    /// the count until `fail_timeout_ms` has passed since the last failure.
    pub max_fails: u32,
    /// How long it is passed over; then one call probes it.
    pub fail_timeout_ms: Millis,
    /// After coming back, slots and weight grow from a tenth to the whole within this time; 0: at once.
    pub slow_start_ms: Millis,
    /// When fewer than this share of instances are usable, health is ignored: trying beats refusing.
    /// 0: never. The default only acts where pools of up to ten have nobody left.
    pub panic_percent: u32,
    /// The circuit breaker.
    pub breaker: BreakerSettings,
}

/// The circuit breaker: stops calls to an instance that answers, but badly.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// The share of failures is taken over this time.
    pub window_ms: Millis,
    /// Fewer calls than this within the window never open it.
    pub min_calls: u32,
    /// It opens at this share of failures; 0: never.
    pub failure_percent: u32,
    /// How long it stays open before one call may probe; doubles with each failed probe, up to 16 times.
    pub open_ms: Millis,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            path: None,
            interval_ms: Millis(2_000),
            timeout_ms: Millis(2_000),
            fall: 2,
            max_fails: 3,
            fail_timeout_ms: Millis(10_000),
            slow_start_ms: Millis(0),
            panic_percent: 10,
            breaker: BreakerSettings::default(),
        }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { window_ms: Millis(10_000), min_calls: 20, failure_percent: 50, open_ms: Millis(5_000) }
    }
}

impl HealthSettings {
    /// What the schema cannot say.
    pub(super) fn validate(&self, path: &str, findings: &mut Findings) {
        let mut require = |holds, key: &str, message: &str| findings.require(holds, format!("{path}.{key}"), message);
        require(self.interval_ms.0 >= 100, "interval_ms", "must be at least 100");
        require(self.panic_percent <= 100, "panic_percent", "must be at most 100");
        require(self.breaker.failure_percent <= 100, "breaker.failure_percent", "must be at most 100");
        require(self.breaker.window_ms.0 >= 10, "breaker.window_ms", "must be at least 10");
        let starts = self.path.as_ref().is_none_or(|path| path.starts_with('/'));
        require(starts, "path", "must start with `/`");
    }
}
