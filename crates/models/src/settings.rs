//! The `models:` section.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kernel::settings::{Findings, Millis, Secret};
use kernel::{Priority, kind, random};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::{balance, provider};

mod adaptive;
mod health;
mod load;
mod nodes;
mod service;

pub use adaptive::AdaptiveSettings;
pub use health::{BreakerSettings, HealthSettings};
pub use load::LoadSettings;
pub use nodes::{Needs, NodeSettings};
pub use service::ServiceSettings;

/// One model. The short form gives `endpoint` and has one version with one instance; the long form lists
/// `versions`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The name clients ask for.
    pub model_name: String,
    /// What speaks behind the endpoint.
    #[serde(default)]
    pub provider: ProviderName,
    /// Short form: URL of the one backend, with a path prefix if it has one. If the path ends in a version
    /// (`/v1`, `/api/v3`) or in `openai` it is the OpenAI base URL as it is, otherwise `/v1` is added.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The name the backend knows the model by; default: `model_name`.
    #[serde(default)]
    pub upstream_model: Option<String>,
    /// Sent to the backend as a bearer token; never logged.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// Further headers sent to the backend; values are never logged.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Short form: calls the backend may have at once; more wait in the queue. Default: no limit.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
    /// How urgent calls to it are that neither say so nor have a key that does; default: as the tenant's plan says.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// The gates its calls pass once it is known what is wanted, in order, where they differ from those of the top-level
    /// `middleware`.
    #[serde(default)]
    pub middleware: Option<Vec<Arc<str>>>,
    /// Finding out how many calls each backend can work on at once, where `max_concurrency` is not known.
    #[serde(default)]
    pub adaptive: Option<AdaptiveSettings>,
    /// What each call needs of the node its instance is on, beside what the instance itself needs.
    #[serde(default)]
    pub call_needs: Needs,
    /// Tokens the KV cache of each instance holds. Calls whose prompt and answer would not fit any more wait; one that
    /// would fit no instance is refused with 400. Default: not counted.
    #[serde(default)]
    pub kv_tokens: Option<u64>,
    /// The whole call, waiting included.
    #[serde(default = "default::timeout_ms")]
    pub timeout_ms: Millis,
    /// Opening a connection.
    #[serde(default = "default::connect_timeout_ms")]
    pub connect_timeout_ms: Millis,
    /// From the request sent to the first byte of the answer (of a stream: its first event). A backend that
    /// does not stream sends nothing before it is done. Default: as long as the whole call.
    #[serde(default)]
    pub first_byte_timeout_ms: Option<Millis>,
    /// Between two pieces of an answer.
    #[serde(default = "default::idle_timeout_ms")]
    pub idle_timeout_ms: Millis,
    /// How instances are chosen.
    #[serde(default)]
    pub balance: BalanceName,
    /// Asking the backends how busy they are; without it only Sluice's own calls are counted.
    #[serde(default)]
    pub load: Option<LoadSettings>,
    /// When an instance counts as down, and as up again.
    #[serde(default)]
    pub health: HealthSettings,
    /// Trying another instance when one fails before the first byte.
    #[serde(default)]
    pub retry: RetrySettings,
    /// Connections kept open to each instance.
    #[serde(default)]
    pub pool: PoolSettings,
    /// Ask every stream for its usage, for metering; the report is taken out again where the client did not
    /// ask. Switch off for a backend that refuses `stream_options`.
    #[serde(default = "default::yes")]
    pub force_usage: bool,
    /// The model's own `tokenizer.json`, as Hugging Face's library writes it: its tokens are counted with it where the
    /// backend does not say how many there were. Default: by the name, or guessed.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// Long form: the versions that share this model's traffic by weight.
    #[serde(default)]
    pub versions: Vec<VersionSettings>,
    /// For `provider: sim`: how the simulated server behaves.
    #[serde(default)]
    pub sim: Option<sim::Settings>,
}

/// One version of a model.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionSettings {
    /// Its name, as shown in `x-sluice-model`.
    pub version: String,
    /// Its share of the traffic, relative to the other versions; 0 takes it out.
    #[serde(default = "default::weight")]
    pub weight: u32,
    /// The name the backend knows this version by; default: the model's.
    #[serde(default)]
    pub upstream_model: Option<String>,
    /// Its instances.
    #[serde(default)]
    pub instances: Vec<InstanceSettings>,
}

/// One instance: a backend process that can answer.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceSettings {
    /// URL of the backend, as in the short form.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its name in headers, logs and metrics; default: host and port.
    #[serde(default)]
    pub name: Option<String>,
    /// Its share, for balancing by weight.
    #[serde(default = "default::weight")]
    pub weight: u32,
    /// Calls it may have at once; default: the model's `max_concurrency`.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
    /// Tokens its KV cache holds; default: the model's `kv_tokens`.
    #[serde(default)]
    pub kv_tokens: Option<u64>,
    /// The node it is on, by its name under `nodes`.
    #[serde(default)]
    pub node: Option<String>,
    /// What it needs of its node while it has a call at all.
    #[serde(default)]
    pub needs: Needs,
    /// Its own key; default: the model's.
    #[serde(default)]
    pub api_key: Option<Secret>,
}

