//! Many rows as one text.
//!
//! A row costs the drivers more to hand over than to read: each value is copied, and each row crosses from SQLite's thread
//! to ours. Where hundreds of thousands are wanted at once (a gateway starting), the database joins a page of them into
//! one text, in SQL that both know, and they are taken apart here.
//!
//! Every value ends with a mark and a letter. The mark inside a value is followed by another letter, so any text goes
//! through unharmed.

use std::borrow::Cow;

use sqlx::AssertSqlSafe;

use super::columns::{Columns, Fields};
use super::failure::Failure;
use super::session::Session;

/// Stands before each of the letters; rare in texts.
const MARK: char = '\u{1f}';
const ITSELF: &str = "\u{1f}0";
const END: &str = "\u{1f}1";
const MISSING: &str = "\u{1f}2";
/// Bound: rows in a page: some hundred KiB, and a hundred pages for a large registry.
const PAGE: i64 = 4_096;

/// Values packed one after the other.
struct Packed<'p>(&'p str);

/// Reads all rows of a table that fulfil a condition, by its id, page by page; `number` is the condition's `$7` if it has
/// one.
pub(super) async fn each<T>(
    session: &mut Session<'_>,
    (table, columns): (&'static str, &'static [&'static str]),
    (condition, number): (&'static str, Option<i64>),
    read: impl Fn(&mut dyn Fields) -> Result<T, Failure>,
    mut take: impl FnMut(Vec<T>),
) -> Result<(), Failure> {
    let values: Vec<String> =
        columns.iter().map(|column| format!("COALESCE(replace(CAST({column} AS TEXT), $1, $2) || $3, $4)")).collect();
    let sql: std::sync::Arc<str> = format!(
        "SELECT string_agg(packed, ''), MAX(id), COUNT(*) FROM (SELECT id, {} AS packed FROM {table} \
         WHERE id > $5 AND {condition} ORDER BY id LIMIT $6) AS page",
        values.join(" || ")
    )
    .into();
    let mut after = String::new();
    loop {
        let mark = MARK.to_string();
        let page = sqlx::query(AssertSqlSafe(std::sync::Arc::clone(&sql)));
        let page = page.bind(mark).bind(ITSELF).bind(END).bind(MISSING).bind(after.as_str()).bind(PAGE);
        let page = number.into_iter().fold(page, |page, number| page.bind(number));
        let Some(page) = session.row(page).await? else { break };
        let mut columns = Columns::of(&page);
        let (text, last, count) = (columns.maybe_text()?, columns.maybe_text()?, columns.number()?);
        let mut packed = Packed(text.unwrap_or_default());
        let rows = (0..count).map(|_| read(&mut packed));
        take(rows.collect::<Result<Vec<T>, Failure>>()?);
        match last {
            Some(last) if count == PAGE => after = last.to_owned(),
            _ => break,
        }
    }
    Ok(())
}

impl Packed<'_> {
    fn next(&mut self) -> Result<Option<Cow<'_, str>>, Failure> {
        let cut = || Failure::broken("a packed row is cut off");
        let (mut from, mut marks) = (0, false);
        loop {
            let at = self.0.get(from..).and_then(|rest| rest.find(MARK)).ok_or_else(cut)? + from;
            let letter = self.0.as_bytes().get(at + 1).ok_or_else(cut)?;
            if *letter == b'0' {
                (from, marks) = (at + 2, true);
                continue;
            }
            let missing = *letter == b'2';
            let (value, rest) = (self.0.get(..at).ok_or_else(cut)?, self.0.get(at + 2..).ok_or_else(cut)?);
            self.0 = rest;
            let plain = || if marks { value.replace(ITSELF, "\u{1f}").into() } else { Cow::Borrowed(value) };
            return Ok((!missing).then(plain));
        }
    }
}

impl Fields for Packed<'_> {
    fn maybe_text(&mut self) -> Result<Option<Cow<'_, str>>, Failure> {
        self.next()
    }

    fn maybe_number(&mut self) -> Result<Option<i64>, Failure> {
        let number = |text: Cow<'_, str>| {
            text.parse().map_err(|_| Failure::broken(format!("`{text}` stands where a number should")))
        };
        self.next()?.map(number).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_packed_is_unpacked() {
        let values = [Some(""), None, Some("\u{1f}"), Some("a\u{1f}1b\u{1f}\u{1f}2"), Some("租户"), Some("-12"), None];
        let pack = |value: &Option<&str>| value.map_or(MISSING.to_owned(), |text| text.replace(MARK, ITSELF) + END);
        let text: String = values.iter().map(pack).collect();
        let mut packed = Packed(&text);
        for value in values {
            assert_eq!(packed.next().unwrap().as_deref(), value);
        }
        assert!(packed.next().is_err());
        assert_eq!(Packed("-12\u{1f}1").maybe_number().unwrap(), Some(-12));
        assert!(Packed("x\u{1f}1").maybe_number().is_err());
        assert!(Packed("x\u{1f}").next().is_err() && Packed("x").next().is_err());
    }
}
