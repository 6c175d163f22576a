//! Usage reports: what was consumed and what it costs, split by whatever is asked for, page by page.
//!
//! Clients choose tags, so that a report may have any number of rows: the ledger sorts them, and a page is all that is here.

use std::fmt::Write;
use std::sync::Arc;

use kernel::store::Ledger;
use kernel::store::ledger::{Dimension, Filter, Sum, SumPage};
use kernel::{Currency, Money, Timestamp};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::csv::{Cell, Table};
use crate::invoice::{Class, Month, Trouble};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Of which part of the ledger. The time is needed, in whole hours.
    pub filter: Filter,
    /// Split by what, in this order.
    pub by: Vec<Dimension>,
    /// After the row that a page before ended with: its `next`.
    pub after: Option<String>,
    /// How many rows at most.
    pub most: usize,
}

/// One page of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its rows, in order of what they are split by.
    pub rows: Vec<Row>,
    /// What to ask for the next page with; `None`: there is none.
    pub next: Option<String>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is about, by dimension: times as `2026-11-25T13:00:00Z`, `2026-11-25`, `2026-11`. `None` where calls had
    /// none (no key, no tag).
    pub of: Vec<(Dimension, Option<String>)>,
    /// What was consumed.
    pub sum: Sum,
}

/// Bound: a page that can be read at once; some hundred KiB.
pub const ROWS_MAX: usize = 10_000;
/// How many rows a page has unless said otherwise.
pub const ROWS: usize = 1_000;
/// Bound: more splits at once than there are dimensions but the three times make no sense.
const BY_MAX: usize = 7;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Bound: so that no question makes the store sum up millions of rows: how long a time may be split by hours, by days,
/// and by months or not at all.
const SPANS: [(Dimension, i64, &str); 3] = [
    (Dimension::Hour, 31 * DAY, "31 days by the hour"),
    (Dimension::Day, 366 * DAY, "366 days by the day"),
    (Dimension::Month, 3660 * DAY, "ten years"),
];

/// Names of dimensions, as in queries and rows.
pub const DIMENSIONS: [(&str, Dimension); 9] = [
    ("tenant", Dimension::Tenant),
    ("key", Dimension::Key),
    ("model", Dimension::Model),
    ("tag", Dimension::Tag),
    ("plan", Dimension::Plan),
    ("price", Dimension::Price),
    ("hour", Dimension::Hour),
    ("day", Dimension::Day),
    ("month", Dimension::Month),
];

/// The name of a dimension.
pub fn name(dimension: Dimension) -> &'static str {
    DIMENSIONS.iter().find(|(_, known)| *known == dimension).map_or("", |(name, _)| name)
}

/// Reads `model,day`.
///
/// # Errors
/// Where a name is unknown or there twice.
pub fn dimensions(text: &str) -> Result<Vec<Dimension>, Trouble> {
    let mut by = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let Some((_, dimension)) = DIMENSIONS.iter().find(|(name, _)| *name == word) else {
            let known: Vec<_> = DIMENSIONS.iter().map(|(name, _)| *name).collect();
            return Err(Trouble::Refused(format!("Cannot split by `{word}`: there are {}.", known.join(", "))));
        };
        if by.contains(dimension) {
            return Err(Trouble::Refused(format!("`{word}` is given twice.")));
        }
        by.push(*dimension);
    }
    let times = by.iter().filter(|by| matches!(by, Dimension::Hour | Dimension::Day | Dimension::Month)).count();
    if times > 1 || by.len() > BY_MAX {
        return Err(Trouble::Refused("Split by one of hour, day and month.".into()));
    }
    Ok(by)
}

/// Makes one page of a report.
///
/// # Errors
/// `Refused` where the time is missing, too long or not in whole hours, or `after` is none that a page ended with.
pub async fn report(ledger: &Arc<dyn Ledger>, query: &Query) -> Result<Report, Trouble> {
    check_span(query)?;
    let after = query.after.as_deref();
    let after = after.map(|cursor| read_cursor(cursor, &query.by).ok_or_else(bad_cursor)).transpose()?;
    let most = query.most.clamp(1, ROWS_MAX);
    // One more than is shown tells whether there are more.
    let asked = u32::try_from(most + 1).unwrap_or(u32::MAX);
    let page = SumPage { filter: query.filter.clone(), by: query.by.clone(), after, most: asked };
    let mut sums = ledger.sums_page(&page).await?;
    let more = sums.len() > most;
    sums.truncate(most);
    let next = sums.last().filter(|_| more).map(cursor);
    let rows = sums.into_iter().map(|sum| {
        let of = query.by.iter().copied().zip(sum.of.clone());
        Row { of: of.map(|(by, of)| (by, shown(by, of))).collect(), sum }
    });
    Ok(Report { rows: rows.collect(), next })
}

