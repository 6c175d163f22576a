//! The text a configuration was read from, by line.
//!
//! Kept so that a fault found much later can still quote its line. Knows line breaks and columns, not YAML.

use std::ops::Range;

use super::fault::Position;

// Bound: a quoted line must fit a terminal; longer ones are shown around the column.
const QUOTE_CHARS: usize = 120;

pub(super) struct Source {
    file: String,
    text: String,
    lines: Vec<Line>,
}

struct Line {
    bytes: Range<usize>,
    /// In characters, counted once: files of one long line are asked for it at every value.
    width: usize,
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Source {
        // A byte order mark is no part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let lines = lines(&text);
        let file = file.to_owned();
        Source { file, text, lines }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The line of this number (from 1), without its break.
    pub(super) fn line(&self, number: usize) -> Option<&str> {
        let line = self.lines.get(number.checked_sub(1)?)?;
        self.text.get(line.bytes.clone())
    }

    /// The nearest place that exists: parsers point past the end when something is missing there.
    pub(super) fn within(&self, position: Position) -> Position {
        let line = position.line.clamp(1, self.lines.len().max(1));
        let width = self.lines.get(line - 1).map_or(0, |line| line.width);
        let column = if line < position.line { width + 1 } else { position.column.clamp(1, width + 1) };
        Position { line, column }
    }

    /// The byte offset of a position.
    pub(super) fn offset(&self, position: Position) -> Option<usize> {
        let start = self.lines.get(position.line.checked_sub(1)?)?.bytes.start;
        let line = self.line(position.line)?;
        let column = position.column.checked_sub(1)?;
        let inside = line.char_indices().nth(column).map_or(line.len(), |c| c.0);
        Some(start + inside)
    }

    /// The position of a byte offset.
    pub(super) fn position(&self, offset: usize) -> Position {
        let index = self.lines.partition_point(|line| line.bytes.start <= offset);
        let line = index.max(1);
        let start = self.lines.get(line - 1).map_or(0, |line| line.bytes.start);
        let before = self.text.get(start..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }

    /// The line at a position, fit for a terminal, and the blanks that put a caret under the column.
    pub(super) fn quote(&self, position: Position) -> Option<(String, String)> {
        let line = self.line(position.line)?;
        let before = position.column.saturating_sub(1);
        let skipped = before.saturating_sub(QUOTE_CHARS / 2);
        let shown = line.chars().skip(skipped).take(QUOTE_CHARS);
        // Whatever a file holds, it must not steer the terminal.
        let quote: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let under = quote.chars().take(before - skipped);
        let blanks = under.map(|c| if is_wide(c) { "  " } else { " " }).collect();
        Some((quote, blanks))
    }
}

/// Where the lines lie; YAML breaks them at `\n`, `\r\n` and a lone `\r`.
fn lines(text: &str) -> Vec<Line> {
    let line = |bytes: Range<usize>| {
        let width = text.get(bytes.clone()).map_or(0, |line| line.chars().count());
        Line { bytes, width }
    };
    let mut lines = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' if before == Some(b'\r') => start = at + 1,
            b'\n' | b'\r' => {
                lines.push(line(start..at));
                start = at + 1;
            }
            _ => {}
        }
        before = Some(byte);
    }
    lines.push(line(start..text.len()));
    lines
}

/// Whether a terminal gives the character two cells (the East Asian and emoji blocks; near enough for a caret).
fn is_wide(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_break_ends_a_line() {
        let source = Source::new("f", "\u{feff}a\r\nb\rc\nd");
        let lines: Vec<_> = (1..=5).map(|number| source.line(number)).collect();
        assert_eq!(lines, [Some("a"), Some("b"), Some("c"), Some("d"), None]);
    }

    #[test]
    fn a_position_survives_the_way_to_an_offset_and_back() {
        let source = Source::new("f", "ab\r\n模型: x\n\n");
        for (line, column) in [(1, 1), (1, 3), (2, 1), (2, 3), (2, 6), (3, 1), (4, 1)] {
            let position = Position { line, column };
            let offset = source.offset(position).unwrap();
            assert_eq!(source.position(offset), position);
        }
    }

    #[test]
    fn the_caret_stands_under_the_column_also_behind_wide_characters() {
        let source = Source::new("f", "模型: \tx");
        let quoted = source.quote(Position { line: 1, column: 6 });
        assert_eq!(quoted, Some(("模型:  x".into(), " ".repeat(7))));
    }

    #[test]
    fn a_long_line_is_quoted_around_its_column() {
        let source = Source::new("f", &format!("{}X{}", "a".repeat(5000), "b".repeat(5000)));
        let column = 5001;
        let (line, blanks) = source.quote(Position { line: 1, column }).unwrap();
        assert_eq!(line.chars().count(), QUOTE_CHARS);
        assert_eq!(line.chars().nth(blanks.len()), Some('X'));
    }
}
