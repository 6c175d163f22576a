//! How the simulated server behaves when a request does not say otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most tokens one answer may have, all choices together, and the most numbers one embedding answer may have.
// Bound: a whole answer is held in memory; this many words or numbers are about 12 MB.
pub(crate) const MAX_OUTPUT: u64 = 1 << 20;
/// The longest single wait the simulator can be told to make, in milliseconds.
// Bound: an hour outlasts every time-out worth testing, and sums of such waits stay far from overflow.
pub(crate) const MAX_WAIT_MS: u64 = 3_600_000;
/// The longest embedding vector.
pub(crate) const MAX_DIMENSIONS: u64 = 8192;

/// Behaviour of the simulated model server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Names of the models it answers for; an empty list answers for any name.
    pub models: Vec<String>,
    /// Time to the first token, in milliseconds.
    pub ttft_ms: u64,
    /// Speed after the first token, in tokens per second; 0 means no wait between tokens.
    pub tokens_per_second: f64,
    /// How far each wait strays from its mean, as a fraction of it, 0 to 1.
    pub jitter: f64,
    /// Length of an answer in tokens, unless the request's max_tokens or max_completion_tokens is smaller.
    pub output_tokens: u64,
    /// Length of an embedding vector, unless the request says dimensions.
    pub dimensions: u64,
    /// Fraction of model calls answered 500 or 503, 0 to 1.
    pub failure_rate: f64,
    /// Fraction of model calls answered 429 with retry-after, 0 to 1.
    pub rate_limit_rate: f64,
    /// Fraction of model calls accepted and never answered, 0 to 1.
    pub hang_rate: f64,
    /// Fraction of streams whose connection is cut part-way, 0 to 1.
    pub cut_rate: f64,
    /// Seed of text, vectors, timing and faults; the same seed and order of calls repeats a run.
    pub seed: u64,
}

/// One setting that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it, as a sentence's end: "must be …".
    pub message: String,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            models: vec!["sim".to_owned()],
            ttft_ms: 50,
            tokens_per_second: 100.0,
            jitter: 0.1,
            output_tokens: 32,
            dimensions: 64,
            failure_rate: 0.0,
            rate_limit_rate: 0.0,
            hang_rate: 0.0,
            cut_rate: 0.0,
            seed: 0,
        }
    }
}

impl Settings {
    /// All that is wrong with these settings; empty when they can be used.
    ///
    /// An engine made from faulty settings still works: it clamps. Callers that have a user to tell should ask first.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, field: &'static str, message: String| {
            if !holds {
                faults.push(Fault { field, message });
            }
        };
        require(self.ttft_ms <= MAX_WAIT_MS, "ttft_ms", format!("must be at most {MAX_WAIT_MS}"));
        require(is_speed(self.tokens_per_second), "tokens_per_second", format!("must be {SPEED_RANGE}"));
        require((1..=MAX_OUTPUT).contains(&self.output_tokens), "output_tokens", format!("must be 1 to {MAX_OUTPUT}"));
        require(
            (1..=MAX_DIMENSIONS).contains(&self.dimensions),
            "dimensions",
            format!("must be 1 to {MAX_DIMENSIONS}"),
        );
        for (field, value) in [
            ("jitter", self.jitter),
            ("failure_rate", self.failure_rate),
            ("rate_limit_rate", self.rate_limit_rate),
            ("hang_rate", self.hang_rate),
            ("cut_rate", self.cut_rate),
        ] {
            require((0.0..=1.0).contains(&value), field, "must be a fraction from 0 to 1".to_owned());
        }
        let failing = self.failure_rate + self.rate_limit_rate + self.hang_rate;
        // The small slack forgives binary rounding of sums such as 0.7 + 0.2 + 0.1.
        let message = "must be at most 1 together with rate_limit_rate and hang_rate".to_owned();
        require(failing.is_nan() || failing <= 1.0 + 1e-9, "failure_rate", message);
        faults
    }

    /// Whether a call may name this model.
    pub(crate) fn knows(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|name| name == model)
    }
}

/// What [`is_speed`] accepts, in words.
pub(crate) const SPEED_RANGE: &str = "0, or from 0.001 to 1000000";

/// Whether this many tokens per second can be played.
pub(crate) fn is_speed(tokens_per_second: f64) -> bool {
    tokens_per_second == 0.0 || (0.001..=1_000_000.0).contains(&tokens_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default_and_has_no_fault() {
        let settings: Settings = serde_json::from_str("{}").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.faults(), []);
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        let error = serde_json::from_str::<Settings>(r#"{"ttft": 5}"#).unwrap_err().to_string();
        assert!(error.contains("ttft_ms"), "{error}");
    }

    #[test]
    fn every_setting_out_of_range_is_named() {
        let bad = Settings {
            ttft_ms: u64::MAX,
            tokens_per_second: f64::NAN,
            jitter: 1.5,
            output_tokens: 0,
            dimensions: 0,
            failure_rate: -0.1,
            rate_limit_rate: f64::INFINITY,
            hang_rate: 2.0,
            cut_rate: f64::NAN,
            ..Settings::default()
        };
        let fields: std::collections::BTreeSet<_> = bad.faults().into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields.len(), 9, "{fields:?}");
        let too_much = Settings { failure_rate: 0.6, hang_rate: 0.5, ..Settings::default() };
        assert_eq!(too_much.faults().len(), 1);
        let all_of_it = Settings { failure_rate: 0.7, rate_limit_rate: 0.2, hang_rate: 0.1, ..Settings::default() };
        assert_eq!(all_of_it.faults(), []);
    }

    #[test]
    fn the_schema_describes_every_setting() {
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), 11);
        assert!(properties.values().all(|property| property["description"].is_string()));
    }
}