fn check_span(query: &Query) -> Result<(), Trouble> {
    let (Some(from), Some(until)) = (query.filter.from, query.filter.until) else {
        return Err(Trouble::Refused("Say from when until when.".into()));
    };
    if from >= until || from.millis() % HOUR != 0 || until.millis() % HOUR != 0 {
        return Err(Trouble::Refused("The time must be whole hours, the end after the beginning.".into()));
    }
    let finest = SPANS.iter().find(|(split, ..)| query.by.contains(split)).or(SPANS.last());
    match finest {
        Some((_, longest, words)) if until.millis() - from.millis() > *longest => {
            Err(Trouble::Refused(format!("The time is too long: at most {words}.")))
        }
        _ => Ok(()),
    }
}

fn bad_cursor() -> Trouble {
    Trouble::Refused("`after` must be the `next` of the page before.".into())
}

/// Times as people and programs read them; all else as it is.
fn shown(by: Dimension, of: Option<String>) -> Option<String> {
    let millis = || of.as_deref().and_then(|text| text.parse::<i64>().ok());
    let at = |millis| jiff::Timestamp::from_millisecond(millis).ok().map(|at| at.to_string());
    match by {
        Dimension::Hour => millis().and_then(at).or(of),
        Dimension::Day => millis().map(|millis| crate::invoice::Day::of(Timestamp(millis)).to_string()).or(of),
        _ => of,
    }
}

/// What comes after a row, so that it survives URLs whatever is in names: each part with a byte before that says whether it
/// is there and one behind that no text has, then the currency, all as hex.
fn cursor(last: &Sum) -> String {
    let mut key = String::new();
    for of in &last.of {
        if let Some(of) = of {
            key.push('\u{1}');
            key.push_str(of);
        }
        key.push('\0');
    }
    key.push_str(last.currency.as_str());
    key.bytes().fold(String::with_capacity(key.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads what [`cursor`] writes, for a report that is split so.
fn read_cursor(cursor: &str, by: &[Dimension]) -> Option<(Vec<Option<String>>, Currency)> {
    let digits = cursor.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let key = String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()?;
    let (mut of, mut rest) = (Vec::with_capacity(by.len()), key.as_str());
    for by in by {
        let (part, behind) = rest.split_once('\0')?;
        let part = if part.is_empty() { None } else { Some(part.strip_prefix('\u{1}')?.to_owned()) };
        let sense = match by {
            Dimension::Hour | Dimension::Day => part.as_deref().is_some_and(|at| at.parse::<i64>().is_ok()),
            Dimension::Month => part.as_deref().is_some_and(|month| Month::parse(month).is_some()),
            _ => true,
        };
        if !sense {
            return None;
        }
        of.push(part);
        rest = behind;
    }
    Some((of, Currency::parse(rest)?))
}

// === impl Row ===

impl Row {
    /// Columns after those it is split by: names and values, in order.
    fn columns(&self) -> Vec<(&'static str, Cell)> {
        let sum = &self.sum;
        let mut columns = vec![("calls", Cell::number(sum.calls)), ("estimated_calls", Cell::number(sum.estimated))];
        columns.push(("input_tokens", Cell::number(sum.usage.input.0)));
        columns.push(("cached_input_tokens", Cell::number(Class::Cached.of(&sum.usage))));
        columns.push(("cache_write_tokens", Cell::number(Class::CacheWrite.of(&sum.usage))));
        columns.push(("audio_input_tokens", Cell::number(Class::AudioInput.of(&sum.usage))));
        columns.push(("output_tokens", Cell::number(sum.usage.output.0)));
        columns.push(("reasoning_tokens", Cell::number(Class::Reasoning.of(&sum.usage))));
        columns.push(("audio_output_tokens", Cell::number(Class::AudioOutput.of(&sum.usage))));
        columns.push(("images", Cell::number(sum.usage.images)));
        columns.push(("gpu_ms", Cell::number(sum.gpu_millis)));
        columns.push(("cost", Cell::Amount(sum.amount)));
        columns.push(("currency", Cell::text(sum.currency.as_str())));
        columns
    }
}

/// One flat object: what it is split by, then the counts.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (by, of) in &self.of {
            map.serialize_entry(name(*by), of)?;
        }
        for (name, cell) in self.columns() {
            match cell {
                Cell::Number(number) => map.serialize_entry(name, &number.parse::<u64>().unwrap_or(u64::MAX))?,
                Cell::Amount(amount) => map.serialize_entry(name, &amount)?,
                Cell::Text(text) => map.serialize_entry(name, &text)?,
                Cell::Empty => map.serialize_entry(name, &())?,
            }
        }
        map.end()
    }
}

// === impl Report ===

