//! The `services:` section: plain HTTP services behind the same door.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::settings::{Findings, Millis, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BalanceName, HealthSettings, InstanceSettings, ModelSettings, VersionSettings, default};
use crate::endpoint::Endpoint;
use crate::provider;

/// One plain service: requests to its path are passed on as they are, through the same chain as calls to models.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    /// Which paths are its: `/api/orders/{*rest}` for all below `/api/orders/`, `/users/{id}` with any one segment.
    pub path: String,
    /// URLs of its instances; their path, if any, goes before the request's.
    pub upstream: Vec<String>,
    /// Its name in logs, metrics, prices, limits and lists of models, there with `service:` before it. Default: the fixed
    /// beginning of its path.
    #[serde(default)]
    pub name: Option<String>,
    /// The methods that are passed on. Default: all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether it may see the credential that its caller has shown.
    #[serde(default)]
    pub pass_credentials: bool,
    /// Further headers sent to it; values are never logged.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Requests each instance may have at once; more wait in the queue. Default: no limit.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
    /// The whole exchange, waiting included.
    #[serde(default = "minute")]
    pub timeout_ms: Millis,
    /// Opening a connection.
    #[serde(default = "default::connect_timeout_ms")]
    pub connect_timeout_ms: Millis,
    /// Between two pieces of an answer.
    #[serde(default = "default::idle_timeout_ms")]
    pub idle_timeout_ms: Millis,
    /// How instances are chosen.
    #[serde(default)]
    pub balance: BalanceName,
    /// When an instance counts as down, and as up again.
    #[serde(default)]
    pub health: HealthSettings,
    /// The gates its requests pass once it is known who sends them, in order, where they differ from those of the
    /// top-level `middleware`.
    #[serde(default)]
    pub middleware: Option<Vec<Arc<str>>>,
}

/// As nginx waits.
const fn minute() -> Millis {
    Millis(60_000)
}

impl ServiceSettings {
    /// Its name among the models: nobody can ask for it by that.
    pub fn model_name(&self) -> String {
        let fixed = self.path.split('{').next().unwrap_or_default().trim_matches('/');
        format!("service:{}", self.name.as_deref().unwrap_or(fixed))
    }

    /// The same, as the fleet wants it.
    pub fn as_model(&self) -> ModelSettings {
        let instance = |url: &String| InstanceSettings {
            endpoint: Some(url.clone()),
            name: None,
            weight: default::weight(),
            max_concurrency: None,
            kv_tokens: None,
            node: None,
            needs: super::Needs::default(),
            api_key: None,
        };
        let instances = self.upstream.iter().map(instance).collect();
        ModelSettings {
            headers: self.headers.clone(),
            max_concurrency: self.max_concurrency,
            timeout_ms: self.timeout_ms,
            connect_timeout_ms: self.connect_timeout_ms,
            idle_timeout_ms: self.idle_timeout_ms,
            balance: self.balance.clone(),
            health: self.health.clone(),
            middleware: self.middleware.clone(),
            versions: vec![VersionSettings { version: "default".into(), weight: 1, upstream_model: None, instances }],
            ..ModelSettings::short(self.model_name(), None, provider::SERVICE.name)
        }
    }

    /// What the schema cannot say, but for how paths of several go together.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        findings.require(!self.upstream.is_empty(), format!("{path}.upstream"), "is empty: name at least one instance");
        for (i, url) in self.upstream.iter().enumerate() {
            if let Err(message) = Endpoint::parse(url) {
                findings.add(format!("{path}.upstream[{i}]"), message);
            }
        }
        for (i, method) in self.methods.iter().enumerate() {
            let known = http::Method::from_bytes(method.as_bytes()).is_ok() && *method == method.to_ascii_uppercase();
            findings.require(known, format!("{path}.methods[{i}]"), "must be a method in capitals, as in GET");
        }
        findings.require(self.timeout_ms.0 > 0, format!("{path}.timeout_ms"), "must be at least 1");
    }
}
