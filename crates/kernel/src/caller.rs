//! Who is calling, and what they have been promised.

use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::{
    Allow, Billing, Budget, BudgetScope, CredentialKind, Limits, ModelLimits, Origins, Preprocess, Scope,
};
use crate::{KeyId, TenantId};

/// Who a credential turned out to belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant that is served and, later, billed.
    pub tenant: TenantId,
    /// The key it used; `None` where no credential was asked for.
    pub key: Option<KeyId>,
    /// What its plan and key promise.
    pub terms: Arc<Terms>,
}

/// What a caller may do, and what it is charged, by its plan, its tenant and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The version of the plan, by its id.
    pub plan: Option<Arc<str>>,
    /// What the credential may be used for.
    pub scopes: Arc<[Scope]>,
    /// Which models may be called.
    pub models: Allow,
    /// From where.
    pub origins: Origins,
    /// By which kinds of credential; empty: by any.
    pub credentials: Arc<[CredentialKind]>,
    /// Whether requests with the key must be signed.
    pub signed: bool,
    /// How much the tenant may ask for per time.
    pub limits: Limits,
    /// How much the key may.
    pub key_limits: Limits,
    /// How much the tenant may of some models.
    pub model_limits: Arc<[ModelLimits]>,
    /// How much may be spent: the plan's and the tenant's own.
    pub budgets: Arc<[Budget]>,
    /// How much the key may spend: its own.
    pub key_budgets: Arc<[Budget]>,
    /// Keys whose spending counts as the key's own: those it took the place of, the first one first, and those that take
    /// its place. Empty: only its own.
    pub kin: Arc<[KeyId]>,
    /// How calls are charged.
    pub billing: Arc<Billing>,
    /// The gates its calls pass once it is known what is wanted, by name, where it has its own.
    pub middleware: Option<Arc<[Arc<str>]>>,
    /// What is made of its requests before they are passed on.
    pub preprocess: Option<Arc<Preprocess>>,
    /// How urgent calls with this key are unless they say otherwise.
    pub key_priority: Option<Priority>,
    /// How urgent the tenant's calls are where nothing else is said.
    pub priority: Priority,
    /// How urgent they may be at most.
    pub priority_max: Priority,
    /// The tenant's share of what tenants compete for, relative to the others; at least 1.
    pub weight: u32,
    /// The key's share of what the tenant gets, relative to its other keys; at least 1.
    pub key_weight: u32,
    /// Whether it may ask why its calls were placed as they were.
    pub explain: bool,
}

impl Default for Terms {
    /// What a caller without a plan gets: everything, at a share of one.
    fn default() -> Self {
        static INFERENCE: LazyLock<Arc<[Scope]>> = LazyLock::new(|| Arc::new([Scope::Inference]));
        Self {
            plan: None,
            scopes: Arc::clone(&INFERENCE),
            models: Allow::default(),
            origins: Origins::default(),
            credentials: Arc::default(),
            signed: false,
            limits: Limits::default(),
            key_limits: Limits::default(),
            model_limits: Arc::default(),
            budgets: Arc::default(),
            key_budgets: Arc::default(),
            kin: Arc::default(),
            billing: Arc::default(),
            middleware: None,
            preprocess: None,
            key_priority: None,
            priority: Priority::Normal,
            priority_max: Priority::High,
            weight: 1,
            key_weight: 1,
            explain: true,
        }
    }
}

impl Terms {
    /// Whether anything is counted per key.
    pub fn counts_keys(&self) -> bool {
        !self.key_budgets.is_empty() || self.budgets.iter().any(|budget| budget.scope == BudgetScope::Key)
    }

    /// How urgent a call is: what it says itself, else its key, else the model it asks for, else the plan; never more
    /// than the plan allows.
    pub fn priority(&self, said: Option<Priority>, model: Option<Priority>) -> Priority {
        said.or(self.key_priority).or(model).unwrap_or(self.priority).min(self.priority_max)
    }
}

impl Caller {
    /// The caller of a door that asks for no credentials.
    pub fn anonymous() -> Self {
        static ANYBODY: LazyLock<Caller> =
            LazyLock::new(|| Caller { tenant: TenantId::new("anonymous"), key: None, terms: Arc::default() });
        ANYBODY.clone()
    }
}

/// How urgent a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Work that can wait.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Somebody is waiting for it.
    High,
}

impl Priority {
    /// All there are, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word used in configs, headers, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn rank(self) -> usize {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }

    /// Reads `high`, `normal` or `low`, as in `x-sluice-priority`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "high" => Some(Self::High),
            "normal" => Some(Self::Normal),
            "low" => Some(Self::Low),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_closest_to_the_call_counts_and_the_plan_is_the_ceiling() {
        use Priority::{High, Low, Normal};
        let plan = Terms { priority: Low, priority_max: Normal, ..Terms::default() };
        let key = Terms { key_priority: Some(Low), priority_max: High, ..Terms::default() };
        assert_eq!(plan.priority(None, None), Low);
        assert_eq!(plan.priority(None, Some(Normal)), Normal);
        assert_eq!(plan.priority(Some(High), None), Normal, "clamped");
        assert_eq!(key.priority(None, Some(High)), Low, "the key goes before the model");
        assert_eq!(key.priority(Some(High), None), High);
    }
}
