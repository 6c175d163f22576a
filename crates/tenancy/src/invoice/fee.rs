//! Monthly fees, by the day, and the tokens they include.
//!
//! Each day counts once and in full, for the plan, and the version of it, that was in force last on that day. A month's
//! fee is divided by its days, so that a whole month is the whole fee, however it is cut up; tokens are included in the
//! same shares, and what does not come out whole is rounded up once per month, for the tenant.

use std::collections::{BTreeMap, BTreeSet};

use kernel::store::registry::SubscriptionRow;
use kernel::{Currency, Money};

use super::Trouble;
use super::item::{Count, Item, Items, Kind, Unit, add};
use super::period::{Day, Month, Period};
use super::tariff::Tariff;

/// How many days of a period each version of a plan was in force, by month. Only versions with a monthly fee.
#[derive(Debug, Default)]
pub(crate) struct Subscribed(BTreeMap<(Month, String), u32>);

impl Subscribed {
    /// Looks at every day.
    pub(crate) fn new(tariff: &Tariff, subscriptions: &[SubscriptionRow], period: Period) -> Self {
        let mut days = BTreeMap::new();
        for day in period.days() {
            let on = version_on(tariff, subscriptions, day);
            if let Some(version) = on.filter(|version| tariff.monthly(Some(version)).is_some()) {
                *days.entry((day.month(), version.to_owned())).or_default() += 1;
            }
        }
        Self(days)
    }

    /// Those in a currency.
    pub(crate) fn of(&self, tariff: &Tariff, currency: Currency) -> Self {
        let of = |((_, version), _): &(&(Month, String), &u32)| tariff.billing(Some(version)).currency() == currency;
        Self(self.0.iter().filter(of).map(|(of, days)| (of.clone(), *days)).collect())
    }

    /// All currencies in which there are fees.
    pub(crate) fn currencies(&self, tariff: &Tariff) -> BTreeSet<Currency> {
        self.0.keys().map(|(_, version)| tariff.billing(Some(version)).currency()).collect()
    }

    /// A line for each month and version.
    pub(crate) fn fees(&self, tariff: &Tariff) -> Result<Items, Trouble> {
        let mut items = Items::new();
        for ((month, version), days) in &self.0 {
            let fee = tariff.monthly(Some(version)).map_or(Money::ZERO, |monthly| monthly.fee);
            let item = Item { plan: Some(version.clone()), ..Item::new(*month, Kind::Fee) };
            add(&mut items, item, Count::priced(u64::from(*days), Unit::Day, fee, u64::from(month.days()))?);
        }
        Ok(items)
    }

    /// How many tokens are included in each month.
    pub(crate) fn included(&self, tariff: &Tariff) -> BTreeMap<Month, u64> {
        let mut shares: BTreeMap<Month, u128> = BTreeMap::new();
        for ((month, version), days) in &self.0 {
            let included = tariff.monthly(Some(version)).map_or(0, |monthly| monthly.included_tokens);
            *shares.entry(*month).or_default() += u128::from(included) * u128::from(*days);
        }
        let whole = |(month, share): (Month, u128)| {
            let tokens = share.div_ceil(u128::from(month.days()));
            (month, u64::try_from(tokens).unwrap_or(u64::MAX))
        };
        shares.into_iter().map(whole).collect()
    }
}

/// The version in force last on a day: of the subscription begun last among those that touch it.
fn version_on<'a>(tariff: &'a Tariff, subscriptions: &[SubscriptionRow], day: Day) -> Option<&'a str> {
    let touches = |on: &&SubscriptionRow| {
        let ends = on.until.unwrap_or(day.end());
        on.from < day.end() && ends > day.start() && ends > on.from
    };
    let last = subscriptions.iter().filter(touches).max_by_key(|on| on.from)?;
    tariff.version(&last.plan, day.end().min(last.until.unwrap_or(day.end())))
}