/// Trying another instance when one fails before the first byte.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// Tries of one call in all, the first included.
    pub attempts_max: u32,
    /// Retries at once, as a share of the model's calls in flight.
    pub budget_percent: u32,
    /// Retries always allowed at once.
    pub budget_min: u32,
}

/// Connections kept open to each instance.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSettings {
    /// Idle connections kept, per data-plane thread.
    pub idle_max: u32,
    /// How long an idle connection is kept.
    pub idle_timeout_ms: Millis,
    /// Connections opened ahead at the start, per data-plane thread.
    pub warm: u32,
}

/// A row of the provider table, by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct ProviderName(pub String);

/// A row of the balance table, by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct BalanceName(pub String);

mod default {
    use kernel::settings::Millis;

    /// The OpenAI SDKs' own default.
    pub(super) const fn timeout_ms() -> Millis {
        Millis(600_000)
    }
    pub(super) const fn connect_timeout_ms() -> Millis {
        Millis(3_000)
    }
    pub(super) const fn idle_timeout_ms() -> Millis {
        Millis(60_000)
    }
    pub(super) const fn weight() -> u32 {
        1
    }
    pub(super) const fn yes() -> bool {
        true
    }
}

// === impl ProviderName, BalanceName ===

impl Default for ProviderName {
    fn default() -> Self {
        Self(provider::DEFAULT.name.into())
    }
}

impl Default for BalanceName {
    fn default() -> Self {
        Self(balance::DEFAULT.name.into())
    }
}

impl JsonSchema for ProviderName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProviderName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": kind::names(provider::KINDS) })
    }
}

impl JsonSchema for BalanceName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BalanceName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": kind::names(balance::KINDS) })
    }
}

// === impl defaults ===

impl Default for RetrySettings {
    fn default() -> Self {
        Self { attempts_max: 3, budget_percent: 20, budget_min: 3 }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { idle_max: 128, idle_timeout_ms: Millis(60_000), warm: 1 }
    }
}

// === impl ModelSettings ===

impl ModelSettings {
    /// A model with the given name and one backend, everything else by default.
    pub fn short(model_name: impl Into<String>, endpoint: Option<String>, provider: &str) -> Self {
        Self {
            model_name: model_name.into(),
            provider: ProviderName(provider.into()),
            endpoint,
            upstream_model: None,
            api_key: None,
            headers: BTreeMap::new(),
            max_concurrency: None,
            priority: None,
            middleware: None,
            adaptive: None,
            call_needs: Needs::default(),
            kv_tokens: None,
            timeout_ms: default::timeout_ms(),
            connect_timeout_ms: default::connect_timeout_ms(),
            first_byte_timeout_ms: None,
            idle_timeout_ms: default::idle_timeout_ms(),
            balance: BalanceName::default(),
            load: None,
            health: HealthSettings::default(),
            retry: RetrySettings::default(),
            pool: PoolSettings::default(),
            force_usage: true,
            tokenizer: None,
            versions: Vec::new(),
            sim: None,
        }
    }

