//! What calls consumed, taken apart into items.
//!
//! The ledger keeps the exact amount of every charge; here it is explained: so many tokens of a class at a price, so many
//! calls, so much GPU time. What is not explained by the price stands in an item of its own, so that the items of an
//! invoice always come to what its charges do.

use kernel::store::ledger::Sum;
use kernel::{Billing, Currency, Money};

use super::Trouble;
use super::fee::Subscribed;
use super::item::{Class, Count, Item, Items, Kind, add};
use super::overage::{self, Pot};
use super::period::Month;
use super::tariff::{Tariff, list, marked_up};

/// All items about usage, given sums by month, plan, price and model.
pub(crate) fn consumed(
    tariff: &Tariff,
    subscribed: &Subscribed,
    sums: &[Sum],
    currency: Currency,
) -> Result<Items, Trouble> {
    let (mut items, mut pots) = (Items::new(), Vec::new());
    for sum in sums.iter().filter(|sum| sum.currency == currency) {
        let group = Group::new(tariff, sum)?;
        group.charged(&mut items)?;
        group.covered(&mut pots)?;
    }
    items.extend(overage::overage(&subscribed.included(tariff), pots)?);
    Ok(items)
}

/// What of a sum, split as those of an invoice are, a monthly fee may cover.
pub(super) fn covered(tariff: &Tariff, sum: &Sum, pots: &mut Vec<Pot>) -> Result<(), Trouble> {
    Group::new(tariff, sum)?.covered(pots)
}

/// One row of sums, and what it was rated by.
struct Group<'a> {
    sum: &'a Sum,
    month: Month,
    plan: Option<&'a str>,
    price: Option<&'a str>,
    model: Option<&'a str>,
    billing: Billing,
    tariff: &'a Tariff,
}

impl<'a> Group<'a> {
    fn new(tariff: &'a Tariff, sum: &'a Sum) -> Result<Self, Trouble> {
        let of = |at: usize| sum.of.get(at).and_then(Option::as_deref);
        let month = of(0).and_then(Month::parse);
        let month = month.ok_or_else(|| Trouble::Broken(format!("the ledger sums up a month `{:?}`", of(0))))?;
        let (plan, price, model) = (of(1), of(2), of(3));
        Ok(Self { sum, month, plan, price, model, billing: tariff.billing(plan), tariff })
    }

    fn item(&self, kind: Kind, class: Option<Class>) -> Item {
        Item {
            plan: self.plan.map(str::to_owned),
            model: self.model.map(str::to_owned),
            price: self.price.map(str::to_owned),
            class,
            ..Item::new(self.month, kind)
        }
    }

    /// What one class costs this tenant, per [`Class::per`].
    fn unit_price(&self, class: Class) -> Result<Money, Trouble> {
        let price = self.tariff.price(self.price).map_or(Money::ZERO, |price| list(price, class));
        marked_up(price, &self.billing)
    }

    /// Items that together come to the sum's amount.
    fn charged(&self, items: &mut Items) -> Result<(), Trouble> {
        let (mut left, mut by_call) = (self.sum.amount, Money::ZERO);
        if self.billing.by_token() {
            for class in Class::TOKENS.into_iter().chain([Class::Images, Class::Gpu]) {
                let quantity = if class == Class::Gpu { self.sum.gpu_millis } else { class.of(&self.sum.usage) };
                let count = Count::of(class, quantity, self.unit_price(class)?)?;
                // GPU time is measured whether or not it is paid for.
                if quantity > 0 && (class != Class::Gpu || !count.unit_price.is_zero()) {
                    left -= count.exact;
                    add(items, self.item(Kind::Usage, Some(class)), count);
                }
            }
            by_call = self.unit_price(Class::Calls)?;
        }
        let by_plan = self.billing.per_call.unwrap_or_default();
        // Only answered calls cost by the call, and sums do not tell which were: what is left does. To the nearest, as a
        // markup drops fractions of 10⁻¹² of each call.
        let each = by_call + by_plan;
        let half = Money::from_pico(each.pico() / 2);
        let answered = (left + half).holds(each).min(self.sum.calls);
        if answered > 0 {
            left -= each.times(answered);
            let item = self.item(Kind::Usage, Some(Class::Calls));
            if !by_plan.is_zero() {
                add(items, Item { price: None, ..item.clone() }, Count::of(Class::Calls, answered, by_plan)?);
            }
            if !by_call.is_zero() {
                add(items, item, Count::of(Class::Calls, answered, by_call)?);
            }
        }
        if !left.is_zero() {
            add(items, self.item(Kind::Adjustment, None), Count::amount(left));
        }
        Ok(())
    }

    /// Tokens that a monthly fee may cover.
    fn covered(&self, pots: &mut Vec<Pot>) -> Result<(), Trouble> {
        let Some(monthly) = self.billing.monthly.as_ref().filter(|_| !self.billing.by_token()) else { return Ok(()) };
        if let Some(unit_price) = monthly.overage_per_1k_tokens {
            let item = self.item(Kind::Overage, None);
            let item = Item { price: None, ..item };
            pots.push(Pot { item, tokens: self.sum.usage.total().0, unit_price, per: overage::PER });
            return Ok(());
        }
        for class in Class::TOKENS {
            let (tokens, unit_price) = (class.of(&self.sum.usage), self.unit_price(class)?);
            if tokens > 0 {
                let item = self.item(Kind::Overage, Some(class));
                pots.push(Pot { item, tokens, unit_price, per: class.per() });
            }
        }
        Ok(())
    }
}
