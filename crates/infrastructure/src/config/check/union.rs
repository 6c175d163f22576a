//! Values that may be one thing or another: which of them was meant, and what is wrong with that one.
//!
//! A list of complaints about every branch helps nobody. The branch is chosen as a reader would: by the
//! kind of the value, by a tag (`type: redis`), by the key that names a variant (`fallback: [...]`),
//! and only then by the fewest faults.

use serde_json::Value;

use super::super::node::{Entry, Kind, Node};
use super::super::suggestion::nearest;
use super::super::trail::Trail;
use super::words::{self, Shape};
use super::{Checker, REFERENCES_MAX, Verdict};

impl<'s> Checker<'s> {
    pub(super) fn union(
        &self,
        node: &Node,
        branches: impl Iterator<Item = &'s Value>,
        trail: &Trail<'_>,
        verdict: &mut Verdict,
    ) {
        let mut flat = Vec::new();
        branches.for_each(|branch| self.flatten(branch, &mut flat, 0));
        let attempt = |branch: &&'s Value| {
            let mut attempt = Verdict::default();
            self.visit(node, branch, trail, &mut attempt);
            attempt
        };
        // A value that fits as it stands beats one that fits when read otherwise.
        let fitting = flat.iter().map(attempt).filter(|v| v.faults.is_empty());
        if let Some(best) = fitting.min_by_key(|verdict| verdict.readings.len()) {
            return verdict.merge(best);
        }
        let shape = Shape::of(node);
        let near: Vec<&Value> = flat.iter().copied().filter(|b| accepts(b, shape)).collect();
        match &node.kind {
            _ if near.is_empty() => mismatch(node, &flat, trail, verdict),
            Kind::Scalar(_) if near.iter().all(|b| !words::allowed(b).is_empty()) => {
                mismatch(node, &flat, trail, verdict);
            }
            Kind::Map(entries) => self.variant(node, entries, &near, trail, verdict),
            _ => {
                let closest = near.iter().map(attempt).min_by_key(|v| v.faults.len());
                verdict.merge(closest.unwrap_or_default());
            }
        }
    }

    /// The branches with references followed and unions of unions opened.
    fn flatten(&self, branch: &'s Value, flat: &mut Vec<&'s Value>, depth: usize) {
        let branch = match self.target(branch) {
            // With words of its own beside the reference the branch must be visited as it is.
            Some(target) if branch.get("properties").is_none() => target,
            _ => branch,
        };
        let mut inner = words::array(branch, "oneOf").chain(words::array(branch, "anyOf")).peekable();
        let pure = branch.get("properties").is_none() && branch.get("type").is_none();
        if pure && inner.peek().is_some() && depth < REFERENCES_MAX {
            inner.for_each(|inner| self.flatten(inner, flat, depth + 1));
        } else {
            flat.push(branch);
        }
    }

    /// A map that fits none of several: what is wrong with the one that was meant.
    fn variant(&self, node: &Node, entries: &[Entry], near: &[&'s Value], trail: &Trail<'_>, verdict: &mut Verdict) {
        let meant: Vec<&'s Value> = if let Some(tag) = tag(near) {
            let Some(entry) = entries.iter().find(|entry| entry.key == tag) else {
                let names = choice_of(near.iter().flat_map(|b| words::allowed(property(b, tag))));
                let message = format!("this key is required: {names}");
                return verdict.tell(&Trail::Key(trail, tag), node.position, message);
            };
            let tags: Vec<&Value> = near.iter().map(|branch| property(branch, tag)).collect();
            let is_meant = |schema: &&Value| match &entry.node.kind {
                Kind::Scalar(scalar) => words::allowed(schema).contains(&&scalar.value),
                _ => false,
            };
            let Some(index) = tags.iter().position(is_meant) else {
                return mismatch(&entry.node, &tags, &Trail::Key(trail, tag), verdict);
            };
            near.get(index).into_iter().copied().collect()
        } else if let Some(names) = variants(near) {
            let given = |name: &&str| entries.iter().any(|entry| entry.key == **name);
            match names.iter().filter(|name| given(name)).count() {
                0 => return unknown_variant(node, entries, &names, trail, verdict),
                1 => {}
                _ => {
                    let message = format!("only one of {} can be given", names.join(", "));
                    return verdict.tell(trail, node.position, message);
                }
            }
            let pairs = near.iter().zip(&names);
            pairs.filter(|(_, name)| given(name)).map(|(branch, _)| *branch).collect()
        } else {
            near.to_vec()
        };
        let attempts = meant.into_iter().map(|branch| {
            let mut attempt = Verdict::default();
            self.visit(node, branch, trail, &mut attempt);
            attempt
        });
        let closest = attempts.min_by_key(|attempt| attempt.faults.len());
        verdict.merge(closest.unwrap_or_default());
    }
}

