//! Plans: what tenants are promised.

use std::collections::HashSet;
use std::sync::Arc;

use kernel::contract::{ModelLimits, Preprocess};
use kernel::settings::Findings;
use kernel::{Allow, Billing, Budget, CredentialKind, KeyId, Limits, Origins, Priority, Terms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::directory::{KeySettings, TenantSettings};

/// What the tenants of a plan get. A tenant without a plan may ask for everything, at a share of one.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// Its name, as tenants give it under `plan`.
    pub name: String,
    /// How urgent calls are that neither say so nor have a key or a model that does.
    #[serde(default)]
    pub priority: Priority,
    /// How urgent calls may be at most; what asks for more gets this.
    #[serde(default = "high")]
    pub priority_max: Priority,
    /// The share of each of its tenants when tenants compete, relative to the others.
    #[serde(default = "one")]
    pub weight: u32,
    /// Whether its tenants may ask with `x-sluice-explain` why a call was placed as it was, which names instances and
    /// shows how busy they are.
    #[serde(default)]
    pub explain: bool,
    /// Requests per second of each of its tenants; a burst of one second's worth is let through at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rps: Option<u32>,
    /// Requests per minute of each of its tenants; a burst of one minute's worth is let through at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    /// Tokens per minute of each of its tenants, read and generated together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Calls at once of each of its tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// The same for each key that has no limits of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub key_limits: Limits,
    /// The same for calls of each tenant to some models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model_limits: Vec<ModelLimits>,
    /// Which models its tenants may call: names, or with `*` at the end all names that begin so. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// By which kinds of credential its tenants may call. Default: by any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auth: Vec<CredentialKind>,
    /// How calls are charged. Default: by the token, at the catalogue's prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// What is made of their requests before they are passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// How much each of its tenants may spend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
}

/// Bound: beyond it the smallest share would hardly count.
const WEIGHT_MAX: u32 = 1000;

const fn high() -> Priority {
    Priority::High
}

pub(crate) const fn one() -> u32 {
    1
}

impl PlanSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, seen: &mut HashSet<String>, findings: &mut Findings) {
        findings.require(!self.name.trim().is_empty(), format!("{path}.name"), "must not be empty");
        let new = seen.insert(self.name.clone());
        findings.require(new, format!("{path}.name"), format!("`{}` is listed twice", self.name));
        weight(self.weight, path, findings);
        self.limits().validate(path, findings);
        self.key_limits.validate(&format!("{path}.key_limits"), findings);
        model_limits(&self.model_limits, path, findings);
        patterns(&self.models, &format!("{path}.models"), findings);
        budgets(&self.budgets, &format!("{path}.budgets"), findings);
        if let Some(billing) = &self.billing {
            billing.validate(&format!("{path}.billing"), findings);
        }
        if let Some(preprocess) = &self.preprocess {
            preprocess.validate(&format!("{path}.preprocess"), findings);
        }
    }

    /// A plan's id: its name and a hash of what it says, so that the same version is the same everywhere.
    pub fn id(&self) -> String {
        let terms = serde_json::to_string(self).unwrap_or_default();
        let hash = blake3::hash(terms.as_bytes()).to_hex();
        format!("{}@{}", self.name, hash.get(..16).unwrap_or_default())
    }

    /// What its tenants are promised per time.
    pub(crate) const fn limits(&self) -> Limits {
        Limits { rps: self.rps, rpm: self.rpm, tpm: self.tpm, concurrency: self.concurrency }
    }
}

/// The terms of a key of a tenant, on a plan or on none.
pub(crate) fn terms(plan: Option<&PlanSettings>, tenant: &TenantSettings, key: &KeySettings) -> Terms {
    let base = Terms::default();
    let of_plan = |list: fn(&PlanSettings) -> &[String]| plan.map_or(&[][..], list);
    let model_limits = tenant.model_limits.iter().chain(plan.iter().flat_map(|plan| &plan.model_limits));
    let budgets = plan.iter().flat_map(|plan| &plan.budgets).chain(&tenant.budgets);
    Terms {
        plan: plan.map(|plan| plan.id().into()),
        scopes: key.scopes.as_deref().map_or(base.scopes, Into::into),
        models: Allow::lists([of_plan(|plan| &plan.models), &tenant.models, &key.models]),
        origins: Origins::lists([&tenant.networks[..], &key.networks]),
        credentials: plan.map_or(&[][..], |plan| &plan.auth).into(),
        signed: key.signed,
        limits: tenant.limits.or(plan.map_or_else(Limits::default, PlanSettings::limits)),
        key_limits: key.limits.or(plan.map_or_else(Limits::default, |plan| plan.key_limits)),
        model_limits: model_limits.cloned().collect(),
        budgets: budgets.cloned().collect(),
        key_budgets: key.budgets.as_slice().into(),
        kin: key.former.iter().map(|id| KeyId::new(id.as_str())).collect(),
        billing: Arc::new(plan.and_then(|plan| plan.billing.clone()).unwrap_or_default()),
        middleware: tenant.middleware.as_ref().map(|list| list.as_slice().into()),
        preprocess: plan.and_then(|plan| plan.preprocess.clone()).filter(Preprocess::any).map(Arc::new),
        key_priority: key.priority,
        priority: plan.map_or(base.priority, |plan| plan.priority),
        priority_max: plan.map_or(base.priority_max, |plan| plan.priority_max),
        weight: plan.map_or(base.weight, |plan| plan.weight),
        key_weight: key.weight,
        explain: plan.map_or(base.explain, |plan| plan.explain),
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) fn weight(weight: u32, path: &str, findings: &mut Findings) {
    let message = format!("must be between 1 and {WEIGHT_MAX}");
    findings.require((1..=WEIGHT_MAX).contains(&weight), format!("{path}.weight"), message);
}

/// Limits for models, as plans and tenants have them.
pub(crate) fn model_limits(list: &[ModelLimits], path: &str, findings: &mut Findings) {
    for (i, one) in list.iter().enumerate() {
        let path = format!("{path}.model_limits[{i}]");
        pattern(&one.model, &format!("{path}.model"), findings);
        findings.require(one.limits.any(), format!("{path}.limits"), "limits nothing: name at least one limit");
        one.limits.validate(&format!("{path}.limits"), findings);
    }
}

/// Names of models and beginnings of names.
pub(crate) fn patterns(list: &[String], path: &str, findings: &mut Findings) {
    for (i, text) in list.iter().enumerate() {
        pattern(text, &format!("{path}[{i}]"), findings);
    }
}

fn pattern(text: &str, path: &str, findings: &mut Findings) {
    let name = text.strip_suffix('*').unwrap_or(text);
    let fits = !text.is_empty() && !name.contains('*');
    findings.require(fits, path, "must be a model's name, or the beginning of names with `*` at its end");
}

/// Budgets, as plans, tenants and keys have them.
pub(crate) fn budgets(list: &[Budget], path: &str, findings: &mut Findings) {
    for (i, budget) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        budget.validate(&path, findings);
        patterns(&budget.models, &format!("{path}.models"), findings);
    }
}
