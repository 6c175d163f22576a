//! Overage of months that are not over, taken apart, for budgets: they cannot wait for the invoice, but must come to what
//! it will come to.
//!
//! A month is gone through slot by slot (day by day, or in one), with the invoice's own rules: what a slot adds to the
//! overage of the month so far is the slot's, and is shared by what was called in it, by tokens. So the slots of a month
//! come to its overage to the last unit, and the parts of a slot to the slot's.

use std::collections::BTreeMap;

use kernel::store::ledger::{Dimension, Sum};
use kernel::store::registry::SubscriptionRow;
use kernel::{Currency, Money, Timestamp};

use super::Trouble;
use super::consumed::covered;
use super::fee::Subscribed;
use super::item::Kind;
use super::overage::overage;
use super::period::{Day, Month};
use super::tariff::{Tariff, share};

/// What sums are split by; the last one is the slot: a day, or a month as a whole.
pub(crate) const BY_DAY: [Dimension; 6] =
    [Dimension::Tenant, Dimension::Key, Dimension::Model, Dimension::Plan, Dimension::Price, Dimension::Day];
pub(crate) const BY_MONTH: [Dimension; 6] =
    [Dimension::Tenant, Dimension::Key, Dimension::Model, Dimension::Plan, Dimension::Price, Dimension::Month];

/// What one sum has part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// When its slot begins.
    pub(crate) from: Timestamp,
    /// Tokens that a fee may cover.
    pub(crate) tokens: u64,
    /// What of them is beyond.
    pub(crate) overage: Money,
}

/// Tokens that fees include in a month; `None`: nobody has ever subscribed to anything.
pub(crate) fn included(
    tariff: &Tariff,
    subscriptions: &[SubscriptionRow],
    month: Month,
    currency: Currency,
) -> Option<u64> {
    if subscriptions.is_empty() {
        return None;
    }
    let subscribed = Subscribed::new(tariff, subscriptions, month.period()).of(tariff, currency);
    Some(subscribed.included(tariff).get(&month).copied().unwrap_or(0))
}

/// The part of each of one tenant's sums, in their order; `otherwise` are included where nobody has subscribed.
pub(crate) fn parts(
    tariff: &Tariff,
    subscriptions: &[SubscriptionRow],
    sums: &[&Sum],
    currency: Currency,
    otherwise: u64,
) -> Result<Vec<Part>, Trouble> {
    let mut parts = Vec::with_capacity(sums.len());
    let mut months: BTreeMap<Month, BTreeMap<Timestamp, Vec<usize>>> = BTreeMap::new();
    for (at, sum) in sums.iter().enumerate() {
        let (month, from) = slot(sum)?;
        parts.push(Part { from, tokens: 0, overage: Money::ZERO });
        months.entry(month).or_default().entry(from).or_default().push(at);
    }
    for (month, slots) in months {
        let included = included(tariff, subscriptions, month, currency).unwrap_or(otherwise);
        let mut so_far = SoFar { month, included, sums: BTreeMap::new(), overage: Money::ZERO };
        for places in slots.into_values() {
            let of: Vec<(usize, u64)> =
                places.into_iter().filter_map(|at| Some((at, so_far.add(tariff, sums.get(at)?)))).collect();
            let mut left = so_far.beyond(tariff)?;
            let mut tokens: u64 = of.iter().map(|(_, tokens)| tokens).sum();
            for (at, own) in of {
                let own_part = match own == tokens {
                    true => left,
                    false => share(left, own, tokens)?,
                };
                (left, tokens) = (left - own_part, tokens - own);
                if let Some(part) = parts.get_mut(at) {
                    (part.tokens, part.overage) = (own, own_part);
                }
            }
        }
    }
    Ok(parts)
}

/// A month up to some slot, summed up as its invoice will.
struct SoFar {
    month: Month,
    included: u64,
    sums: BTreeMap<Vec<Option<String>>, Sum>,
    overage: Money,
}

impl SoFar {
    /// Adds a sum; gives how many of its tokens a fee may cover.
    fn add(&mut self, tariff: &Tariff, sum: &Sum) -> u64 {
        let of = |at: usize| sum.of.get(at).cloned().flatten();
        let as_invoiced = vec![Some(self.month.to_string()), of(3), of(4), of(2)];
        match self.sums.get_mut(&as_invoiced) {
            Some(known) => known.usage = known.usage.and(&sum.usage),
            None => drop(self.sums.insert(as_invoiced.clone(), Sum { of: as_invoiced, ..sum.clone() })),
        }
        let billing = tariff.billing(of(3).as_deref());
        if billing.monthly.is_some() && !billing.by_token() { sum.usage.total().0 } else { 0 }
    }

    /// What has come to the overage since it was last asked.
    fn beyond(&mut self, tariff: &Tariff) -> Result<Money, Trouble> {
        let mut pots = Vec::new();
        for sum in self.sums.values() {
            covered(tariff, sum, &mut pots)?;
        }
        let items = overage(&BTreeMap::from([(self.month, self.included)]), pots)?;
        let beyond = items.iter().filter(|(item, _)| item.kind == Kind::Overage).map(|(_, count)| count.exact);
        let all = beyond.sum();
        Ok(all - std::mem::replace(&mut self.overage, all))
    }
}

fn slot(sum: &Sum) -> Result<(Month, Timestamp), Trouble> {
    let said = sum.of.last().and_then(Option::as_deref).unwrap_or_default();
    if let Some(month) = Month::parse(said) {
        return Ok((month, month.period().start()));
    }
    let day = said.parse().map(|millis| Day::of(Timestamp(millis)));
    let day = day.map_err(|_| Trouble::Broken(format!("the ledger sums up a day `{said}`")))?;
    Ok((day.month(), day.start()))
}
