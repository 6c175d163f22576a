//! Plans: what tenants are promised.

use std::collections::HashSet;
use std::sync::Arc;

use kernel::settings::Findings;
use kernel::{Priority, Terms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::directory::KeySettings;

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
    }

    /// The terms of a key of a tenant on this plan; without one, what everybody gets.
    pub(crate) fn terms(plan: Option<&Self>, key: &KeySettings) -> Arc<Terms> {
        let rest = Terms { key_priority: key.priority, key_weight: key.weight, ..Terms::default() };
        Arc::new(match plan {
            None => rest,
            Some(plan) => Terms {
                priority: plan.priority,
                priority_max: plan.priority_max,
                weight: plan.weight,
                explain: plan.explain,
                ..rest
            },
        })
    }
}

pub(crate) fn weight(weight: u32, path: &str, findings: &mut Findings) {
    let message = format!("must be between 1 and {WEIGHT_MAX}");
    findings.require((1..=WEIGHT_MAX).contains(&weight), format!("{path}.weight"), message);
}
