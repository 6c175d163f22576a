//! Who a key belongs to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kernel::contract::ModelLimits;
use kernel::settings::{Findings, Secret};
use kernel::{Budget, Caller, KeyId, Limits, Network, Priority, Scope, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::key::{self, KEY_MAX, KEY_MIN};
use crate::plan;
use crate::{Pepper, PlanSettings};

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
    /// Whether requests with it must be signed: the key alone is not let in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// Finds the caller behind a key. Holds hashes only.
#[derive(Debug, Default)]
pub struct Directory {
    pepper: Option<Pepper>,
    /// By the first eight bytes of the hash; compared in full, in constant time.
    entries: HashMap<u64, Vec<([u8; 32], Caller)>>,
}

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
        let named = self.scopes.as_ref().is_none_or(|scopes| !scopes.is_empty());
        findings.require(named, format!("{path}.scopes"), "is empty: leave it out, or name at least one scope");
        let fits = self.expires.is_none() || self.expiry().is_some();
        findings.require(fits, format!("{path}.expires"), "must be a point in time, as in 2027-01-01T00:00:00Z");
    }

    /// From when on it is refused; `None`: never.
    pub fn expiry(&self) -> Option<Timestamp> {
        let at: jiff::Timestamp = self.expires.as_ref()?.parse().ok()?;
        Some(Timestamp(at.as_millisecond()))
    }
}

fn networks(list: &[String], path: &str, findings: &mut Findings) {
    for (i, text) in list.iter().enumerate() {
        let message = "must be an address or a range of them, as in 10.0.0.0/8, with zeros behind the prefix";
        findings.require(Network::parse(text).is_some(), format!("{path}[{i}]"), message);
    }
}

impl Directory {
    /// The directory of validated tenants.
    pub fn new(tenants: &[TenantSettings], plans: &[PlanSettings], pepper: Pepper) -> Self {
        let mut directory = Self { pepper: None, entries: HashMap::new() };
        for tenant in tenants {
            let plan = plans.iter().find(|plan| Some(&plan.name) == tenant.plan.as_ref());
            for settings in &tenant.keys {
                if let Some((id, hash)) = directory_entry(settings, &pepper) {
                    let terms = Arc::new(plan::terms(plan, tenant, settings));
                    let caller = Caller { tenant: TenantId::new(tenant.id.as_str()), key: Some(id), terms };
                    directory.entries.entry(prefix(&hash)).or_default().push((hash, caller));
                }
            }
        }
        directory.pepper = Some(pepper);
        directory
    }

    /// Whether any key is known at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The caller a key belongs to.
    pub fn find(&self, key: &str) -> Option<&Caller> {
        if key.len() > KEY_MAX {
            return None;
        }
        let hash = self.pepper.as_ref()?.hash(key);
        let entries = self.entries.get(&prefix(&hash))?;
        entries.iter().find(|(known, _)| bool::from(known.ct_eq(&hash))).map(|(_, caller)| caller)
    }
}

fn directory_entry(settings: &KeySettings, pepper: &Pepper) -> Option<(KeyId, [u8; 32])> {
    match (&settings.hash, &settings.key) {
        (Some(hash), _) => key::parse_hash(hash),
        (None, Some(secret)) => {
            let hash = pepper.hash(secret.expose());
            Some((key::public_id(secret.expose(), &hash), hash))
        }
        (None, None) => None,
    }
}

fn prefix(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewKey;

    #[test]
    fn a_key_is_found_by_its_hash_or_by_itself_and_nothing_else_is() {
        let pepper = Pepper::from_text("p");
        let made = NewKey::generate(&pepper).unwrap();
        let hash = &made.hash;
        let tenants: Vec<TenantSettings> = serde_json::from_value(serde_json::json!([
            { "id": "acme", "keys": [{ "name": "k", "hash": hash }] },
            { "id": "lab", "plan": "free", "keys": [{ "name": "k", "key": "a-key-from-somewhere-else" }] },
        ]))
        .unwrap();
        let plans: [PlanSettings; 1] =
            [serde_json::from_str(r#"{"name":"free","priority_max":"low","weight":3}"#).unwrap()];
        let directory = Directory::new(&tenants, &plans, pepper);
        let acme = directory.find(made.key.expose()).unwrap();
        assert_eq!((acme.tenant.as_str(), acme.key.as_ref()), ("acme", Some(&made.id)));
        let lab = directory.find("a-key-from-somewhere-else").unwrap();
        assert_eq!((lab.tenant.as_str(), lab.terms.priority_max, lab.terms.weight), ("lab", Priority::Low, 3));
        assert_eq!(*acme.terms, kernel::Terms::default());
        assert!(directory.find("a-key-from-somewhere-els").is_none());
        assert!(directory.find("").is_none());
        assert!(directory.find(&"x".repeat(KEY_MAX + 1)).is_none());
        let other = Directory::new(&tenants, &[], Pepper::from_text("another"));
        assert!(other.find(made.key.expose()).is_none(), "a hash is worth nothing without its pepper");
    }
}