/// A value of a kind, or a word, that no branch has.
fn mismatch(node: &Node, branches: &[&Value], trail: &Trail<'_>, verdict: &mut Verdict) {
    let choices: Vec<&Value> = branches.iter().flat_map(|b| words::allowed(b)).collect();
    let mut wanted: Vec<String> = Vec::new();
    if choices.iter().any(|choice| !choice.is_null()) {
        wanted.push(words::choice(&choices));
    }
    let others = branches.iter().copied().filter(|branch| {
        // That nothing would do as well is no help.
        words::allowed(branch).is_empty() && words::types(branch) != ["null"]
    });
    let others: Vec<&Value> = others.collect();
    match variants(&others) {
        Some(names) if !names.is_empty() => {
            wanted.push(format!("a map with {}", names.join(" or ")));
        }
        _ => wanted.extend(others.iter().map(|branch| words::expected(branch))),
    }
    wanted.dedup();
    let hidden = branches.iter().any(|branch| words::is_secret(branch));
    let found = words::found(node, hidden);
    let message = format!("expected {}, found {found}", wanted.join(" or "));
    let suggestion = match &node.kind {
        Kind::Scalar(scalar) => nearest(&scalar.text, choices.iter().filter_map(|c| c.as_str())),
        _ => None,
    };
    verdict.suggest(trail, node.position, message, suggestion.map(str::to_owned));
}

fn unknown_variant(node: &Node, entries: &[Entry], names: &[&str], trail: &Trail<'_>, verdict: &mut Verdict) {
    let message = format!("expected one of {}", names.join(", "));
    match entries {
        [] => verdict.tell(trail, node.position, format!("{message}, found an empty map")),
        [entry, ..] => {
            let meant = nearest(&entry.key, names.iter().copied()).map(str::to_owned);
            let here = Trail::Key(trail, &entry.key);
            let message = format!("unknown key; {message}");
            verdict.suggest(&here, entry.key_position, message, meant);
        }
    }
}

/// The key whose value tells the branches apart, if there is one: serde's `tag`.
fn tag<'s>(branches: &[&'s Value]) -> Option<&'s str> {
    let (first, rest) = branches.split_first()?;
    let is_tag = |branch: &&Value, key: &str| !words::allowed(property(branch, key)).is_empty();
    let mut keys = super::keys(first);
    keys.find(|key| is_tag(first, key) && rest.iter().all(|branch| is_tag(branch, key)))
}

/// The key of each branch, if each is a map of exactly one: how serde names variants.
fn variants<'s>(branches: &[&'s Value]) -> Option<Vec<&'s str>> {
    let only = |branch: &&'s Value| {
        let mut keys = super::keys(branch);
        let key = keys.next()?;
        let required = words::array(branch, "required").any(|name| name == key);
        (keys.next().is_none() && required).then_some(key)
    };
    branches.iter().map(only).collect()
}

fn property<'s>(branch: &'s Value, key: &str) -> &'s Value {
    let properties = branch.get("properties");
    properties.and_then(|keys| keys.get(key)).unwrap_or(&Value::Null)
}

fn choice_of<'s>(values: impl Iterator<Item = &'s Value>) -> String {
    words::choice(&values.collect::<Vec<_>>())
}

fn accepts(branch: &Value, shape: Shape) -> bool {
    let types = words::types(branch);
    types.is_empty() || types.iter().any(|name| shape.is(name))
}