#[cfg(test)]
mod tests {
    use kernel::store::registry::{PlanRow, Source};
    use kernel::{TenantId, Timestamp};

    use super::*;

    fn plan(name: &str, created: &str, fee: &str, included: u64) -> PlanRow {
        PlanRow {
            id: format!("{name}@{fee}"),
            name: name.into(),
            source: Source::Api,
            terms: format!(r#"{{"billing":{{"monthly":{{"fee":"{fee}","included_tokens":{included}}}}}}}"#),
            created: at(created),
            again: Vec::new(),
            retired: None,
        }
    }

    /// `2026-11-25` or `2026-11-25T13`.
    fn at(text: &str) -> Timestamp {
        let (day, hour) = text.split_once('T').unwrap_or((text, "0"));
        Timestamp(Day::parse(day).unwrap().start().millis() + hour.parse::<i64>().unwrap() * 3_600_000)
    }

    fn on(plan: &str, from: &str, until: Option<&str>) -> SubscriptionRow {
        SubscriptionRow { tenant: TenantId::new("acme"), plan: plan.into(), from: at(from), until: until.map(at) }
    }

    /// Plan versions, days and exact fees of November 2026, and the tokens it includes.
    fn check(plans: &[PlanRow], subscriptions: &[SubscriptionRow], expected: &[(&str, u64, &str)], included: u64) {
        let tariff = Tariff::new(plans, &[]).unwrap();
        let month = Month::parse("2026-11").unwrap();
        let subscribed = Subscribed::new(&tariff, subscriptions, month.period());
        let fees = subscribed.fees(&tariff).unwrap();
        let found: Vec<_> = fees
            .iter()
            .map(|(item, count)| (item.plan.as_deref().unwrap(), count.quantity, count.exact.to_string()))
            .collect();
        let found: Vec<_> = found.iter().map(|(plan, days, exact)| (*plan, *days, exact.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(subscribed.included(&tariff).get(&month).copied().unwrap_or(0), included);
    }

    #[test]
    fn a_whole_month_is_the_whole_fee() {
        check(
            &[plan("pro", "2026-01-01", "500", 1000)],
            &[on("pro", "2026-01-01", None)],
            &[("pro@500", 30, "500")],
            1000,
        );
    }

    #[test]
    fn a_month_begun_late_or_left_early_is_paid_by_the_day() {
        let plans = [plan("pro", "2026-01-01", "500", 1000)];
        check(&plans, &[on("pro", "2026-11-21T13", None)], &[("pro@500", 10, "166.666666666667")], 334);
        check(&plans, &[on("pro", "2026-01-01", Some("2026-11-01T01"))], &[("pro@500", 1, "16.666666666667")], 34);
        check(&plans, &[on("pro", "2026-01-01", Some("2026-11-01"))], &[], 0);
    }

    #[test]
    fn the_day_of_a_change_belongs_to_the_plan_it_ends_with() {
        let plans = [plan("pro", "2026-01-01", "300", 300), plan("max", "2026-01-01", "600", 600)];
        let change = [on("pro", "2026-01-01", Some("2026-11-11T09")), on("max", "2026-11-11T09", None)];
        check(&plans, &change, &[("max@600", 20, "400"), ("pro@300", 10, "100")], 500);
        let there_and_back = [
            on("pro", "2026-01-01", Some("2026-11-11T09")),
            on("max", "2026-11-11T09", Some("2026-11-11T10")),
            on("pro", "2026-11-11T10", None),
        ];
        check(&plans, &there_and_back, &[("pro@300", 30, "300")], 300);
    }

    #[test]
    fn a_new_version_of_a_plan_counts_from_the_day_it_is_entered() {
        let plans = [plan("pro", "2026-01-01", "300", 0), plan("pro", "2026-11-16T12", "330", 0)];
        check(&plans, &[on("pro", "2026-01-01", None)], &[("pro@300", 15, "150"), ("pro@330", 15, "165")], 0);
    }
}