    /// The versions, with the short form written out as one version `default` of one instance.
    pub fn versions(&self) -> Vec<VersionSettings> {
        if !self.versions.is_empty() {
            return self.versions.clone();
        }
        let instance = InstanceSettings {
            endpoint: self.endpoint.clone(),
            name: None,
            weight: default::weight(),
            max_concurrency: None,
            kv_tokens: None,
            node: None,
            needs: Needs::default(),
            api_key: None,
        };
        vec![VersionSettings { version: "default".into(), weight: 1, upstream_model: None, instances: vec![instance] }]
    }

    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let name = self.model_name.trim();
        findings.require(
            !name.is_empty() && name == self.model_name,
            format!("{path}.model_name"),
            "must be a name without spaces around it",
        );
        findings.require(
            self.model_name.len() <= wire::openai::request::MODEL_NAME_MAX,
            format!("{path}.model_name"),
            "must be at most 256 bytes long",
        );
        let needs_endpoint = kind::find(provider::KINDS, &self.provider.0).is_some_and(|row| row.build.needs_endpoint);
        if self.versions.is_empty() {
            check_endpoint(&self.endpoint, needs_endpoint, &format!("{path}.endpoint"), &self.provider.0, findings);
        } else {
            findings.require(
                self.endpoint.is_none(),
                format!("{path}.endpoint"),
                "give either `endpoint` or `versions`, not both",
            );
            self.validate_versions(path, needs_endpoint, findings);
        }
        findings.require(
            self.sim.is_none() || self.provider.0 == "sim",
            format!("{path}.sim"),
            "only goes with `provider: sim`",
        );
        for fault in self.sim.iter().flat_map(sim::Settings::faults) {
            findings.add(format!("{path}.sim.{}", fault.field), fault.message);
        }
        self.validate_numbers(path, findings);
        for name in self.headers.keys() {
            let valid = http::HeaderName::try_from(name.as_str()).is_ok();
            let ours = OURS.contains(&name.to_ascii_lowercase().as_str());
            findings.require(valid && !ours, format!("{path}.headers.{name}"), "is no header that can be set");
        }
        for (name, value) in &self.headers {
            sendable(value, &format!("{path}.headers.{name}"), findings);
        }
        self.api_key.iter().for_each(|key| sendable(key, &format!("{path}.api_key"), findings));
    }

    fn validate_versions(&self, path: &str, needs_endpoint: bool, findings: &mut Findings) {
        let mut seen = std::collections::HashSet::new();
        for (i, version) in self.versions.iter().enumerate() {
            let path = format!("{path}.versions[{i}]");
            findings.require(
                seen.insert(&version.version),
                format!("{path}.version"),
                format!("`{}` is listed twice", version.version),
            );
            let named = !version.version.is_empty() && !version.version.contains(['@', ' ']);
            findings.require(named, format!("{path}.version"), "must be a name without `@` and spaces");
            findings.require(
                !version.instances.is_empty(),
                format!("{path}.instances"),
                "must list at least one instance",
            );
            for (j, instance) in version.instances.iter().enumerate() {
                let path = format!("{path}.instances[{j}]");
                check_endpoint(
                    &instance.endpoint,
                    needs_endpoint,
                    &format!("{path}.endpoint"),
                    &self.provider.0,
                    findings,
                );
                instance.api_key.iter().for_each(|key| sendable(key, &format!("{path}.api_key"), findings));
                findings.require(instance.weight > 0, format!("{path}.weight"), "must be at least 1");
                findings.require(
                    instance.max_concurrency != Some(0),
                    format!("{path}.max_concurrency"),
                    "must be at least 1",
                );
                findings.require(instance.kv_tokens != Some(0), format!("{path}.kv_tokens"), "must be at least 1");
            }
        }
        let total: u64 = self.versions.iter().map(|version| u64::from(version.weight)).sum();
        findings.require(
            total > 0,
            format!("{path}.versions"),
            "every version has weight 0: nothing would ever be called",
        );
    }

    fn validate_numbers(&self, path: &str, findings: &mut Findings) {
        findings.require(self.max_concurrency != Some(0), format!("{path}.max_concurrency"), "must be at least 1");
        findings.require(self.kv_tokens != Some(0), format!("{path}.kv_tokens"), "must be at least 1");
        for (key, span) in [
            ("timeout_ms", self.timeout_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
        ] {
            findings.require(span.0 > 0, format!("{path}.{key}"), "must be at least 1");
        }
        self.health.validate(&format!("{path}.health"), findings);
        if let Some(adaptive) = &self.adaptive {
            adaptive.validate(&format!("{path}.adaptive"), findings);
            self.validate_one_limit(path, findings);
        }
        self.load.iter().for_each(|load| load.validate(&format!("{path}.load"), findings));
        findings.require(self.retry.attempts_max > 0, format!("{path}.retry.attempts_max"), "must be at least 1");
    }

    /// A limit is either given or found out.
    fn validate_one_limit(&self, path: &str, findings: &mut Findings) {
        let mut require = |given: Option<u32>, path: String| {
            findings.require(
                given.is_none(),
                format!("{path}.max_concurrency"),
                "`adaptive` finds this limit out: give either `max_concurrency` or `adaptive`, not both",
            );
        };
        require(self.max_concurrency, path.to_owned());
        for (i, version) in self.versions.iter().enumerate() {
            for (j, instance) in version.instances.iter().enumerate() {
                require(instance.max_concurrency, format!("{path}.versions[{i}].instances[{j}]"));
            }
        }
    }

    /// A number that differs when the way to reach an instance differs; state is kept only while it is the same.
    /// `nth` counts instances of a version that are reached the same way.
    pub(crate) fn reach(&self, version: &str, instance: &InstanceSettings, nth: usize) -> u64 {
        let text = format!(
            "{}\0{}\0{}\0{:?}\0{:?}\0{nth}",
            self.model_name, version, self.provider.0, instance.endpoint, instance.name
        );
        random::hash(text.as_bytes())
    }
}

/// Headers that frame a message or name its target: Sluice writes them itself.
const OURS: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "content-type", "accept"];

fn sendable(value: &Secret, path: &str, findings: &mut Findings) {
    let fits = http::HeaderValue::from_str(value.expose()).is_ok() && value.expose().trim() == value.expose();
    findings.require(
        fits,
        path,
        "holds a line break, a space at its end or another character that a header may not have",
    );
}

fn check_endpoint(endpoint: &Option<String>, needed: bool, path: &str, provider: &str, findings: &mut Findings) {
    match endpoint {
        None => findings.require(
            !needed,
            path,
            format!("`provider: {provider}` needs an endpoint, like http://127.0.0.1:8000"),
        ),
        Some(text) => {
            if let Err(wrong) = Endpoint::parse(text) {
                findings.add(path, wrong);
            }
        }
    }
}
