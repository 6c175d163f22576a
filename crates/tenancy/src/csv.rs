//! Tables as CSV, after RFC 4180, that no spreadsheet takes for formulas.
//!
//! Names in our tables come from clients: a tag, a model. A cell that begins like a formula is written with an apostrophe
//! before it, which spreadsheets show as text. Numbers of our own making are written as they are, minus signs included.

use kernel::Money;

/// A table being written.
#[derive(Debug, Default)]
pub(crate) struct Table(String);

/// One cell.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// Words from anywhere.
    Text(String),
    /// A number that we made.
    Number(String),
    /// An amount of money.
    Amount(Money),
    /// Nothing.
    Empty,
}

/// What spreadsheets take for the beginning of a formula, full-width forms included.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

// === impl Table ===

impl Table {
    /// With a head.
    pub(crate) fn new(head: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(head.iter().map(|name| Cell::text(*name)));
        table
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        for (at, cell) in cells.into_iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            match cell {
                Cell::Text(text) => self.text(&text),
                Cell::Number(number) => self.0.push_str(&number),
                Cell::Amount(amount) => self.0.push_str(&amount.to_string()),
                Cell::Empty => {}
            }
        }
        self.0.push_str("\r\n");
    }

    /// The whole of it.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn text(&mut self, text: &str) {
        let guard = if text.trim_start_matches([' ', '\n', '"']).starts_with(FORMULA) { "'" } else { "" };
        if text.contains([',', '"', '\r', '\n']) || text.starts_with(' ') || text.ends_with(' ') {
            self.0.push('"');
            self.0.push_str(guard);
            self.0.push_str(&text.replace('"', "\"\""));
            self.0.push('"');
        } else {
            self.0.push_str(guard);
            self.0.push_str(text);
        }
    }
}

// === impl Cell ===

impl Cell {
    /// Words.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Words, if there are any.
    pub(crate) fn maybe(text: Option<&str>) -> Self {
        text.map_or(Self::Empty, Self::text)
    }

    /// A number.
    pub(crate) fn number(number: impl ToString) -> Self {
        Self::Number(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_never_formulas() {
        let check = |text: &str, expected: &str| {
            let mut table = Table::default();
            table.row([Cell::text(text), Cell::number(-1)]);
            assert_eq!(table.finish(), format!("{expected},-1\r\n"), "{text:?}");
        };
        check("plain", "plain");
        check("a,b", "\"a,b\"");
        check("say \"hi\"", "\"say \"\"hi\"\"\"");
        check("two\r\nlines", "\"two\r\nlines\"");
        check("=1+1", "'=1+1");
        check("@SUM(A1),B", "\"'@SUM(A1),B\"");
        check("-2", "'-2");
        check("\t=1", "'\t=1");
        check("  =1", "\"'  =1\"");
        check("\"=1", "\"'\"\"=1\"");
        check("＝1", "'＝1");
        check("", "");
    }
}
