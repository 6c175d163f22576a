//! `models[].load`: asking the backends how busy they are.

use kernel::settings::{Findings, Millis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asking the backends how busy they are, in the Prometheus metrics of vLLM, SGLang, TensorRT-LLM, Triton with
/// TensorRT-LLM and llama.cpp. `balance: least_load` then sees calls that did not come through Sluice, and KV caches that
/// are nearly full. Without this section only Sluice's own calls are counted.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadSettings {
    /// Path of the metrics, below the endpoint without its version. TensorRT-LLM's server has them under
    /// `/prometheus/metrics`; SGLang wants `--enable-metrics` and llama.cpp `--metrics` to have them at all.
    pub path: String,
    /// Port of the metrics, where it is another than the endpoint's: Triton's is 8002. Credentials are not sent there.
    pub port: Option<u16>,
    /// Between two samples. One that is older than this counts less and less, and for nothing when it is four times as
    /// old.
    pub interval_ms: Millis,
    /// One sample.
    pub timeout_ms: Millis,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self { path: "/metrics".into(), port: None, interval_ms: Millis(1_000), timeout_ms: Millis(1_000) }
    }
}

impl LoadSettings {
    /// What the schema cannot say.
    pub(super) fn validate(&self, path: &str, findings: &mut Findings) {
        let mut require = |holds, key: &str, message: &str| findings.require(holds, format!("{path}.{key}"), message);
        require(self.path.starts_with('/'), "path", "must start with `/`");
        require(self.port != Some(0), "port", "must be at least 1");
        require(self.interval_ms.0 >= 100, "interval_ms", "must be at least 100");
        require(self.timeout_ms.0 > 0, "timeout_ms", "must be at least 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_samples_once_a_second_and_faults_are_named() {
        let empty: LoadSettings = serde_json::from_str("{}").unwrap();
        assert_eq!((&*empty.path, empty.interval_ms, empty.timeout_ms), ("/metrics", Millis(1_000), Millis(1_000)));
        let mut findings = Findings::default();
        empty.validate("load", &mut findings);
        assert_eq!(findings.0, []);
        let bad =
            LoadSettings { path: "metrics".into(), port: Some(0), interval_ms: Millis(99), timeout_ms: Millis(0) };
        bad.validate("load", &mut findings);
        let paths: Vec<&str> = findings.0.iter().map(|finding| &*finding.path).collect();
        assert_eq!(paths, ["load.path", "load.port", "load.interval_ms", "load.timeout_ms"]);
    }
}
