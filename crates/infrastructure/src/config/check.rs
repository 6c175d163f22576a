//! A tree of values beside the JSON Schema of the type it should become: every fault, not the first.
//!
//! serde stops at the first thing it dislikes and knows no positions. The schema, made from the same
//! types, says beforehand what would be disliked. Only what schemars writes is understood: types, keys,
//! enumerations, ranges, unions and references; a word that is not known here forbids nothing, and serde
//! still has the last say.

mod limits;
mod union;
mod words;

use std::cell::Cell;

use serde_json::{Map, Value};

use self::words::Shape;
use super::fault::{FAULTS_MAX, Fault, Position};
use super::node::{Entry, Kind, Node, Readings, Scalar};
use super::suggestion::nearest;
use super::trail::Trail;
use super::{scalar, types};

// Bound: ten times the largest tree. Unions try each branch, and nested ones multiply; past this the
// rest is left to serde, which finds one fault at a time.
const STEPS_MAX: u32 = 1_000_000;
// Bound: a chain of references longer than this refers to itself.
const REFERENCES_MAX: usize = 32;

/// What is wrong with a tree, and how its ambiguous scalars are to be read.
#[derive(Default)]
pub(super) struct Verdict {
    pub faults: Vec<Fault>,
    /// Values from the environment that the schema wants otherwise than YAML reads them: a key that is
    /// all digits stays text, a quoted `"${PORT}"` becomes a number.
    pub readings: Readings,
}

/// Checks the whole tree against a root schema.
pub(super) fn check(root: &Node, schema: &Value) -> Verdict {
    let steps = Cell::new(STEPS_MAX);
    let checker = Checker { schema, steps };
    let mut verdict = Verdict::default();
    checker.visit(root, schema, &Trail::Root, &mut verdict);
    verdict
}

struct Checker<'s> {
    schema: &'s Value,
    steps: Cell<u32>,
}

// === impl Verdict ===

impl Verdict {
    fn tell(&mut self, trail: &Trail<'_>, at: Position, message: impl Into<String>) {
        self.suggest(trail, at, message, None);
    }

    fn suggest(&mut self, trail: &Trail<'_>, at: Position, message: impl Into<String>, suggestion: Option<String>) {
        // One more than is shown, so that `Faults` can say that there were more.
        if self.faults.len() <= FAULTS_MAX {
            let fault = Fault::new(trail.to_string(), Some(at), message);
            self.faults.push(fault.suggesting(suggestion));
        }
    }

    fn merge(&mut self, other: Verdict) {
        let room = (FAULTS_MAX + 1).saturating_sub(self.faults.len());
        self.faults.extend(other.faults.into_iter().take(room));
        self.readings.extend(other.readings);
    }
}

// === impl Checker ===

impl<'s> Checker<'s> {
    fn visit(&self, node: &Node, schema: &'s Value, trail: &Trail<'_>, verdict: &mut Verdict) {
        let Some(left) = self.steps.get().checked_sub(1) else {
            return;
        };
        self.steps.set(left);
        if verdict.faults.len() > FAULTS_MAX {
            return;
        }
        if schema == &Value::Bool(false) {
            verdict.tell(trail, node.position, "nothing is allowed here");
        }
        if let Kind::Unknown = node.kind {
            return;
        }
        if let Some(target) = self.target(schema) {
            self.visit(node, target, trail, verdict);
        }
        let Some(read) = self.read(node, schema, trail, verdict) else {
            return;
        };
        match &node.kind {
            Kind::Scalar(_) => self.scalar(node, &read, schema, trail, verdict),
            Kind::List(items) => self.list(node, items, schema, trail, verdict),
            Kind::Map(entries) => self.map(node, entries, schema, trail, verdict),
            Kind::Unknown => {}
        }
        for part in words::array(schema, "allOf") {
            self.visit(node, part, trail, verdict);
        }
        for word in ["oneOf", "anyOf"] {
            if schema.get(word).is_some() {
                self.union(node, words::array(schema, word), trail, verdict);
            }
        }
    }

