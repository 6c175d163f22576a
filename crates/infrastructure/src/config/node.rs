//! A YAML document as a tree in which every value knows where it was written.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::fault::Position;
use super::trail::Step;

#[derive(Clone)]
pub(super) struct Node {
    pub position: Position,
    pub kind: Kind,
}

#[derive(Clone)]
pub(super) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A value that already has a fault of its own; it fits everywhere, so that it gets no second one.
    Unknown,
}

#[derive(Clone)]
pub(super) struct Scalar {
    /// Null, a boolean, a number or text.
    pub value: Value,
    /// The characters the value was read from.
    pub text: String,
    /// As written, where the environment had a part in it: what is shown instead of the value.
    pub written: Option<String>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_position: Position,
    pub node: Node,
}

/// Scalars that the wanted type reads otherwise than YAML alone would: see `check`.
pub(super) type Readings = HashMap<*const Node, Value>;

// === impl Node ===

impl Node {
    /// The plain JSON value of this tree.
    pub(super) fn value(&self, readings: &Readings) -> Value {
        match &self.kind {
            Kind::Unknown => Value::Null,
            Kind::Scalar(scalar) => {
                let reading = readings.get(&std::ptr::from_ref(self));
                reading.unwrap_or(&scalar.value).clone()
            }
            Kind::List(items) => items.iter().map(|item| item.value(readings)).collect(),
            Kind::Map(entries) => {
                let pair = |entry: &Entry| (entry.key.clone(), entry.node.value(readings));
                Value::Object(entries.iter().map(pair).collect::<Map<_, _>>())
            }
        }
    }

    /// How many levels lie below this one.
    pub(super) fn height(&self) -> usize {
        let below = match &self.kind {
            Kind::Scalar(_) | Kind::Unknown => return 0,
            Kind::List(items) => items.iter().map(Node::height).max(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.node.height()).max(),
        };
        below.map_or(0, |height| height + 1)
    }

    /// Where the path leads, or the nearest ancestor of it that exists.
    pub(super) fn locate(&self, steps: &[Step]) -> Position {
        let Some((step, rest)) = steps.split_first() else {
            return self.position;
        };
        let next = match (&self.kind, step) {
            (Kind::List(items), Step::Index(index)) => items.get(*index),
            (Kind::Map(entries), Step::Key(key)) => {
                let found = entries.iter().find(|entry| entry.key == *key);
                found.map(|entry| &entry.node)
            }
            _ => None,
        };
        next.map_or(self.position, |node| node.locate(rest))
    }

    /// The scalars with what the environment brought in, as (value, as written).
    pub(super) fn substituted<'a>(&'a self, into: &mut Vec<(&'a str, &'a str)>) {
        match &self.kind {
            Kind::Scalar(scalar) => {
                into.extend(scalar.written.iter().map(|w| (&*scalar.text, &**w)));
            }
            Kind::List(items) => items.iter().for_each(|item| item.substituted(into)),
            Kind::Map(entries) => entries.iter().for_each(|e| e.node.substituted(into)),
            Kind::Unknown => {}
        }
    }
}