impl Report {
    /// As a table, with a head. What it is split by must be that of the query.
    pub fn to_csv(&self, by: &[Dimension]) -> String {
        let empty = Row { of: Vec::new(), sum: nothing() };
        let head: Vec<_> = by.iter().map(|by| name(*by)).chain(empty.columns().iter().map(|(name, _)| *name)).collect();
        let mut table = Table::new(&head);
        for row in &self.rows {
            let of = row.of.iter().map(|(_, of)| Cell::maybe(of.as_deref()));
            table.row(of.chain(row.columns().into_iter().map(|(_, cell)| cell)));
        }
        table.finish()
    }
}

fn nothing() -> Sum {
    Sum {
        of: Vec::new(),
        calls: 0,
        estimated: 0,
        usage: kernel::Usage::default(),
        gpu_millis: 0,
        currency: Currency::USD,
        amount: Money::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::tests::wait;
    use crate::invoice::tests::world::{World, at, month};

    fn query(by: &str, most: usize) -> Query {
        let filter = Filter { from: Some(at("2026-11-01")), until: Some(at("2026-12-01")), ..Filter::default() };
        Query { filter, by: dimensions(by).unwrap(), after: None, most }
    }

    fn world() -> (World, Arc<dyn Ledger>) {
        let mut world = World::new(5);
        wait(world.calls(200, month("2026-11")));
        let ledger = Arc::clone(&world.shelf) as Arc<dyn Ledger>;
        (world, ledger)
    }

    #[test]
    fn pages_together_are_the_whole_report() {
        let (_, ledger) = world();
        for by in ["hour,model", "tag,key", "month", ""] {
            let whole = wait(report(&ledger, &query(by, ROWS))).unwrap();
            assert_eq!(whole.next, None);
            let (mut rows, mut after) = (Vec::new(), None);
            loop {
                let page = wait(report(&ledger, &Query { after, ..query(by, 3) })).unwrap();
                assert!(page.rows.len() <= 3);
                rows.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(rows, whole.rows, "{by}");
        }
    }

    #[test]
    fn reports_come_to_what_charges_do_however_they_are_split() {
        let (world, ledger) = world();
        let charged = world.shelf.change(|rows| rows.charges.clone());
        let dollars = charged.iter().filter(|charge| charge.currency == Currency::USD);
        let dollars: Money = dollars.map(|charge| charge.amount).sum();
        for by in ["", "tenant", "key", "model,day", "tag,price", "plan,hour"] {
            let rows = wait(report(&ledger, &query(by, ROWS_MAX))).unwrap().rows;
            assert_eq!(rows.iter().map(|row| row.sum.calls).sum::<u64>(), 200, "{by}");
            let cost = rows.iter().filter(|row| row.sum.currency == Currency::USD).map(|row| row.sum.amount);
            assert_eq!(cost.sum::<Money>(), dollars, "{by}");
        }
    }

    #[test]
    fn rows_say_in_words_what_they_are_about() {
        let (_, ledger) = world();
        let report = wait(report(&ledger, &query("day,tag", ROWS))).unwrap();
        let first = serde_json::to_value(&report.rows[0]).unwrap();
        assert_eq!((&first["day"], &first["tag"]), (&"2026-11-01".into(), &serde_json::Value::Null));
        let csv = report.to_csv(&dimensions("day,tag").unwrap());
        assert!(csv.starts_with("day,tag,calls,estimated_calls,input_tokens,") && csv.contains(",'=tag,"), "{csv}");
        assert_eq!(csv.lines().count(), report.rows.len() + 1);
        assert_eq!(shown(Dimension::Hour, Some("1795611600000".into())).unwrap(), "2026-11-25T13:00:00Z");
    }

    #[test]
    fn what_makes_no_sense_or_is_too_much_is_refused() {
        let (_, ledger) = world();
        let refused = |query: Query| matches!(wait(report(&ledger, &query)), Err(Trouble::Refused(_)));
        let span = |by: &str, until: Option<Timestamp>| {
            let query = query(by, ROWS);
            Query { filter: Filter { until, ..query.filter.clone() }, ..query }
        };
        assert!(refused(span("", None)) && refused(span("", Some(Timestamp(1)))));
        assert!(refused(span("hour", Some(at("2026-12-03")))) && !refused(span("day", Some(at("2026-12-03")))));
        for cursor in ["zz", "", "75", "75736400", "007573", "01780075736400"] {
            assert!(refused(Query { after: Some(cursor.into()), ..query("", 1) }), "{cursor}");
        }
        // One of a report that is split by something else.
        let other = wait(report(&ledger, &query("model", 1))).unwrap().next;
        assert!(other.is_some() && refused(Query { after: other.clone(), ..query("day", 1) }));
        assert!(refused(Query { after: other, ..query("", 1) }));
        for by in ["colour", "model,model", "hour,day"] {
            assert!(dimensions(by).is_err(), "{by}");
        }
    }
}
