//! Rows as a table for people, one thing as lines of fields, or anything as JSON.

use serde_json::Value;

use super::output::say;

/// Prints rows: columns by title and path. Widths are in characters.
pub(super) fn rows(rows: &[Value], columns: &[(&str, &str)]) {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>();
    let cells = rows.iter().map(|row| columns.iter().map(|(_, path)| cell(row.pointer(path))).collect());
    let table: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let width = |nth: usize| table.iter().filter_map(|row| row.get(nth)).map(|cell| cell.chars().count()).max();
    for row in &table {
        let mut line = String::new();
        for (nth, cell) in row.iter().enumerate() {
            let pad = width(nth).unwrap_or_default() - cell.chars().count();
            line.push_str(cell);
            line.push_str(&" ".repeat(pad + 2));
        }
        say!("{}", line.trim_end());
    }
}

/// Prints one thing, field by field.
pub(super) fn one(thing: &Value) {
    let Value::Object(fields) = thing else { return };
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or_default();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        say!("{name:width$}  {}", cell(Some(value)));
    }
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    };
    // What somebody named must not move the cursor of whoever looks.
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
