//! The `nodes:` section, and what instances and calls need of a node.

use std::collections::{BTreeMap, BTreeSet};

use kernel::Amount;
use kernel::settings::Findings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::ModelSettings;

/// A machine and what it has of each resource: any names, in any units that instances and calls use as well.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct NodeSettings {
    /// Its name, as instances give it under `node`.
    pub name: String,
    /// What it has: `cpu`, `memory_gb`, `gpu`, or anything else that is counted.
    #[serde(flatten)]
    pub has: BTreeMap<String, Quantity>,
}

/// So much of each resource.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Needs(pub BTreeMap<String, Quantity>);

/// An amount of a resource, exact to a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub f64);

/// Bound: a thousand times more than any machine has of anything, and far from overflowing.
const QUANTITY_MAX: f64 = 1e9;

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": QUANTITY_MAX })
    }
}

impl Quantity {
    fn milli(self) -> u64 {
        (self.0 * 1000.0).round() as u64
    }
}

impl Needs {
    /// In the kernel's words.
    pub(crate) fn amounts(&self) -> Vec<Amount> {
        amounts(&self.0)
    }
}

impl NodeSettings {
    /// In the kernel's words.
    pub(crate) fn amounts(&self) -> Vec<Amount> {
        amounts(&self.has)
    }

    fn milli(&self, resource: &str) -> u64 {
        self.has.get(resource).map_or(0, |quantity| quantity.milli())
    }

    /// What the schema cannot say about the nodes, and about how models use them.
    pub fn validate_all(nodes: &[Self], models: &[ModelSettings], findings: &mut Findings) {
        let mut names = BTreeSet::new();
        for (i, node) in nodes.iter().enumerate() {
            let path = format!("nodes[{i}]");
            findings.require(!node.name.trim().is_empty(), format!("{path}.name"), "must not be empty");
            findings.require(
                names.insert(&node.name),
                format!("{path}.name"),
                format!("`{}` is listed twice", node.name),
            );
            findings.require(
                !node.has.is_empty(),
                path,
                "has nothing: say what it has, like cpu: 8, memory_gb: 64, gpu: 4",
            );
        }
        let mut used = BTreeSet::new();
        for (i, model) in models.iter().enumerate() {
            for (j, version) in model.versions.iter().enumerate() {
                for (k, instance) in version.instances.iter().enumerate() {
                    let path = format!("models[{i}].versions[{j}].instances[{k}]");
                    used.extend(&instance.node);
                    place(nodes, model, instance, &path, findings);
                }
            }
            let lost = model.versions.is_empty() && !model.call_needs.0.is_empty();
            findings.require(
                !lost,
                format!("models[{i}].call_needs"),
                "needs a node to take it from: write the long form, with `node` at each instance",
            );
        }
        for (i, node) in nodes.iter().enumerate() {
            findings.require(
                used.contains(&node.name),
                format!("nodes[{i}]"),
                format!(
                    "no instance is on `{}`: name it at an instance, as `node: {}`, or leave it out",
                    node.name, node.name
                ),
            );
        }
    }
}

fn place(
    nodes: &[NodeSettings],
    model: &ModelSettings,
    instance: &super::InstanceSettings,
    path: &str,
    findings: &mut Findings,
) {
    let needed: BTreeSet<&String> = instance.needs.0.keys().chain(model.call_needs.0.keys()).collect();
    let Some(name) = &instance.node else {
        let which = if instance.needs.0.is_empty() { "the model's `call_needs`" } else { "`needs`" };
        findings.require(
            needed.is_empty(),
            format!("{path}.node"),
            format!("is missing: {which} must be taken from a node"),
        );
        return;
    };
    let Some(node) = nodes.iter().find(|node| node.name == *name) else {
        let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let known = if known.is_empty() { "none is listed".into() } else { known.join(", ") };
        findings.add(format!("{path}.node"), format!("there is no node `{name}` under `nodes` ({known})"));
        return;
    };
    for resource in needed {
        let of = |needs: &Needs| needs.0.get(resource).map_or(0, |quantity| quantity.milli());
        let (wanted, has) = (of(&instance.needs) + of(&model.call_needs), node.milli(resource));
        findings.require(
            wanted <= has,
            format!("{path}.node"),
            format!(
                "could never take a call: it needs {} {resource}, and node `{name}` has {}",
                wanted as f64 / 1000.0,
                has as f64 / 1000.0
            ),
        );
    }
}

fn amounts(of: &BTreeMap<String, Quantity>) -> Vec<Amount> {
    let some = of.iter().filter(|(_, quantity)| quantity.milli() > 0);
    some.map(|(name, quantity)| Amount { name: name.as_str().into(), milli: quantity.milli() }).collect()
}
