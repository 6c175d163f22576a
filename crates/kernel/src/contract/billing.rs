//! How calls are charged, and what models cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Findings;
use crate::{Currency, Money};

/// How calls are charged. Nothing set: by the token, at the catalogue's prices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Billing {
    /// In which currency; prices are taken from the catalogue in this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// For each answered call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_call: Option<Money>,
    /// Whether the catalogue's prices are charged. Default: yes, unless `per_call` or `monthly` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_token: Option<bool>,
    /// What the catalogue's prices are multiplied by, in percent: `120` adds a fifth. At most 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub markup_percent: Option<u32>,
    /// A monthly fee with tokens included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Monthly>,
    /// Whether calls are paid from a balance that was paid in before: without any left, calls are refused with 402.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prepaid: bool,
    /// What an answer from the cache costs, in percent of what the model would have. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_percent: Option<u32>,
}

/// A monthly fee, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monthly {
    /// For each calendar month that a subscription touches, by the day.
    pub fee: Money,
    /// Tokens that cost nothing more, read and generated together.
    #[serde(default)]
    pub included_tokens: u64,
    /// For each thousand beyond them; default: the catalogue's prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage_per_1k_tokens: Option<Money>,
}

/// What a model costs from some day on. What is not set costs nothing, but for the classes that say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The model: a name, or with `*` at its end all names that begin so. A whole name goes before a beginning, a longer
    /// beginning before a shorter one.
    pub model: String,
    /// From which day on, at midnight UTC, as in `2026-01-01`. The latest that has begun is in force.
    pub from: String,
    /// In which currency.
    #[serde(default)]
    pub currency: Currency,
    /// For a million tokens read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_per_1m_tokens: Option<Money>,
    /// For a million tokens read that the backend had in its cache. Default: as any other read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_per_1m_tokens: Option<Money>,
    /// For a million tokens written to the backend's cache. Default: as any other read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_per_1m_tokens: Option<Money>,
    /// For a million tokens generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_per_1m_tokens: Option<Money>,
    /// For a million tokens the model spent thinking. Default: as any other generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_per_1m_tokens: Option<Money>,
    /// For a million tokens of sound read. Default: as any other read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input_per_1m_tokens: Option<Money>,
    /// For a million tokens of sound generated. Default: as any other generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output_per_1m_tokens: Option<Money>,
    /// For each image generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_image: Option<Money>,
    /// For each answered call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_call: Option<Money>,
    /// For each second of each GPU that the instance has: its node's share as in `needs.gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_gpu_second: Option<Money>,
}

/// Bound: a thousand times the catalogue's price.
const MARKUP_MAX: u32 = 100_000;

impl Billing {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let mut amount = |name: &str, money: Option<Money>| {
            let fits = money.is_none_or(|money| money >= Money::ZERO);
            findings.require(fits, format!("{path}.{name}"), "must not be less than 0");
        };
        amount("per_call", self.per_call);
        let monthly = self.monthly.as_ref();
        amount("monthly.fee", monthly.map(|monthly| monthly.fee));
        amount("monthly.overage_per_1k_tokens", monthly.and_then(|monthly| monthly.overage_per_1k_tokens));
        if let Some(overage) = monthly.and_then(|monthly| monthly.overage_per_1k_tokens) {
            let path = format!("{path}.monthly.overage_per_1k_tokens");
            findings.require(overage.per(1000).is_some(), path, "has more than 9 decimals");
        }
        let fits = self.markup_percent.is_none_or(|percent| percent <= MARKUP_MAX);
        findings.require(fits, format!("{path}.markup_percent"), format!("must be at most {MARKUP_MAX}"));
        let fits = self.cache_percent.is_none_or(|percent| percent <= 100);
        findings.require(fits, format!("{path}.cache_percent"), "must be at most 100");
    }

    /// In which currency.
    pub fn currency(&self) -> Currency {
        self.currency.unwrap_or_default()
    }

    /// Whether the catalogue's prices are charged.
    pub fn by_token(&self) -> bool {
        self.per_token.unwrap_or(self.per_call.is_none() && self.monthly.is_none())
    }
}
