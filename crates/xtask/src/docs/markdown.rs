//! Markdown as the pages use it: tables, links to headings.

use std::fmt::Write;

/// A table, or nothing where there are no rows.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let cells = row.each_ref().map(|cell| one_line(cell).replace('|', "\\|"));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

/// Running text without line breaks.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text as it is typed.
pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A link to the heading that consists of `text` as code, by the rule GitHub makes anchors by.
pub(super) fn link(text: &str) -> String {
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
    format!("[`{text}`](#{anchor})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stay_in_their_row_and_column() {
        let rows = [["a".into(), "one\n  two | three".into()]];
        assert_eq!(table(["k", "v"], &rows), "| k | v |\n|---|---|\n| a | one two \\| three |\n");
    }

    #[test]
    fn links_lead_to_the_anchor_of_their_heading() {
        assert_eq!(link("models[].pool"), "[`models[].pool`](#modelspool)");
        assert_eq!(link("sluice key create"), "[`sluice key create`](#sluice-key-create)");
    }
}