    /// The value as the schema's `type` reads it; `None`, with the fault told, if it does not fit.
    fn read(&self, node: &Node, schema: &Value, trail: &Trail<'_>, verdict: &mut Verdict) -> Option<Value> {
        let plain = match &node.kind {
            Kind::Scalar(scalar) => scalar.value.clone(),
            _ => Value::Null,
        };
        let wanted = words::types(schema);
        let shape = Shape::of(node);
        if wanted.is_empty() || wanted.iter().any(|name| shape.is(name)) {
            return Some(plain);
        }
        if let Kind::Scalar(Scalar { text, written: Some(_), .. }) = &node.kind {
            // The environment holds only text, so the schema decides what kind of value it is.
            let other =
                if wanted.contains(&"string") { Some(Value::String(text.clone())) } else { scalar::resolve(text).ok() };
            let fits = |value: &Value| wanted.iter().any(|name| Shape::of_value(value).is(name));
            if let Some(other) = other.filter(fits) {
                verdict.readings.insert(std::ptr::from_ref(node), other.clone());
                return Some(other);
            }
        }
        let hidden = words::is_secret(schema);
        let message = format!("expected {}, found {}", words::expected(schema), words::found(node, hidden));
        let rewritten = match &node.kind {
            Kind::Scalar(scalar) if !hidden => rewritten(scalar, schema),
            _ => None,
        };
        verdict.suggest(trail, node.position, message, rewritten);
        None
    }

    fn scalar(&self, node: &Node, read: &Value, schema: &Value, trail: &Trail<'_>, verdict: &mut Verdict) {
        let found = || words::found(node, words::is_secret(schema));
        let allowed = words::allowed(schema);
        if !allowed.is_empty() && !allowed.contains(&read) {
            let message = format!("expected {}, found {}", words::choice(&allowed), found());
            let names = allowed.iter().filter_map(|value| value.as_str());
            let meant = read.as_str().and_then(|text| nearest(text, names));
            verdict.suggest(trail, node.position, message, meant.map(str::to_owned));
            return;
        }
        if let Some(limit) = limits::broken(read, schema) {
            verdict.tell(trail, node.position, format!("expected {limit}, found {}", found()));
        }
        if let (Value::String(text), Some(format)) = (read, types::format(schema))
            && let Err(message) = (format.check)(text)
        {
            let shown = format!("{message}, found {}", found());
            verdict.tell(trail, node.position, shown);
        }
    }

    fn list(&self, node: &Node, items: &[Node], schema: &'s Value, trail: &Trail<'_>, verdict: &mut Verdict) {
        if let Some(limit) = limits::broken_length(items.len(), schema, "Items") {
            let message = format!("expected {limit}, found {}", items.len());
            verdict.tell(trail, node.position, message);
        }
        let first: Vec<&Value> = words::array(schema, "prefixItems").collect();
        for (index, item) in items.iter().enumerate() {
            let wanted = first.get(index).copied().or_else(|| schema.get("items"));
            if let Some(wanted) = wanted {
                self.visit(item, wanted, &Trail::Index(trail, index), verdict);
            }
        }
    }

