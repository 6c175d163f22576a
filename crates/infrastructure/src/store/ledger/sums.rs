//! Sums over charges, from what was summed up by the hour.

use std::collections::HashMap;

use kernel::store::ledger::{Dimension, Filter, Sum};
use kernel::{Currency, Money};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::read::Condition;
use super::rows::read_usage;
use crate::store::Store;
use crate::store::columns::Columns;
use crate::store::failure::Failure;

/// What is summed up. The small part of money in two halves, so that the sum of millions stays within 64 bits.
pub(super) const SUMMED: &str = "currency, CAST(SUM(calls) AS BIGINT), CAST(SUM(estimated) AS BIGINT), \
    CAST(SUM(input) AS BIGINT), CAST(SUM(cached) AS BIGINT), CAST(SUM(cache_write) AS BIGINT), \
    CAST(SUM(audio_input) AS BIGINT), CAST(SUM(output) AS BIGINT), CAST(SUM(reasoning) AS BIGINT), \
    CAST(SUM(audio_output) AS BIGINT), CAST(SUM(images) AS BIGINT), CAST(SUM(gpu_millis) AS BIGINT), \
    CAST(SUM(units) AS BIGINT), CAST(SUM(pico / 1000000) AS BIGINT), CAST(SUM(pico % 1000000) AS BIGINT) FROM sums";

impl Store {
    pub(super) async fn sum_up(&self, filter: &Filter, by: &[Dimension]) -> Result<Vec<Sum>, Failure> {
        let condition = Condition::of(filter, "hour");
        let split: String = by.iter().flat_map(|dimension| [column(*dimension), ", "]).collect();
        let sql = format!("SELECT {split}{SUMMED}{} GROUP BY {split}currency", condition.sql());
        let mut session = self.summing(self.long("sum up")).await?;
        let rows = session.rows(condition.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
        session.done();
        let sums: Vec<Sum> = rows.iter().map(|row| read_sum(row, by)).collect::<Result<_, _>>()?;
        // Days come from the database, months are made of them here.
        Ok(if by.contains(&Dimension::Month) { together(sums) } else { sums })
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
