//! The config, as `sluice schema` tells it: one section per object, in the order a file has them.
//!
//! Sections are headed by the place of their keys in a file (`models[].health`), not by the name of a type.

use std::collections::VecDeque;
use std::fmt::Write;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::NOTICE;
use super::markdown::{code, link, one_line, table};

const INTRODUCTION: &str = "\
A key that is not listed here is an error. Keys ending in `_ms` are milliseconds; a size is a number of bytes, or text
such as `64MiB`. `${VAR}` and `${VAR:-default}` in a value are replaced by environment variables. `sluice check -c FILE`
finds every fault of a file; `sluice schema` prints what this page is made from, for editors.";

/// More than this and the schema refers to itself.
const SECTIONS_MAX: usize = 500;

/// One object of the config.
struct Section<'a> {
    /// Where its keys stand in a file; empty at the top.
    path: String,
    schema: &'a Value,
}

/// What can be written as the value of one key.
struct Shape<'a> {
    /// For the type column.
    text: String,
    /// The section with its keys, if it has keys.
    section: Option<Section<'a>>,
    /// Words to choose from that are explained, and the explanation.
    words: Vec<(&'a str, &'a str)>,
}

/// The page.
pub(super) fn page(schema: &Value) -> anyhow::Result<String> {
    let mut out = format!("{NOTICE}\n\n# Configuration: `sluice.yaml`\n\n{INTRODUCTION}\n\n");
    let mut next = VecDeque::from([Section { path: String::new(), schema }]);
    let mut written = 0;
    while let Some(section) = next.pop_front() {
        ensure!(written < SECTIONS_MAX, "more than {SECTIONS_MAX} sections: does the schema refer to itself?");
        written += 1;
        // Depth first: what belongs to a section comes right after it.
        for deeper in section.write(schema, &mut out)?.into_iter().rev() {
            next.push_front(deeper);
        }
    }
    Ok(out)
}

impl<'a> Section<'a> {
    /// Writes the section and returns those below it.
    fn write(&self, root: &'a Value, out: &mut String) -> anyhow::Result<Vec<Section<'a>>> {
        if !self.path.is_empty() {
            let depth = self.path.matches('.').count();
            let about = self.schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let _ = write!(out, "\n{} `{}`\n\n{}\n\n", "#".repeat((depth + 2).min(4)), self.path, one_line(about));
        }
        let properties = self.schema.get("properties").and_then(Value::as_object);
        let required: Vec<&str> = list(self.schema.get("required")).iter().filter_map(Value::as_str).collect();
        let (mut rows, mut deeper, mut words) = (Vec::new(), Vec::new(), String::new());
        for (key, value) in properties.into_iter().flatten() {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let shape = shape(root, value, &path, key)?;
            let about = value.get("description").and_then(Value::as_str).unwrap_or_default();
            let default = default(value, required.contains(&key.as_str()), shape.section.is_some());
            rows.push([code(key), shape.text, default, about.to_owned()]);
            if !shape.words.is_empty() {
                let _ = write!(words, "\nValues of `{key}`:\n\n");
                for (word, about) in shape.words {
                    let _ = writeln!(words, "- `{word}`: {}", one_line(about));
                }
            }
            deeper.extend(shape.section);
        }
        out.push_str(&table(["key", "type", "default", "what it does"], &rows));
        out.push_str(&words);
        Ok(deeper)
    }
}

/// What a schema accepts. `key` is its name, which tells times from other numbers.
fn shape<'a>(root: &'a Value, schema: &'a Value, path: &str, key: &str) -> anyhow::Result<Shape<'a>> {
    let plain = |text: &str| Shape { text: text.to_owned(), section: None, words: Vec::new() };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.strip_prefix('#').context("a reference to another document")?;
        let target = root.pointer(name).with_context(|| format!("`{reference}` leads nowhere"))?;
        return shape(root, target, path, key);
    }
    if schema.get("properties").is_some() {
        let section = Some(Section { path: path.to_owned(), schema });
        return Ok(Shape { text: link(path), section, words: Vec::new() });
    }
    let choices = list(schema.get("anyOf").or_else(|| schema.get("oneOf")));
    let consts: Vec<(&str, &str)> = choices.iter().filter_map(explained).collect();
    if !consts.is_empty() && consts.len() == choices.len() {
        return Ok(Shape { text: words(consts.iter().map(|(word, _)| *word)), section: None, words: consts });
    }
    // Optional: `null` is the same as leaving the key out, and is not worth a word.
    if let [one] = choices.iter().filter(|choice| !is_null(choice)).collect::<Vec<_>>().as_slice() {
        return shape(root, one, path, key);
    }
    // A choice by the name of the only key.
    let keyed: Vec<(&str, &str)> = choices.iter().filter_map(keyed).collect();
    if !keyed.is_empty() && keyed.len() == choices.len() {
        let text = format!("one key of {}", words(keyed.iter().map(|(name, _)| *name)));
        return Ok(Shape { text, section: None, words: keyed });
    }
    // One, or a list of such.
    if let [one, many] = choices
        && many.get("items") == Some(one)
    {
        let one = shape(root, one, path, key)?;
        return Ok(Shape { text: format!("{}, or a list of them", one.text), ..one });
    }
    ensure!(choices.is_empty(), "{path}: a choice between several shapes: teach it to crates/xtask/src/docs/config.rs");
    if let Some(names) = schema.get("enum") {
        return Ok(plain(&words(list(Some(names)).iter().filter_map(Value::as_str))));
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        other => list(other).iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
    };
    Ok(match kinds.as_slice() {
        ["array"] => {
            let items = schema.get("items").with_context(|| format!("{path}: a list of what?"))?;
            let item = shape(root, items, &format!("{path}[]"), key)?;
            Shape { text: format!("list of {}", item.text), ..item }
        }
        ["object"] => {
            if schema.get("additionalProperties") == Some(&Value::Bool(true)) {
                return Ok(plain("any values by name"));
            }
            let values = schema.get("additionalProperties").filter(|values| values.is_object());
            let values = values.with_context(|| format!("{path}: an object without keys"))?;
            let value = shape(root, values, &format!("{path}.NAME"), key)?;
            Shape { text: format!("map of names to {}", value.text), ..value }
        }
        // Only sizes are written either way.
        ["integer", "string"] => plain("size"),
        ["integer"] if key.ends_with("_ms") => plain("milliseconds"),
        ["string"] => plain("text"),
        ["boolean"] => plain("`true` or `false`"),
        ["integer" | "number"] => plain(kinds.concat().as_str()),
        other => anyhow::bail!("{path}: unknown type {other:?}: teach it to crates/xtask/src/docs/config.rs"),
    })
}

