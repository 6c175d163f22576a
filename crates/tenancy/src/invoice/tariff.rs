//! What plans and prices say, by the ids that charges carry.

use std::collections::HashMap;

use kernel::contract::Monthly;
use kernel::store::registry::{PlanRow, PriceRow};
use kernel::{Billing, Money, Price, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

use super::Trouble;
use super::item::Class;
use crate::shape;

/// Every version of every plan and every price there ever was, read once per invoice.
#[derive(Debug, Default)]
pub(crate) struct Tariff {
    plans: HashMap<String, Billing>,
    /// Versions by the plan's name: when each was entered, and its id, in order of time.
    versions: HashMap<String, Vec<(Timestamp, String)>>,
    prices: HashMap<String, Price>,
}

/// The part of a plan's terms that bills are made from.
#[derive(Deserialize, JsonSchema)]
struct Billed {
    #[serde(default)]
    billing: Billing,
}

impl Tariff {
    /// Reads the rows.
    ///
    /// # Errors
    /// Where a row's terms cannot be understood: better no invoice than a wrong one.
    pub(crate) fn new(plans: &[PlanRow], prices: &[PriceRow]) -> Result<Self, Trouble> {
        let mut tariff = Self::default();
        for row in plans {
            let unread = |why| Trouble::Broken(format!("the terms of plan `{}` cannot be read: {why}", row.id));
            let terms: Billed = shape::kept(&row.terms, Map::new()).map_err(unread)?;
            tariff.plans.insert(row.id.clone(), terms.billing);
            let versions = tariff.versions.entry(row.name.clone()).or_default();
            versions.extend(row.entries().map(|at| (at, row.id.clone())));
        }
        for versions in tariff.versions.values_mut() {
            versions.sort();
        }
        for row in prices {
            let unread = |why| Trouble::Broken(format!("the terms of price `{}` cannot be read: {why}", row.id));
            tariff.prices.insert(row.id.clone(), shape::kept(&row.terms, Map::new()).map_err(unread)?);
        }
        Ok(tariff)
    }

    /// How a version of a plan is billed; without a plan: by the token, at the catalogue's prices.
    pub(crate) fn billing(&self, plan: Option<&str>) -> Billing {
        plan.and_then(|plan| self.plans.get(plan)).cloned().unwrap_or_default()
    }

    /// The monthly fee of a version, if it has one.
    pub(crate) fn monthly(&self, plan: Option<&str>) -> Option<&Monthly> {
        self.plans.get(plan?)?.monthly.as_ref()
    }

    /// A price by its id.
    pub(crate) fn price(&self, price: Option<&str>) -> Option<&Price> {
        self.prices.get(price?)
    }

    /// The version of a plan that was in force just before a moment: the last one entered by then; where none had been,
    /// the first there is.
    pub(crate) fn version(&self, name: &str, before: Timestamp) -> Option<&str> {
        let versions = self.versions.get(name)?;
        let entered = versions.iter().rev().find(|(created, _)| *created < before);
        entered.or(versions.first()).map(|(_, id)| id.as_str())
    }
}

/// What one class costs by a price, per [`Class::per`], before a markup. What is not priced of its own costs what the
/// class it is part of does.
pub(crate) fn list(price: &Price, class: Class) -> Money {
    let (input, output) = (price.input_per_1m_tokens, price.output_per_1m_tokens);
    let said = match class {
        Class::Input => input,
        Class::Cached => price.cached_input_per_1m_tokens.or(input),
        Class::CacheWrite => price.cache_write_per_1m_tokens.or(input),
        Class::AudioInput => price.audio_input_per_1m_tokens.or(input),
        Class::Output => output,
        Class::Reasoning => price.reasoning_per_1m_tokens.or(output),
        Class::AudioOutput => price.audio_output_per_1m_tokens.or(output),
        Class::Images => price.per_image,
        Class::Gpu => price.per_gpu_second,
        Class::Calls => price.per_call,
    };
    said.unwrap_or_default()
}

/// The same with a plan's markup, half to even where it does not come out whole.
pub(crate) fn marked_up(list: Money, billing: &Billing) -> Result<Money, Trouble> {
    match billing.markup_percent {
        None => Ok(list),
        Some(percent) => share(list, u64::from(percent), 100),
    }
}

/// `amount` × `count` ÷ `per`, half to even where it does not come out whole at 10⁻¹².
pub(crate) fn share(amount: Money, count: u64, per: u64) -> Result<Money, Trouble> {
    let product = amount.pico().checked_mul(i128::from(count)).ok_or(Trouble::TooLarge)?;
    let per = i128::from(per.max(1));
    let (whole, rest) = (product.div_euclid(per), product.rem_euclid(per));
    let up = match (rest * 2).cmp(&per) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => whole & 1,
    };
    Ok(Money::from_pico(whole + up))
}

#[cfg(test)]
mod tests {
    use kernel::store::registry::Source;

    use super::*;

    fn version(id: &str, created: i64) -> PlanRow {
        PlanRow {
            id: id.into(),
            name: "pro".into(),
            source: Source::Api,
            terms: r#"{"name":"pro","rps":3}"#.into(),
            created: Timestamp(created),
            again: Vec::new(),
            retired: None,
        }
    }

    #[test]
    fn the_version_entered_last_before_a_moment_is_in_force_at_it() {
        let tariff = Tariff::new(&[version("pro@b", 20), version("pro@a", 10)], &[]).unwrap();
        let check = |before: i64| tariff.version("pro", Timestamp(before)).unwrap().to_owned();
        assert_eq!(
            (check(5), check(11), check(20), check(21)),
            ("pro@a".into(), "pro@a".into(), "pro@a".into(), "pro@b".into())
        );
        assert_eq!(tariff.version("free", Timestamp(5)), None);
        // Put back in force, it is so from then on, and was so before.
        let back = PlanRow { again: vec![Timestamp(30)], ..version("pro@a", 10) };
        let tariff = Tariff::new(&[back, version("pro@b", 20)], &[]).unwrap();
        assert_eq!(
            [11, 21, 31].map(|before| tariff.version("pro", Timestamp(before)).unwrap()),
            ["pro@a", "pro@b", "pro@a"]
        );
    }

    #[test]
    fn a_class_without_a_price_costs_what_it_is_part_of() {
        let price: Price = serde_json::from_str(
            r#"{"model":"m","from":"2026-01-01","input_per_1m_tokens":"2","output_per_1m_tokens":"3","reasoning_per_1m_tokens":"4"}"#,
        )
        .unwrap();
        let check = |class| list(&price, class).to_string();
        assert_eq!(
            (check(Class::Cached), check(Class::AudioOutput), check(Class::Reasoning)),
            ("2".into(), "3".into(), "4".into())
        );
        assert_eq!(check(Class::Images), "0");
    }

    #[test]
    fn shares_round_half_to_even_and_never_wrap_around() {
        let check = |pico: i128, count: u64, per: u64| share(Money::from_pico(pico), count, per).unwrap().pico();
        assert_eq!((check(1, 1, 2), check(3, 1, 2), check(5, 2, 3), check(-1, 1, 2)), (0, 2, 3, 0));
        assert!(share(Money::MAX, 2, 1).is_err());
    }
}