    fn map(&self, node: &Node, entries: &[Entry], schema: &'s Value, trail: &Trail<'_>, verdict: &mut Verdict) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        let closed = self.known_keys(schema);
        let mut meant: Vec<&str> = Vec::new();
        for entry in entries {
            if verdict.faults.len() > FAULTS_MAX {
                return;
            }
            let here = Trail::Key(trail, &entry.key);
            let named = properties.and_then(|keys| keys.get(&entry.key));
            let pattern = || patterns.and_then(|keys| keys.values().next());
            let rest = || schema.get("additionalProperties").filter(|rest| rest.is_object());
            if let Some(wanted) = named.or_else(pattern).or_else(rest) {
                self.visit(&entry.node, wanted, &here, verdict);
            } else if let Some(known) = &closed
                && !known.contains(&entry.key.as_str())
            {
                meant.extend(unknown_key(entry, known, &here, verdict));
            }
        }
        for key in words::array(schema, "required").filter_map(Value::as_str) {
            let given = entries.iter().any(|entry| entry.key == key);
            // A misspelt key has its fault already; that it is missing too is no news.
            if !given && !meant.contains(&key) {
                verdict.tell(&Trail::Key(trail, key), node.position, "this key is required");
            }
        }
        if let Some(limit) = limits::broken_length(entries.len(), schema, "Properties") {
            let message = format!("expected {limit}, found {}", entries.len());
            verdict.tell(trail, node.position, message);
        }
    }

    /// The keys a closed map may have; `None` for a map that is open.
    fn known_keys(&self, schema: &'s Value) -> Option<Vec<&'s str>> {
        let is_closed = |word: &str| schema.get(word) == Some(&Value::Bool(false));
        let mut known = Vec::new();
        if is_closed("unevaluatedProperties") {
            self.gather_keys(schema, &mut known, 0);
        } else if is_closed("additionalProperties") {
            known.extend(keys(schema));
        } else {
            return None;
        }
        Some(known)
    }

    /// The keys of a schema and of all that is joined to it in place.
    fn gather_keys(&self, schema: &'s Value, known: &mut Vec<&'s str>, depth: usize) {
        if depth > REFERENCES_MAX {
            return;
        }
        known.extend(keys(schema));
        let joined = ["allOf", "anyOf", "oneOf"].into_iter();
        let parts = joined.flat_map(|word| words::array(schema, word));
        for part in parts.chain(self.target(schema)) {
            self.gather_keys(part, known, depth + 1);
        }
    }

    /// What a schema's `$ref` refers to.
    fn target(&self, schema: &'s Value) -> Option<&'s Value> {
        let mut target = schema;
        for _ in 0..REFERENCES_MAX {
            let pointer = target.get("$ref")?.as_str()?.strip_prefix('#')?;
            target = self.schema.pointer(pointer)?;
            // A schema that is nothing but a reference is skipped over; one with words of its own is visited.
            if target.get("$ref").is_none() || target.as_object().is_some_and(|s| s.len() > 1) {
                return Some(target);
            }
        }
        None
    }
}

/// The same scalar as the schema would have it: text without its quotes, a boolean of YAML 1.1.
fn rewritten(scalar: &Scalar, schema: &Value) -> Option<String> {
    let wanted = words::types(schema);
    if let Value::String(text) = &scalar.value {
        let meant = match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" if wanted.contains(&"boolean") => "true",
            "no" | "off" | "n" | "false" if wanted.contains(&"boolean") => "false",
            _ => return None,
        };
        return Some(meant.to_owned());
    }
    let format = types::format(schema);
    let fits = format.is_none_or(|format| (format.check)(&scalar.text).is_ok());
    let lacks_quotes = !scalar.value.is_null() && wanted.contains(&"string") && fits;
    lacks_quotes.then(|| format!("\"{}\"", scalar.text))
}

/// Tells of a key that is not known; returns the key that was probably meant.
fn unknown_key<'s>(entry: &Entry, known: &[&'s str], here: &Trail<'_>, verdict: &mut Verdict) -> Option<&'s str> {
    let meant = nearest(&entry.key, known.iter().copied());
    let message = match meant {
        None if !known.is_empty() => format!("unknown key; the keys here are {}", known.join(", ")),
        _ => "unknown key".to_owned(),
    };
    verdict.suggest(here, entry.key_position, message, meant.map(str::to_owned));
    meant
}

fn keys(schema: &Value) -> impl Iterator<Item = &str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(Map::keys).map(String::as_str)
}
