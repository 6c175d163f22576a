//! Many rows in one statement.
//!
//! A statement's text depends on how many rows it takes, and each text is prepared once per connection: rows go in
//! groups of a few fixed sizes, so that a handful of prepared statements serve batches of any size.
//!
//! SQLite's places have no names here: it looks a name up by reading all names before it, so that binding the thousands
//! of values of one statement would take longer than inserting them.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use sqlx::AssertSqlSafe;

use super::engine::Engine;
use super::session::Statement;

/// Bound: at most so many rows in a statement: with 25 columns a fifth of the values SQLite takes (32,766), and past it
/// nothing gets faster.
const SIZES: [usize; 4] = [256, 32, 4, 1];

/// A statement over a list of rows: what stands before `(…), (…) …` and after it, neither with a value. Only constants: values are
/// bound.
pub(super) struct Bulk {
    before: &'static str,
    columns: usize,
    after: &'static str,
    sqlite: Texts,
    postgres: Texts,
}

/// The statement for each size.
type Texts = [OnceLock<Arc<str>>; SIZES.len()];

// === impl Bulk ===

impl Bulk {
    /// A statement over rows of so many columns.
    pub(super) const fn new(before: &'static str, columns: usize, after: &'static str) -> Self {
        Self {
            before,
            columns,
            after,
            sqlite: [const { OnceLock::new() }; SIZES.len()],
            postgres: [const { OnceLock::new() }; SIZES.len()],
        }
    }

    /// The rows in groups, each with the statement it is to be bound to.
    pub(super) fn over<'r, 'q, T>(
        &'static self,
        engine: Engine,
        rows: &'r [T],
    ) -> impl Iterator<Item = (Statement<'q>, &'r [T])> {
        let texts = match engine {
            Engine::Sqlite => &self.sqlite,
            Engine::Postgres => &self.postgres,
        };
        let mut rest = rows;
        std::iter::from_fn(move || {
            let (size, text) = SIZES.iter().zip(texts).find(|(size, _)| **size <= rest.len())?;
            let (group, left) = rest.split_at_checked(*size)?;
            rest = left;
            let text = text.get_or_init(|| self.text(engine, *size));
            Some((sqlx::query(AssertSqlSafe(Arc::clone(text))), group))
        })
    }

    fn text(&self, engine: Engine, rows: usize) -> Arc<str> {
        let mut text = String::from(self.before);
        for row in 0..rows {
            text.push_str(if row == 0 { " (" } else { ", (" });
            for column in 0..self.columns {
                text.push_str(if column == 0 { "" } else { ", " });
                // Writing to a String cannot fail.
                let _ = match engine {
                    Engine::Sqlite => text.write_char('?'),
                    Engine::Postgres => write!(text, "${}", row * self.columns + column + 1),
                };
            }
            text.push(')');
        }
        text.push_str(self.after);
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PAIRS: Bulk = Bulk::new("INSERT INTO t (a, b) VALUES", 2, " RETURNING a");

    #[test]
    fn every_row_is_in_one_group_and_each_value_has_a_place() {
        let rows: Vec<u32> = (0..256 * 2 + 32 + 4 + 3).collect();
        let groups: Vec<&[u32]> = PAIRS.over(Engine::Postgres, &rows).map(|(_, group)| group).collect();
        assert_eq!(groups.concat(), rows);
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [256, 256, 32, 4, 1, 1, 1]);
        let text = |engine| PAIRS.text(engine, 2).to_string();
        assert_eq!(text(Engine::Postgres), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) RETURNING a");
        assert_eq!(text(Engine::Sqlite), "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) RETURNING a");
    }
}
