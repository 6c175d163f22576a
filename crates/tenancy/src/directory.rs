//! Tenants and their keys, as a config declares them.

use std::collections::HashSet;
use std::sync::Arc;

use kernel::contract::ModelLimits;
use kernel::settings::{Findings, Secret};
use kernel::{Budget, Limits, Network, Priority, Scope, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::{self, CertificateName, JwtSettings};
use crate::key::{self, KEY_MAX, KEY_MIN};
use crate::{PlanSettings, plan, when};

/// One tenant.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// Its name in logs, metrics and bills.
    pub id: String,
    /// What it is promised, by the plan's name under `plans`; default: everything, at a share of one.
    #[serde(default)]
    pub plan: Option<String>,
    /// Whether its calls are refused for the time being.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// Which of the models that its plan allows it may call: names, or with `*` at the end all names that begin so.
    /// Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// From where it may call, as in `10.0.0.0/8`. Default: from everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// The gates its calls pass once it is known what is wanted, in order, where they differ from those of the top-level
    /// `middleware`; a model's own go before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub middleware: Option<Vec<Arc<str>>>,
    /// How much it may ask for per time, where that differs from its plan.
    #[serde(default, skip_serializing_if = "plan::is_default")]
    pub limits: Limits,
    /// The same for calls to some models; goes before its plan's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model_limits: Vec<ModelLimits>,
    /// How much it may spend, beside its plan's budgets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
    /// The issuer whose tokens its callers may show; or a list of several.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "identity::one_or_many")]
    #[schemars(with = "identity::OneOrMany")]
    pub jwt: Vec<JwtSettings>,
    /// Client certificates that stand for it, by a name in them or by fingerprint. Which ones are genuine says
    /// `listen.tls.client_ca`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateName>,
    /// Its keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeySettings>,
}

/// One API key: its hash as printed by `sluice key create`, or the key itself from the environment.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// What it is for.
    pub name: String,
    /// The hash printed by `sluice key create`.
    #[serde(default)]
    pub hash: Option<String>,
    /// The key itself, at least 16 characters; write it as `${VARIABLE}`.
    #[serde(default)]
    pub key: Option<Secret>,
    /// How urgent calls with it are that do not say so themselves; never more than the plan's `priority_max`.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Its share of what the tenant gets, relative to the tenant's other keys.
    #[serde(default = "plan::one")]
    pub weight: u32,
    /// From when on it is refused, as in `2027-01-01T00:00:00Z`. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What it may be used for. Default: `inference`, calling models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// Which of the models that its tenant may call it may. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// From where it may be used, as in `10.0.0.0/8`. Default: from everywhere its tenant may call from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// How much may be asked for with it per time, where that differs from the plan's `key_limits`.
    #[serde(default, skip_serializing_if = "plan::is_default")]
    pub limits: Limits,
    /// How much may be spent with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
    /// Keys it takes the place of, by their ids, the first one first: what was spent with them counts as spent with it.
    /// Rotation sets it; only a config, whose keys nobody else rotates, says it itself. Of a key that has spent already a change
    /// counts from the next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
    /// Whether requests with it must be signed: the key alone is not let in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
    /// Client certificates that stand for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateName>,
}

/// Bound: of more keys in a line the oldest are left out; a key that is rotated each day counts a month of them.
pub(crate) const FORMER_MAX: usize = 50;

impl TenantSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, plans: &[PlanSettings], seen: &mut HashSet<String>, findings: &mut Findings) {
        findings.require(!self.id.trim().is_empty(), format!("{path}.id"), "must not be empty");
        findings.require(seen.insert(self.id.clone()), format!("{path}.id"), format!("`{}` is listed twice", self.id));
        if let Some(name) = self.plan.as_ref().filter(|name| !plans.iter().any(|plan| plan.name == **name)) {
            findings.add(format!("{path}.plan"), format!("there is no plan `{name}` under `plans`"));
        }
        plan::patterns(&self.models, &format!("{path}.models"), findings);
        networks(&self.networks, &format!("{path}.networks"), findings);
        self.limits.validate(&format!("{path}.limits"), findings);
        plan::model_limits(&self.model_limits, path, findings);
        plan::budgets(&self.budgets, &format!("{path}.budgets"), findings);
        for (i, jwt) in self.jwt.iter().enumerate() {
            jwt.validate(&format!("{path}.jwt[{i}]"), findings);
        }
        certificates(&self.certificates, path, findings);
        for (i, key) in self.keys.iter().enumerate() {
            let path = format!("{path}.keys[{i}]");
            key.validate(&path, findings);
            match (&key.hash, &key.key) {
                (Some(_), Some(_)) => findings.add(format!("{path}.hash"), "give either `hash` or `key`, not both"),
                (None, None) => findings.add(
                    path,
                    format!("needs a `hash` (run: sluice key create --tenant {}) or a `key: ${{VARIABLE}}`", self.id),
                ),
                (Some(hash), None) => findings.require(
                    key::parse_hash(hash).is_some(),
                    format!("{path}.hash"),
                    format!("is no key hash: take the one that `sluice key create --tenant {}` prints", self.id),
                ),
                (None, Some(secret)) => {
                    let fits = (KEY_MIN..=KEY_MAX).contains(&secret.expose().len());
                    findings.require(
                        fits,
                        format!("{path}.key"),
                        format!("must be {KEY_MIN} to {KEY_MAX} characters long"),
                    );
                }
            }
        }
    }
}

impl KeySettings {
    /// What the schema cannot say, but for `hash` and `key`.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        plan::weight(self.weight, path, findings);
        plan::patterns(&self.models, &format!("{path}.models"), findings);
        networks(&self.networks, &format!("{path}.networks"), findings);
        self.limits.validate(&format!("{path}.limits"), findings);
        plan::budgets(&self.budgets, &format!("{path}.budgets"), findings);
        certificates(&self.certificates, path, findings);
        let fits = self.former.len() <= FORMER_MAX && self.former.iter().all(|id| key::is_id(id));
        let message = format!("must be at most {FORMER_MAX} ids of keys: what stands before the dot of a `hash`");
        findings.require(fits, format!("{path}.former"), message);
        let named = self.scopes.as_ref().is_none_or(|scopes| !scopes.is_empty());
        findings.require(named, format!("{path}.scopes"), "is empty: leave it out, or name at least one scope");
        let fits = self.expires.is_none() || self.expiry().is_some();
        findings.require(fits, format!("{path}.expires"), "must be a point in time, as in 2027-01-01T00:00:00Z");
    }

    /// From when on it is refused; `None`: never.
    pub fn expiry(&self) -> Option<Timestamp> {
        when::read(self.expires.as_ref()?)
    }
}

fn certificates(list: &[CertificateName], path: &str, findings: &mut Findings) {
    for (i, name) in list.iter().enumerate() {
        name.validate(&format!("{path}.certificates[{i}]"), findings);
    }
}

fn networks(list: &[String], path: &str, findings: &mut Findings) {
    for (i, text) in list.iter().enumerate() {
        let message = "must be an address or a range of them, as in 10.0.0.0/8, with zeros behind the prefix";
        findings.require(Network::parse(text).is_some(), format!("{path}[{i}]"), message);
    }
}
