//! Sums for reports, page by page.
//!
//! The database sorts and cuts, so that a report of millions of rows costs this process a page. A page begins behind a row:
//! what comes before it is left out before anything is added up.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kernel::store::ledger::{Dimension, Filter, Sum, SumPage};
use sqlx::AssertSqlSafe;

use super::read::Condition;
use super::sums::{SUMMED, column, read_sum};
use crate::store::Store;
use crate::store::failure::Failure;

/// Bound: months that one report can be split by: each is a branch of an expression.
const MONTHS_MAX: usize = 1_200;

impl Store {
    pub(super) async fn page_sums(&self, page: &SumPage) -> Result<Vec<Sum>, Failure> {
        let by: Vec<(Dimension, String)> =
            page.by.iter().map(|by| Ok((*by, expression(*by, &page.filter)?))).collect::<Result<_, Failure>>()?;
        let mut condition = Condition::of(&page.filter, "hour");
        if let Some((of, currency)) = &page.after {
            // (a, b, …) > (x, y, …), spelled out because what is missing compares with nothing.
            let mut before = " AND (";
            for (nth, ((dimension, column), last)) in by.iter().zip(of).enumerate() {
                condition.say(before);
                equal(&mut condition, by.iter().zip(of).take(nth))?;
                match last {
                    None => {
                        condition.say(column);
                        condition.say(" IS NOT NULL");
                    }
                    Some(last) => compare(&mut condition, *dimension, column, " > ", last)?,
                }
                before = " OR ";
            }
            condition.say(before);
            equal(&mut condition, by.iter().zip(of))?;
            condition.text("currency > ", currency.as_str().to_owned());
            condition.say(")");
        }
        let columns = |after: &str| by.iter().map(|(_, column)| format!("{column}{after}, ")).collect::<String>();
        let (split, order) = (columns(""), columns(" NULLS FIRST"));
        condition.say(&format!(" GROUP BY {split}currency ORDER BY {order}currency"));
        condition.number(" LIMIT ", i64::from(page.most));
        let sql = format!("SELECT {split}{SUMMED} FROM sums{}", condition.sql());
        let mut session = self.reporting(self.long("report")).await?;
        let rows = session.rows(condition.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
        session.done();
        rows.iter().map(|row| read_sum(row, &page.by)).collect()
    }
}

/// That the first parts are those of the last row, with an `AND` behind each.
fn equal<'a>(
    condition: &mut Condition,
    parts: impl Iterator<Item = (&'a (Dimension, String), &'a Option<String>)>,
) -> Result<(), Failure> {
    for ((dimension, column), last) in parts {
        match last {
            None => {
                condition.say(column);
                condition.say(" IS NULL");
            }
            Some(last) => compare(condition, *dimension, column, " = ", last)?,
        }
        condition.say(" AND ");
    }
    Ok(())
}

fn compare(
    condition: &mut Condition,
    dimension: Dimension,
    column: &str,
    how: &'static str,
    last: &str,
) -> Result<(), Failure> {
    let number = match dimension {
        Dimension::Hour | Dimension::Day => last.parse().ok(),
        Dimension::Month => format!("{last}-01").parse().ok().and_then(midnight),
        _ => {
            condition.say(column);
            condition.text(how, last.to_owned());
            return Ok(());
        }
    };
    let number = number.ok_or_else(|| Failure::broken(format!("`{last}` is no time a page can end with")))?;
    condition.say(column);
    condition.number(how, number);
    Ok(())
}

/// What rows are split by. Neither database has months that the other has: they are counted out.
fn expression(by: Dimension, filter: &Filter) -> Result<String, Failure> {
    let (Dimension::Month, Some(from), Some(until)) = (by, filter.from, filter.until) else {
        return match by {
            Dimension::Month => Err(Failure::broken("months need a beginning and an end")),
            other => Ok(column(other).to_owned()),
        };
    };
    let beyond = || Failure::broken("those months are beyond any calendar");
    let at = jiff::Timestamp::from_millisecond(from.millis()).map_err(|_| beyond())?;
    let mut month: Date = at.to_zoned(TimeZone::UTC).date().first_of_month();
    let mut sql = String::from("CASE");
    for _ in 0..MONTHS_MAX {
        let next = month.checked_add(jiff::Span::new().months(1)).map_err(|_| beyond())?;
        let (begin, end) = (midnight(month).ok_or_else(beyond)?, midnight(next).ok_or_else(beyond)?);
        if end >= until.millis() {
            return Ok(format!("{sql} WHEN hour < {end} THEN {begin} END"));
        }
        sql.push_str(&format!(" WHEN hour < {end} THEN {begin}"));
        month = next;
    }
    Err(beyond())
}

fn midnight(date: Date) -> Option<i64> {
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}
