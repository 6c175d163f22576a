//! The `scheduling:` section.

use kernel::Priority;
use kernel::settings::{Findings, Millis, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::quota::{Allowance, CohortSettings, QuotaSettings};

/// Who runs next, and who waits how long.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Calls that may wait for a free slot, per model version. When it is full, a newcomer takes the place of the newest
    /// call of whoever has most waiting in the lowest class, if that is less urgent or has more waiting than the
    /// newcomer's tenant; else it is refused with 503.
    pub queue_max: u32,
    /// What the bodies of the calls waiting for one model version may hold together; beyond it as with `queue_max`.
    pub queue_bytes_max: Size,
    /// Calls that one tenant may have waiting per model version; one more is refused with 429. Default: no limit but
    /// `queue_max`.
    pub tenant_queue_max: Option<u32>,
    /// What the bodies of one tenant's waiting calls may hold, per model version; beyond it 429. Default: no limit but
    /// `queue_bytes_max`.
    pub tenant_queue_bytes_max: Option<Size>,
    /// What tenants of one class, and the keys of one tenant, get equal shares of (by their weights): tokens, weighed as
    /// `token_weights` say; requests; or nothing, and calls of a class are served in the order they came.
    pub fairness: Fairness,
    /// What kinds of tokens count, where `fairness` is `token`.
    pub token_weights: TokenWeights,
    /// When the oldest call of a lower class has waited this long, its class gets the next turn, and every eighth while
    /// that lasts.
    pub aging_ms: Millis,
    /// Percent of the turns that go to a class whenever it has somebody waiting, whatever waits above it.
    pub reserved_percent: Reserved,
    /// Whether a high call that finds every slot busy may take that of a low one of which nothing has been sent yet; and
    /// one within its quota that of one that borrows. The low one goes back to where it stood, and its client notices
    /// nothing but time.
    pub preemption: bool,
    /// How often one call may be put back by more urgent ones.
    pub preemptions_max: u32,
    /// Refuse a call at once, with 503, when it is sure to be too late: when at the pace of the last calls those ahead
    /// of it take more than twice the time it has left.
    pub shedding: bool,
    /// Threads for work on the processor that would stall the data plane (reading bodies of 128 KiB and more); default:
    /// half as many as there are cores. Read at the start only.
    pub workers: Option<u16>,
    /// Groups of quotas that lend each other what they do not use.
    pub cohorts: Vec<CohortSettings>,
    /// How much tenants may have running at once.
    pub quotas: Vec<QuotaSettings>,
}

/// What is shared fairly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fairness {
    /// Tokens.
    Token,
    /// Requests.
    Request,
    /// Nothing: first come, first served.
    None,
}

/// How much a token counts, by kind; only their proportions matter.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenWeights {
    /// Read from the prompt.
    pub input: f64,
    /// Read from the prompt, but found in the backend's prefix cache.
    pub cached: f64,
    /// Generated.
    pub output: f64,
}

/// Percent of the turns, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reserved {
    /// For calls of the class `high`.
    pub high: u32,
    /// For calls of the class `normal`.
    pub normal: u32,
    /// For calls of the class `low`.
    pub low: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_max: 1024,
            queue_bytes_max: Size::of_mib(256),
            tenant_queue_max: None,
            tenant_queue_bytes_max: None,
            fairness: Fairness::Token,
            token_weights: TokenWeights::default(),
            aging_ms: Millis(10_000),
            reserved_percent: Reserved::default(),
            preemption: true,
            preemptions_max: 2,
            shedding: true,
            workers: None,
            cohorts: Vec::new(),
            quotas: Vec::new(),
        }
    }
}

impl Default for TokenWeights {
    /// Output at twice the input is what the paper on fair serving measured with (Sheng et al., OSDI 2024); a cached
    /// token saves nearly all of its work.
    fn default() -> Self {
        Self { input: 1.0, cached: 0.1, output: 2.0 }
    }
}

impl Reserved {
    /// By [`Priority::rank`].
    pub(crate) fn by_rank(self) -> [u32; 3] {
        Priority::ALL.map(|class| match class {
            Priority::High => self.high,
            Priority::Normal => self.normal,
            Priority::Low => self.low,
        })
    }
}

impl Settings {
    /// What the schema cannot say; `tenants` are those that the config knows.
    pub fn validate(&self, path: &str, tenants: &[&str], findings: &mut Findings) {
        let mut require = |holds, key: &str, message: &str| findings.require(holds, format!("{path}.{key}"), message);
        require(self.queue_max <= 1_000_000, "queue_max", "must be at most 1000000");
        require(self.tenant_queue_max != Some(0), "tenant_queue_max", "must be at least 1");
        require(
            self.workers.is_none_or(|workers| (1..=1024).contains(&workers)),
            "workers",
            "must be between 1 and 1024",
        );
        require(self.aging_ms.0 >= 10, "aging_ms", "must be at least 10");
        require(self.preemptions_max <= 100, "preemptions_max", "must be at most 100");
        let reserved: u64 = self.reserved_percent.by_rank().into_iter().map(u64::from).sum();
        require(reserved <= 90, "reserved_percent", "must be 90 or less in all: the rest goes by priority");
        for (key, weight) in [
            ("token_weights.input", self.token_weights.input),
            ("token_weights.cached", self.token_weights.cached),
            ("token_weights.output", self.token_weights.output),
        ] {
            require((0.0..=1000.0).contains(&weight), key, "must be between 0 and 1000");
        }
        let sum = self.token_weights.input + self.token_weights.output;
        require(sum > 0.0, "token_weights", "must not be zero for both input and output");
        crate::quota::validate(&self.cohorts, &self.quotas, path, tenants, findings);
    }
}
