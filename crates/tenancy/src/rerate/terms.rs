//! What plans and prices say, read from their JSON word by word.

use std::collections::HashMap;

use kernel::store::registry::{PlanRow, PriceRow, SubscriptionRow};
use serde_json::Value;

use super::calendar::{DAY, days_in, month};
use super::ratio::Ratio;

/// Every plan version, every price, and when a tenant was on what.
pub(super) struct Terms {
    plans: HashMap<String, Value>,
    /// By name: when entered, and the id.
    versions: HashMap<String, Vec<(i64, String)>>,
    prices: HashMap<String, Value>,
    subscriptions: Vec<SubscriptionRow>,
}

/// Classes of tokens in the order of invoice lines: name, field of a price, field it falls back on.
pub(super) const TOKENS: [(&str, &str, &str); 7] = [
    ("input", "input_per_1m_tokens", "input_per_1m_tokens"),
    ("cached", "cached_input_per_1m_tokens", "input_per_1m_tokens"),
    ("cache_write", "cache_write_per_1m_tokens", "input_per_1m_tokens"),
    ("audio_input", "audio_input_per_1m_tokens", "input_per_1m_tokens"),
    ("output", "output_per_1m_tokens", "output_per_1m_tokens"),
    ("reasoning", "reasoning_per_1m_tokens", "output_per_1m_tokens"),
    ("audio_output", "audio_output_per_1m_tokens", "output_per_1m_tokens"),
];

impl Terms {
    /// `None` where a row is no JSON.
    pub(super) fn new(plans: &[PlanRow], prices: &[PriceRow], subscriptions: Vec<SubscriptionRow>) -> Option<Self> {
        let mut terms = Self { plans: HashMap::new(), versions: HashMap::new(), prices: HashMap::new(), subscriptions };
        for row in plans {
            terms.plans.insert(row.id.clone(), serde_json::from_str(&row.terms).ok()?);
            let versions = terms.versions.entry(row.name.clone()).or_default();
            versions.push((row.created.0, row.id.clone()));
            row.again.iter().for_each(|again| versions.push((again.0, row.id.clone())));
        }
        for row in prices {
            terms.prices.insert(row.id.clone(), serde_json::from_str(&row.terms).ok()?);
        }
        Some(terms)
    }

    /// Something a plan's billing says; `Null` where it does not.
    pub(super) fn billing(&self, plan: Option<&str>, path: &str) -> &Value {
        let plan = plan.and_then(|plan| self.plans.get(plan));
        plan.and_then(|plan| plan.pointer(&format!("/billing/{path}"))).unwrap_or(&Value::Null)
    }

    /// An amount that a plan's billing says.
    pub(super) fn amount(&self, plan: Option<&str>, path: &str) -> Option<Ratio> {
        self.billing(plan, path).as_str().and_then(Ratio::parse)
    }

    /// Whether a plan charges the catalogue's prices.
    pub(super) fn by_token(&self, plan: Option<&str>) -> bool {
        let other = !self.billing(plan, "per_call").is_null() || !self.billing(plan, "monthly").is_null();
        self.billing(plan, "per_token").as_bool().unwrap_or(!other)
    }

    /// A plan's markup as a factor; `None` where it has none.
    pub(super) fn markup(&self, plan: Option<&str>) -> Option<Ratio> {
        self.billing(plan, "markup_percent").as_i64().and_then(|percent| Ratio::new(percent.into(), 100))
    }

    /// In which currency a plan is billed.
    fn currency(&self, plan: &str) -> String {
        self.billing(Some(plan), "currency").as_str().map_or_else(|| "usd".into(), str::to_ascii_lowercase)
    }

    /// A field of a price, or the one it falls back on, or nothing.
    pub(super) fn price(&self, price: Option<&str>, field: &str, or: &str) -> Ratio {
        let price = price.and_then(|price| self.prices.get(price));
        let read = |field: &str| price.and_then(|price| price.get(field)).and_then(Value::as_str);
        read(field).or_else(|| read(or)).and_then(Ratio::parse).unwrap_or(Ratio::ZERO)
    }

    /// How many days of a time each version with a monthly fee in a currency was in force last, by month and version.
    pub(super) fn days(&self, from: i64, until: i64, currency: &str) -> HashMap<(String, String), i64> {
        let mut days = HashMap::new();
        let mut midnight = from;
        while midnight < until {
            if let Some(version) = self.last_on(midnight, midnight + DAY)
                && self.billing(Some(&version), "monthly").is_object()
                && self.currency(&version) == currency
            {
                *days.entry((month(midnight), version)).or_insert(0) += 1;
            }
            midnight += DAY;
        }
        days
    }

    /// The version in force last between two midnights.
    fn last_on(&self, midnight: i64, next: i64) -> Option<String> {
        let mut last: Option<(i64, i64, &str)> = None;
        for on in &self.subscriptions {
            let (begun, ended) = (on.from.0, on.until.map_or(i64::MAX, |until| until.0));
            let on_that_day = begun < next && ended > midnight && ended > begun;
            if on_that_day && last.is_none_or(|(later, ..)| begun >= later) {
                last = Some((begun, ended.min(next), on.plan.as_str()));
            }
        }
        let (_, until, plan) = last?;
        let versions = self.versions.get(plan)?;
        let entered = versions.iter().filter(|(created, _)| *created < until).max();
        entered.or_else(|| versions.iter().min()).map(|(_, id)| id.clone())
    }

    /// Tokens included in each month of a time.
    pub(super) fn included(&self, days: &HashMap<(String, String), i64>) -> Option<HashMap<String, u128>> {
        let mut shares: HashMap<String, Ratio> = HashMap::new();
        for ((month, version), days) in days {
            let tokens = self.billing(Some(version), "monthly/included_tokens").as_u64().unwrap_or(0);
            let share = Ratio::whole(tokens.into())?.times(Ratio::new((*days).into(), days_in(month)?.into())?)?;
            let so_far = shares.entry(month.clone()).or_insert(Ratio::ZERO);
            *so_far = so_far.plus(share)?;
        }
        let up = |(month, share): (String, Ratio)| Some((month, share.ceiling()?));
        shares.into_iter().map(up).collect()
    }
}
