//! Tokens beyond those that a monthly fee includes.
//!
//! The tokens included in a month cover the dearest ones first, whichever came first in time; what is left over is paid.
//! So the sum is the same in whatever order calls end, and never more than any other order would make it. Where a plan
//! has one price for all tokens beyond, that is max(0, tokens − included) × price.

use std::collections::BTreeMap;

use kernel::Money;

use super::Trouble;
use super::item::{Count, Item, Items, Kind, Unit, add};
use super::period::Month;
use super::tariff::share;

/// For how many tokens a plan gives the price of those beyond.
pub(crate) const PER: u64 = 1_000;

/// Tokens of a month that the fee may cover.
#[derive(Debug, Clone)]
pub(crate) struct Pot {
    /// What the line about what is left over is about.
    pub item: Item,
    /// How many.
    pub tokens: u64,
    /// What `per` of them cost beyond those included.
    pub unit_price: Money,
    /// See `unit_price`.
    pub per: u64,
}

/// Lines about tokens included and tokens beyond.
pub(crate) fn overage(included: &BTreeMap<Month, u64>, pots: Vec<Pot>) -> Result<Items, Trouble> {
    let mut months: BTreeMap<Month, Vec<Pot>> = included.keys().map(|month| (*month, Vec::new())).collect();
    for pot in pots {
        months.entry(pot.item.month).or_default().push(pot);
    }
    let mut items = Items::new();
    for (month, mut pots) in months {
        let included = included.get(&month).copied().unwrap_or(0);
        // Prices are compared for as many tokens as all of them are whole for.
        let dear = |pot: &Pot| share(pot.unit_price, 1_000_000, pot.per).map_or(Money::MAX, |price| price);
        pots.sort_by(|a, b| dear(b).cmp(&dear(a)).then_with(|| a.item.cmp(&b.item)));
        let mut left = included;
        for pot in pots {
            let covered = pot.tokens.min(left);
            left -= covered;
            let beyond = pot.tokens - covered;
            if beyond > 0 {
                add(&mut items, pot.item, Count::priced(beyond, Unit::Token, pot.unit_price, pot.per)?);
            }
        }
        if included > 0 {
            let covered = Count::priced(included - left, Unit::Token, Money::ZERO, PER)?;
            add(&mut items, Item::new(month, Kind::Included), Count { of: Some(included), ..covered });
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pot(plan: &str, tokens: u64, price: &str, per: u64) -> Pot {
        let month = Month::parse("2026-11").unwrap();
        let item = Item { plan: Some(plan.into()), ..Item::new(month, Kind::Overage) };
        Pot { item, tokens, unit_price: Money::parse(price).unwrap(), per }
    }

    fn check(included: u64, pots: Vec<Pot>, expected: &[(&str, u64, &str)]) {
        let months = BTreeMap::from([(Month::parse("2026-11").unwrap(), included)]);
        let items = overage(&months, pots).unwrap();
        let found: Vec<_> = items
            .iter()
            .map(|(item, count)| (item.plan.clone().unwrap_or_default(), count.quantity, count.exact.to_string()))
            .collect();
        let found: Vec<_> =
            found.iter().map(|(plan, tokens, exact)| (plan.as_str(), *tokens, exact.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_beyond_the_included_tokens_is_paid_and_no_more() {
        check(1000, vec![pot("a", 1000, "0.004", 1000)], &[("", 1000, "0")]);
        check(1000, vec![pot("a", 1001, "0.004", 1000)], &[("", 1000, "0"), ("a", 1, "0.000004")]);
        check(1000, vec![], &[("", 0, "0")]);
        check(0, vec![pot("a", 5, "0.004", 1000)], &[("a", 5, "0.00002")]);
    }

    #[test]
    fn included_tokens_cover_the_dearest_first_whatever_the_price_is_given_for() {
        // 0.004 for a thousand is 4 for a million.
        let pots = vec![pot("cheap", 600, "3", 1_000_000), pot("dear", 600, "0.004", 1000)];
        check(1000, pots.clone(), &[("", 1000, "0"), ("cheap", 200, "0.0006")]);
        check(500, pots, &[("", 500, "0"), ("cheap", 600, "0.0018"), ("dear", 100, "0.0004")]);
    }
}
