//! A schema and a value in words: what is expected, what was found.

use serde_json::Value;

use super::super::fault::shorten;
use super::super::node::{Kind, Node, Scalar};
use super::super::types;

/// The kinds of value that a schema's `type` tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Boolean,
    Whole,
    Decimal,
    Text,
    List,
    Map,
}

// === impl Shape ===

impl Shape {
    pub(super) fn of(node: &Node) -> Shape {
        match &node.kind {
            Kind::Scalar(scalar) => Shape::of_value(&scalar.value),
            Kind::List(_) => Shape::List,
            Kind::Map(_) => Shape::Map,
            Kind::Unknown => Shape::Null,
        }
    }

    pub(super) fn of_value(value: &Value) -> Shape {
        match value {
            Value::Null => Shape::Null,
            Value::Bool(_) => Shape::Boolean,
            Value::Number(number) if number.is_f64() => Shape::Decimal,
            Value::Number(_) => Shape::Whole,
            Value::String(_) => Shape::Text,
            Value::Array(_) => Shape::List,
            Value::Object(_) => Shape::Map,
        }
    }

    /// Whether a value of this shape is of the JSON Schema type `name`.
    pub(super) fn is(self, name: &str) -> bool {
        match name {
            "null" => self == Shape::Null,
            "boolean" => self == Shape::Boolean,
            // JSON Schema would let 3.0 pass for whole; serde does not.
            "integer" => self == Shape::Whole,
            "number" => matches!(self, Shape::Whole | Shape::Decimal),
            "string" => self == Shape::Text,
            "array" => self == Shape::List,
            "object" => self == Shape::Map,
            _ => true,
        }
    }
}

/// The parts of a keyword that holds a list.
pub(super) fn array<'s>(schema: &'s Value, word: &str) -> impl Iterator<Item = &'s Value> {
    let list = schema.get(word).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// The names in `type`; none if every type is allowed.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The values in `const` or `enum`; none if every value is allowed.
pub(super) fn allowed(schema: &Value) -> Vec<&Value> {
    match schema.get("const") {
        Some(only) => vec![only],
        None => array(schema, "enum").collect(),
    }
}

/// Whether the value is one that must not be shown.
pub(super) fn is_secret(schema: &Value) -> bool {
    schema.get("writeOnly") == Some(&Value::Bool(true))
}

/// What the schema wants, as the object of "expected".
pub(super) fn expected(schema: &Value) -> String {
    if let Some(format) = types::format(schema) {
        return format.words.to_owned();
    }
    let allowed = allowed(schema);
    if !allowed.is_empty() {
        return choice(&allowed);
    }
    let mut names = types(schema);
    // Nobody who wrote something wrong meant to write nothing.
    if names.len() > 1 {
        names.retain(|name| *name != "null");
    }
    let words: Vec<&str> = names.into_iter().map(name).collect();
    words.join(" or ")
}

/// A choice of values in words.
pub(super) fn choice(allowed: &[&Value]) -> String {
    let word = |value: &&Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let some: Vec<&&Value> = allowed.iter().filter(|value| !value.is_null()).collect();
    match some.as_slice() {
        [] => "null".to_owned(),
        [only] => format!("`{}`", word(only)),
        several => {
            let words: Vec<String> = several.iter().map(|value| word(value)).collect();
            format!("one of {}", words.join(", "))
        }
    }
}

fn name(of: &str) -> &str {
    match of {
        "null" => "null",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

/// What is there, as the object of "found". What the environment brought in is named, never shown.
pub(super) fn found(node: &Node, hidden: bool) -> String {
    let scalar = match &node.kind {
        Kind::Scalar(scalar) => scalar,
        Kind::List(_) => return "a list".to_owned(),
        Kind::Map(_) => return "a map".to_owned(),
        Kind::Unknown => return "a value that cannot be read".to_owned(),
    };
    let kind = match Shape::of_value(&scalar.value) {
        Shape::Null => return "nothing".to_owned(),
        Shape::Boolean => "",
        Shape::Whole | Shape::Decimal => "the number ",
        _ => "the text ",
    };
    match scalar {
        Scalar { written: Some(written), .. } => format!("{kind}from `{}`", shorten(written)),
        _ if hidden => format!("{kind}***"),
        Scalar { value: Value::String(text), .. } => format!("{kind}{:?}", shorten(text)),
        Scalar { text, .. } => format!("{kind}{}", shorten(text)),
    }
}
