//! `models[].adaptive`: finding out how many calls an instance can work on at once.

use kernel::settings::Findings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Finding out how many calls each instance can work on at once, where `max_concurrency` is not known. The limit grows
/// while first tokens come as quickly as ever, and shrinks when they are late or calls fail; more calls wait in the queue,
/// where priorities count. Every few minutes under full load it is lowered by a quarter for a moment, to see how quick the
/// instance is with less to do.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveSettings {
    /// Calls an instance may have at the least.
    pub min: u32,
    /// Calls it may have before anything is known of it.
    pub initial: u32,
    /// Calls it may have at the most.
    pub max: u32,
    /// How much longer first tokens may take than with less to do, before the limit shrinks.
    pub tolerance_percent: u32,
}

/// Bound: more calls at once than any instance answers; keeps sums of slots far from overflowing.
const MAX_MAX: u32 = 1_000_000;

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self { min: 1, initial: 16, max: 512, tolerance_percent: 30 }
    }
}

impl AdaptiveSettings {
    /// What the schema cannot say.
    pub(super) fn validate(&self, path: &str, findings: &mut Findings) {
        let mut require = |holds, key: &str, message: &str| findings.require(holds, format!("{path}.{key}"), message);
        require(self.min > 0, "min", "must be at least 1");
        require(self.min <= self.initial, "initial", "must be at least `min`");
        require(self.initial <= self.max, "max", "must be at least `initial`");
        require(self.max <= MAX_MAX, "max", "must be at most 1000000");
        // Below, chance alone shrinks the limit; above, a queue four times as long as the work goes unnoticed.
        let sound = (10..=300).contains(&self.tolerance_percent);
        require(sound, "tolerance_percent", "must be between 10 and 300");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{InstanceSettings, ModelSettings};
    use super::*;

    #[track_caller]
    fn check(yaml_as_json: &str, expected: &[&str]) {
        let model: ModelSettings = serde_json::from_str(yaml_as_json).unwrap();
        let mut findings = Findings::default();
        model.validate("m", &mut findings);
        let paths: Vec<&str> = findings.0.iter().map(|finding| &*finding.path).collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn limits_must_be_in_order() {
        let model = |adaptive: &str| format!(r#"{{"model_name":"a","endpoint":"http://h","adaptive":{adaptive}}}"#);
        check(&model("{}"), &[]);
        check(&model(r#"{"min":0}"#), &["m.adaptive.min"]);
        check(&model(r#"{"min":17}"#), &["m.adaptive.initial"]);
        check(&model(r#"{"initial":600}"#), &["m.adaptive.max"]);
        check(&model(r#"{"max":1000001}"#), &["m.adaptive.max"]);
        check(&model(r#"{"tolerance_percent":9}"#), &["m.adaptive.tolerance_percent"]);
    }

    #[test]
    fn a_limit_that_is_given_is_not_found_out_as_well() {
        let short = r#"{"model_name":"a","endpoint":"http://h","adaptive":{},"max_concurrency":8}"#;
        check(short, &["m.max_concurrency"]);
        let long = r#"{"model_name":"a","adaptive":{},"versions":[{"version":"v","instances":[
            {"endpoint":"http://h"}, {"endpoint":"http://i","max_concurrency":8}]}]}"#;
        check(long, &["m.versions[0].instances[1].max_concurrency"]);
        assert!(serde_json::from_str::<InstanceSettings>(r#"{"adaptive":{}}"#).is_err(), "it is the model's");
    }
}
