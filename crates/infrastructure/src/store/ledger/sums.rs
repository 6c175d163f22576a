//! Sums over charges, from what was summed up by the hour, or for budgets by the day.

use std::collections::{HashMap, HashSet};

use kernel::store::ledger::{Dimension, Filter, Sum};
use kernel::{Currency, Money, TenantId, Timestamp};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::read::Condition;
use super::rows::read_usage;
use super::totals::DAY_MILLIS;
use crate::store::Store;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::session::Session;

/// What is summed up. The small part of money in two halves, so that the sum of millions stays within 64 bits.
pub(super) const SUMMED: &str = "currency, CAST(SUM(calls) AS BIGINT), CAST(SUM(estimated) AS BIGINT), \
    CAST(SUM(input) AS BIGINT), CAST(SUM(cached) AS BIGINT), CAST(SUM(cache_write) AS BIGINT), \
    CAST(SUM(audio_input) AS BIGINT), CAST(SUM(output) AS BIGINT), CAST(SUM(reasoning) AS BIGINT), \
    CAST(SUM(audio_output) AS BIGINT), CAST(SUM(images) AS BIGINT), CAST(SUM(gpu_millis) AS BIGINT), \
    CAST(SUM(units) AS BIGINT), CAST(SUM(pico / 1000000) AS BIGINT), CAST(SUM(pico % 1000000) AS BIGINT)";

impl Store {
    pub(super) async fn sum_up(&self, filter: &Filter, by: &[Dimension]) -> Result<Vec<Sum>, Failure> {
        let mut session = self.summing(self.long("sum up")).await?;
        let sums = if filter.tenants.is_empty() || !is_of_days(filter, by) {
            add_up(&mut session, "sums", filter, by).await?
        } else {
            let mut astray = HashSet::new();
            for row in &session.rows(sqlx::query(ASTRAY)).await? {
                astray.insert(TenantId::new(Columns::of(row).text()?));
            }
            let split = filter.tenants.iter().cloned().partition(|tenant| astray.contains(tenant));
            let (hourly, daily): (Vec<TenantId>, Vec<TenantId>) = split;
            let mut sums = Vec::new();
            for (table, tenants) in [("spent", daily), ("sums", hourly)] {
                if !tenants.is_empty() {
                    let filter = Filter { tenants, ..filter.clone() };
                    sums.extend(add_up(&mut session, table, &filter, by).await?);
                }
            }
            sums
        };
        session.commit().await?;
        // Days come from the database, months are made of them here.
        Ok(if by.contains(&Dimension::Month) { together(sums) } else { sums })
    }
}

/// Tenants of which some sums are not in `spent`: those that the version before has posted for.
const ASTRAY: &str = "SELECT DISTINCT tenant FROM sums WHERE carried <> calls";

/// Whether it can be told from what is summed up by the day and without tags.
fn is_of_days(filter: &Filter, by: &[Dimension]) -> bool {
    let whole = |at: Option<Timestamp>| at.is_none_or(|at| at.millis() % DAY_MILLIS == 0);
    let finer = by.iter().any(|by| matches!(by, Dimension::Tag | Dimension::Hour));
    !finer && filter.tag.is_none() && filter.key.is_none() && whole(filter.from) && whole(filter.until)
}

async fn add_up(
    session: &mut Session<'_>,
    table: &'static str,
    filter: &Filter,
    by: &[Dimension],
) -> Result<Vec<Sum>, Failure> {
    let (time, named): (_, fn(Dimension) -> &'static str) =
        if table == "spent" { ("day", kept) } else { ("hour", column) };
    let condition = Condition::of(filter, time);
    let split: String = by.iter().flat_map(|dimension| [named(*dimension), ", "]).collect();
    let sql = format!("SELECT {split}{SUMMED} FROM {table}{} GROUP BY {split}currency", condition.sql());
    let rows = session.rows(condition.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
    rows.iter().map(|row| read_sum(row, by)).collect()
}

/// What rows of `spent` are split by.
const fn kept(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Key => "CASE WHEN key = '' THEN NULL ELSE substr(key, 2) END",
        Dimension::Price => "CASE WHEN price = '' THEN NULL ELSE substr(price, 2) END",
        Dimension::Plan => "CASE WHEN plan = '' THEN NULL ELSE substr(plan, 2) END",
        Dimension::Day | Dimension::Month => "day",
        other => column(other),
    }
}

/// What rows are split by.
pub(super) const fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tenant => "tenant",
        Dimension::Key => "key",
        Dimension::Model => "model",
        Dimension::Tag => "tag",
        Dimension::Price => "price",
        Dimension::Plan => "plan",
        Dimension::Hour => "hour",
        Dimension::Day | Dimension::Month => "hour - hour % 86400000",
    }
}

pub(super) fn read_sum(row: &AnyRow, by: &[Dimension]) -> Result<Sum, Failure> {
    let mut columns = Columns::of(row);
    let mut of = Vec::with_capacity(by.len());
    for dimension in by {
        of.push(match dimension {
            Dimension::Hour | Dimension::Day => Some(columns.number()?.to_string()),
            Dimension::Month => Some(month(columns.number()?)?),
            _ => columns.maybe_text()?.map(str::to_owned),
        });
    }
    let currency = columns.currency()?;
    let (calls, estimated) = (columns.count()?, columns.count()?);
    let usage = read_usage(&mut columns)?;
    let gpu_millis = columns.count()?;
    let amount = summed_money(&mut columns)?;
    Ok(Sum { of, calls, estimated, usage, gpu_millis, currency, amount })
}

/// Reads a sum of money: units, millionths, and 10⁻¹² units.
pub(super) fn summed_money(columns: &mut Columns<'_>) -> Result<Money, Failure> {
    let (units, micro, pico) = (columns.number()?, columns.number()?, columns.number()?);
    let whole = i128::from(units) * 1_000_000_000_000;
    Ok(Money::from_pico(whole + i128::from(micro) * 1_000_000 + i128::from(pico)))
}

/// The month of a point in time, UTC: `2026-11`.
fn month(millis: i64) -> Result<String, Failure> {
    let at = jiff::Timestamp::from_millisecond(millis);
    let at = at.map_err(|_| Failure::broken(format!("{millis} is beyond any calendar")))?;
    let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
    Ok(format!("{:04}-{:02}", date.year(), date.month()))
}

/// Adds up rows that are the sum of the same.
fn together(sums: Vec<Sum>) -> Vec<Sum> {
    let mut groups: HashMap<(Vec<Option<String>>, Currency), Sum> = HashMap::new();
    for sum in sums {
        match groups.get_mut(&(sum.of.clone(), sum.currency)) {
            Some(group) => add(group, &sum),
            None => drop(groups.insert((sum.of.clone(), sum.currency), sum)),
        }
    }
    groups.into_values().collect()
}

fn add(to: &mut Sum, sum: &Sum) {
    to.usage = to.usage.and(&sum.usage);
    to.calls += sum.calls;
    to.estimated += sum.estimated;
    to.gpu_millis = to.gpu_millis.saturating_add(sum.gpu_millis);
    to.amount += sum.amount;
}
