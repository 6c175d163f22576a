//! How much may be spent, per span of the calendar.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::matches;
use crate::Money;
use crate::settings::Findings;

/// How much may be spent per period.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The most that may be spent, in the plan's currency.
    pub limit: Money,
    /// After which it starts anew; periods are those of the calendar, in UTC.
    pub per: Period,
    /// Whether calls are refused with 402, and streams cut off, once it is spent. A soft one only tells.
    #[serde(default = "yes")]
    pub hard: bool,
    /// Whose spending counts.
    #[serde(default)]
    pub scope: BudgetScope,
    /// Only calls to these models count: names, or with `*` at the end all names that begin so. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

/// A span of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first to the last of a month.
    Month,
    /// For ever.
    Total,
}

/// Whose spending a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The tenant's as a whole.
    #[default]
    Tenant,
    /// Each of its keys on its own.
    Key,
}

const fn yes() -> bool {
    true
}

impl Budget {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        findings.require(self.limit >= Money::ZERO, format!("{path}.limit"), "must not be less than 0");
    }

    /// Whether spending on a model counts.
    pub fn counts(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| matches(pattern, model))
    }
}
