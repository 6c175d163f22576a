//! Tokens beyond those that a monthly fee includes, as the invoice will reckon them.
//!
//! A fee includes as many tokens as the days say on which its plan was in force, and covers the dearest first; what is
//! beyond is charged by the invoice, but spent when it is used. What a process adds up call by call is right as long as it
//! runs and is alone. So of what is posted the ledger is asked for the whole month, and the invoice's own code for the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::contract::Period;
use kernel::store::ledger::{Ledger, Sum};
use kernel::store::registry::SubscriptionRow;
use kernel::store::{Fault, Registry};
use kernel::{Moment, Money, TenantId, Timestamp};

use super::loading::{Questions, within};
use super::period;
use crate::invoice::running::{self, BY_DAY, BY_MONTH, Part};
use crate::invoice::{Day, Tariff, Trouble};

/// Who knows plans, prices and who was subscribed to what.
pub(super) struct Fees {
    registry: Arc<dyn Registry>,
    /// What was told last, and when.
    subscribed: Mutex<HashMap<TenantId, Told>>,
}

/// When it was told, and what.
type Told = (Moment, Arc<[SubscriptionRow]>);

/// How long it is believed who was subscribed to what. Bound: a change of plan counts for budgets so much later.
const BELIEVED: Duration = Duration::from_secs(60);

/// What is known of one tenant.
pub(super) struct Known {
    /// Tokens included in the month that is, where anybody has subscribed.
    pub(super) included: Option<u64>,
    /// Tokens used in it that a fee may cover.
    pub(super) used: u64,
    /// By day, of the month that is; and by month, of all, where that is asked for.
    days: Vec<Share>,
    months: Vec<Share>,
}

/// Overage of what was called with a key on a model.
struct Share {
    key: Option<String>,
    model: Option<String>,
    part: Part,
}

impl Fees {
    pub(super) fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, subscribed: Mutex::default() }
    }

    /// What those with a monthly fee have used.
    pub(super) async fn ask(&self, ledger: &dyn Ledger, some: &[Questions]) -> Result<HashMap<TenantId, Known>, Fault> {
        let month = |asked: &Questions| asked.periods.iter().rev().find(|(per, _)| *per == Period::Month).copied();
        let monthly: Vec<(&Questions, i64)> =
            some.iter().filter(|asked| asked.monthly).filter_map(|asked| Some((asked, month(asked)?.1))).collect();
        let mut all = HashMap::new();
        if monthly.is_empty() {
            return Ok(all);
        }
        let tariff = Tariff::new(&self.registry.plans().await?, &self.registry.prices().await?).map_err(broken)?;
        let tenant = |asked: &Questions| asked.account.tenant.clone();
        let mut days: HashMap<TenantId, Vec<Sum>> = HashMap::new();
        let mut numbers: Vec<i64> = monthly.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let of = monthly.iter().filter(|(_, own)| *own == number).map(|(asked, _)| tenant(asked)).collect();
            gather(&mut days, ledger.sums(&within(Period::Month, number, of), &BY_DAY).await?);
        }
        let mut months: HashMap<TenantId, Vec<Sum>> = HashMap::new();
        let ever = |asked: &Questions| asked.periods.contains(&(Period::Total, 0));
        let of: Vec<TenantId> =
            monthly.iter().filter(|(asked, _)| ever(asked)).map(|(asked, _)| tenant(asked)).collect();
        if !of.is_empty() {
            gather(&mut months, ledger.sums(&within(Period::Total, 0, of), &BY_MONTH).await?);
        }
        let ids: Vec<TenantId> = monthly.iter().map(|(asked, _)| tenant(asked)).collect();
        let subscribed = self.subscriptions(ids).await?;
        for (asked, number) in monthly {
            let (id, currency) = (tenant(asked), asked.currency);
            let subscriptions = subscribed.get(&id).map(AsRef::as_ref).unwrap_or_default();
            let shares = |sums: Option<&Vec<Sum>>| {
                let sums: Vec<&Sum> = sums.into_iter().flatten().filter(|sum| sum.currency == currency).collect();
                let parts = running::parts(&tariff, subscriptions, &sums, currency, asked.included);
                let text = |sum: &Sum, nth: usize| sum.of.get(nth).cloned().flatten();
                let share = |(sum, part): (&&Sum, Part)| Share { key: text(sum, 1), model: text(sum, 2), part };
                Ok(sums.iter().zip(parts.map_err(broken)?).map(share).collect::<Vec<Share>>())
            };
            let days = shares(days.get(&id))?;
            let begin = Day::of(period::begin(Period::Month, number)).month();
            let known = Known {
                included: running::included(&tariff, subscriptions, begin, currency),
                used: days.iter().map(|share| share.part.tokens).sum(),
                months: shares(months.get(&id))?,
                days,
            };
            all.insert(id, known);
        }
        Ok(all)
    }

    /// Who was subscribed to what: one question about all of whom that is not known lately.
    async fn subscriptions(&self, tenants: Vec<TenantId>) -> Result<HashMap<TenantId, Arc<[SubscriptionRow]>>, Fault> {
        let now = Moment::now();
        let known = || self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut of, mut missing) = (HashMap::with_capacity(tenants.len()), Vec::new());
        {
            let known = known();
            for tenant in tenants {
                match known.get(&tenant).filter(|(at, _)| now.since(*at) < BELIEVED) {
                    Some((_, rows)) => drop(of.insert(tenant, Arc::clone(rows))),
                    None => missing.push(tenant),
                }
            }
        }
        if missing.is_empty() {
            return Ok(of);
        }
        let mut told: HashMap<TenantId, Vec<SubscriptionRow>> = HashMap::with_capacity(missing.len());
        for row in self.registry.subscriptions_of(&missing).await? {
            told.entry(row.tenant.clone()).or_default().push(row);
        }
        let mut known = known();
        known.retain(|_, (at, _)| now.since(*at) < BELIEVED);
        for tenant in missing {
            let rows: Arc<[SubscriptionRow]> = told.remove(&tenant).unwrap_or_default().into();
            known.insert(tenant.clone(), (now, Arc::clone(&rows)));
            of.insert(tenant, rows);
        }
        Ok(of)
    }
}

impl Known {
    /// Overage in a period of what counts.
    pub(super) fn overage(
        &self,
        per: Period,
        number: i64,
        counts: impl Fn(Option<&str>, Option<&str>) -> bool,
    ) -> Money {
        let shares = if per == Period::Total { &self.months } else { &self.days };
        let within = |at: Timestamp| period::number(per, at) == number;
        let of = shares.iter().filter(|share| within(share.part.from));
        let of = of.filter(|share| counts(share.key.as_deref(), share.model.as_deref()));
        of.map(|share| share.part.overage).sum()
    }
}

fn gather(to: &mut HashMap<TenantId, Vec<Sum>>, sums: Vec<Sum>) {
    for sum in sums {
        if let Some(tenant) = sum.of.first().and_then(Option::as_deref) {
            to.entry(TenantId::new(tenant)).or_default().push(sum);
        }
    }
}

/// Where the store's plans or prices cannot be understood, no invoice can be made either.
fn broken(trouble: Trouble) -> Fault {
    Fault::Broken(trouble.to_string())
}