/// What holds where the key is left out.
fn default(schema: &Value, required: bool, has_section: bool) -> String {
    match schema.get("default") {
        _ if required => "**required**".into(),
        None | Some(Value::Null) => "unset".into(),
        // The section lists them.
        Some(Value::Object(keys)) if has_section && !keys.is_empty() => "see there".into(),
        Some(Value::Array(items)) if items.is_empty() => "empty".into(),
        Some(Value::Object(keys)) if keys.is_empty() => "empty".into(),
        Some(Value::String(text)) if !text.is_empty() => code(text),
        Some(other) => code(&other.to_string()),
    }
}

/// The key and its description, where a schema is an object of one key.
fn keyed(schema: &Value) -> Option<(&str, &str)> {
    let mut properties = schema.get("properties")?.as_object()?.keys();
    let (name, None) = (properties.next()?, properties.next()) else { return None };
    Some((name, schema.get("description")?.as_str()?))
}

fn explained(choice: &Value) -> Option<(&str, &str)> {
    let word = choice.get("const")?.as_str()?;
    Some((word, choice.get("description").and_then(Value::as_str).unwrap_or_default()))
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(code).collect::<Vec<_>>().join(", ")
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(properties: &Value) -> Vec<String> {
        let schema = json!({
            "properties": properties,
            "required": ["name"],
            "$defs": {
                "Pool": { "description": "Connections.", "properties": { "warm": { "type": "integer", "default": 1 } } },
                "Mode": { "oneOf": [
                    { "const": "fast", "description": "Quick." }, { "const": "safe", "description": "Slow." }
                ] },
            },
        });
        let page = page(&schema).unwrap();
        page.lines().skip_while(|line| !line.starts_with('|')).skip(2).map(str::to_owned).collect()
    }

    fn check(key: &str, schema: Value, expected: &str) {
        assert_eq!(rows(&json!({ key: schema })), [expected], "{key}");
    }

    #[test]
    fn a_key_has_a_row_with_its_type_and_default() {
        check(
            "name",
            json!({ "type": "string", "description": "Its\nname." }),
            "| `name` | text | **required** | Its name. |",
        );
        check("wait_ms", json!({ "type": "integer", "default": 5 }), "| `wait_ms` | milliseconds | `5` |  |");
        check("max", json!({ "type": ["integer", "string"], "default": "32MiB" }), "| `max` | size | `32MiB` |  |");
        check("key", json!({ "type": ["string", "null"], "default": null }), "| `key` | text | unset |  |");
        check("rate", json!({ "type": "number", "default": 100.0 }), "| `rate` | number | `100.0` |  |");
        check(
            "kind",
            json!({ "type": "string", "enum": ["a", "b"], "default": "a" }),
            "| `kind` | `a`, `b` | `a` |  |",
        );
        let headers = json!({ "type": "object", "additionalProperties": { "type": "string" }, "default": {} });
        check("headers", headers, "| `headers` | map of names to text | empty |  |");
        let names = json!({ "type": "array", "items": { "type": "string" }, "default": ["sim"] });
        check("names", names, "| `names` | list of text | `[\"sim\"]` |  |");
    }

    #[test]
    fn an_object_in_a_list_gets_a_section_of_its_own() {
        let found = rows(&json!({ "pools": { "type": "array", "items": { "$ref": "#/$defs/Pool" }, "default": [] } }));
        assert_eq!(
            found,
            [
                "| `pools` | list of [`pools[]`](#pools) | empty |  |",
                "",
                "## `pools[]`",
                "",
                "Connections.",
                "",
                "| key | type | default | what it does |",
                "|---|---|---|---|",
                "| `warm` | integer | `1` |  |",
            ]
        );
    }

    #[test]
    fn words_with_an_explanation_are_explained_below_the_table() {
        let found = rows(&json!({ "mode": { "anyOf": [{ "$ref": "#/$defs/Mode" }, { "type": "null" }] } }));
        assert_eq!(
            found,
            [
                "| `mode` | `fast`, `safe` | unset |  |",
                "",
                "Values of `mode`:",
                "",
                "- `fast`: Quick.",
                "- `safe`: Slow."
            ]
        );
    }

    #[test]
    fn a_shape_this_does_not_know_is_refused_and_not_left_out() {
        let schema = json!({ "properties": { "x": { "type": "tuple" } } });
        assert!(page(&schema).unwrap_err().to_string().starts_with("x: unknown type"));
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = json!({ "properties": { "x": { "$ref": "#" } } });
        assert!(page(&schema).is_err());
    }
}
