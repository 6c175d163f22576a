//! `scheduling.cohorts` and `scheduling.quotas`.

use std::collections::{HashMap, HashSet};

use kernel::Priority;
use kernel::settings::Findings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of each a member may borrow, or lends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Allowance {
    /// Calls running at once.
    pub concurrency: Option<u64>,
    /// Tokens of running calls, prompts and answers.
    pub tokens_in_flight: Option<u64>,
}

/// A group of quotas, or of groups, that lend each other what they do not use.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CohortSettings {
    /// Its name.
    pub name: String,
    /// The cohort it is part of.
    #[serde(default)]
    pub parent: Option<String>,
    /// Calls its members may have running beside their own quotas.
    #[serde(default)]
    pub concurrency: u64,
    /// Tokens in flight its members may have beside their own quotas.
    #[serde(default)]
    pub tokens_in_flight: u64,
    /// What its members may borrow from outside it, together; default: whatever is lent.
    #[serde(default)]
    pub borrow: Allowance,
    /// What of its members' unused quotas goes outside it; default: all.
    #[serde(default)]
    pub lend: Allowance,
}

/// How much one tenant may have running at once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// Whose.
    pub tenant: String,
    /// Only for its calls of this class; default: for all that have no quota of their own.
    #[serde(default)]
    pub class: Option<Priority>,
    /// The cohort that lends to it and borrows from it; default: none, and the quota is a fixed limit.
    #[serde(default)]
    pub cohort: Option<String>,
    /// Calls running at once; default: not limited.
    #[serde(default)]
    pub concurrency: Option<u64>,
    /// Tokens of running calls, prompts and answers, as estimated when they start; default: not limited.
    #[serde(default)]
    pub tokens_in_flight: Option<u64>,
    /// What it may borrow; default: whatever is lent.
    #[serde(default)]
    pub borrow: Allowance,
    /// What of its unused quota it lends; default: all.
    #[serde(default)]
    pub lend: Allowance,
}

/// Bound: far from overflowing when all are added up.
const AMOUNT_MAX: u64 = 1 << 40;

/// What the schema cannot say.
pub(crate) fn validate(
    cohorts: &[CohortSettings],
    quotas: &[QuotaSettings],
    path: &str,
    tenants: &[&str],
    findings: &mut Findings,
) {
    let parents: HashMap<&str, Option<&str>> =
        cohorts.iter().map(|cohort| (cohort.name.as_str(), cohort.parent.as_deref())).collect();
    let mut names = HashSet::new();
    for (i, cohort) in cohorts.iter().enumerate() {
        let path = format!("{path}.cohorts[{i}]");
        findings.require(!cohort.name.trim().is_empty(), format!("{path}.name"), "must not be empty");
        let new = names.insert(&cohort.name);
        findings.require(new, format!("{path}.name"), format!("`{}` is listed twice", cohort.name));
        known(&parents, cohort.parent.as_deref(), &format!("{path}.parent"), findings);
        if let Some(circle) = circle(&parents, &cohort.name) {
            findings.add(format!("{path}.parent"), format!("goes round in a circle: {circle}"));
        }
        amounts(cohort.concurrency, cohort.tokens_in_flight, &[cohort.borrow, cohort.lend], &path, findings);
        let alone = cohort.parent.is_none() && cohort.borrow != Allowance::default();
        findings.require(!alone, format!("{path}.borrow"), "has no effect without a `parent` to borrow from");
    }
    let mut owners = HashSet::new();
    for (i, quota) in quotas.iter().enumerate() {
        let path = format!("{path}.quotas[{i}]");
        let new = owners.insert((&quota.tenant, quota.class));
        findings.require(new, format!("{path}.tenant"), format!("`{}` has this quota twice", quota.tenant));
        let there = quota.tenant == "anonymous" || tenants.contains(&quota.tenant.as_str());
        findings.require(
            there,
            format!("{path}.tenant"),
            format!("there is no tenant `{}` under `tenants`", quota.tenant),
        );
        known(&parents, quota.cohort.as_deref(), &format!("{path}.cohort"), findings);
        let (concurrency, tokens) = (quota.concurrency.unwrap_or(0), quota.tokens_in_flight.unwrap_or(0));
        amounts(concurrency, tokens, &[quota.borrow, quota.lend], &path, findings);
        let limits = quota.concurrency.is_some() || quota.tokens_in_flight.is_some();
        findings.require(limits, path.clone(), "limits nothing: give `concurrency`, `tokens_in_flight` or both");
        if quota.cohort.is_none() {
            let nothing = quota.concurrency == Some(0) || quota.tokens_in_flight == Some(0);
            findings.require(
                !nothing,
                path.clone(),
                "would let nothing run: it is 0 and there is no cohort to borrow from",
            );
            let alone = quota.borrow != Allowance::default() || quota.lend != Allowance::default();
            findings.require(!alone, path, "`borrow` and `lend` have no effect without a `cohort`");
        }
    }
}

fn known(parents: &HashMap<&str, Option<&str>>, name: Option<&str>, path: &str, findings: &mut Findings) {
    if let Some(name) = name.filter(|name| !parents.contains_key(name)) {
        findings.add(path, format!("there is no cohort `{name}` under `scheduling.cohorts`"));
    }
}

/// The way from a cohort back to itself, if there is one.
fn circle(parents: &HashMap<&str, Option<&str>>, start: &str) -> Option<String> {
    let (mut way, mut at) = (vec![start], parents.get(start).copied().flatten());
    while let Some(next) = at {
        if next == start {
            way.push(start);
            return Some(way.join(" → "));
        }
        if way.contains(&next) {
            return None;
        }
        way.push(next);
        at = parents.get(next).copied().flatten();
    }
    None
}

fn amounts(concurrency: u64, tokens: u64, allowances: &[Allowance], path: &str, findings: &mut Findings) {
    let all = allowances.iter().flat_map(|one| [one.concurrency, one.tokens_in_flight]).flatten();
    let fits = all.chain([concurrency, tokens]).all(|amount| amount <= AMOUNT_MAX);
    findings.require(fits, path, format!("holds an amount beyond {AMOUNT_MAX}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(yaml: serde_json::Value, tenants: &[&str]) -> Vec<String> {
        let settings: crate::Settings = serde_json::from_value(yaml).unwrap();
        let mut findings = Findings::default();
        settings.validate("scheduling", tenants, &mut findings);
        findings.0.into_iter().map(|finding| format!("{} {}", finding.path, finding.message)).collect()
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let faults = findings(
            serde_json::json!({
                "cohorts": [
                    { "name": "a", "parent": "b" }, { "name": "b", "parent": "c" }, { "name": "c", "parent": "a" },
                    { "name": "d", "parent": "nobody" }, { "name": "d", "borrow": { "concurrency": 1 } },
                ],
                "quotas": [
                    { "tenant": "lab", "concurrency": 0 },
                    { "tenant": "who", "concurrency": 1, "cohort": "x" },
                    { "tenant": "acme", "cohort": "a" },
                    { "tenant": "acme", "concurrency": 1, "lend": { "concurrency": 1 } },
                    { "tenant": "anonymous", "tokens_in_flight": 99_000_000_000_000_u64 },
                ],
            }),
            &["lab", "acme"],
        );
        assert_eq!(
            faults,
            [
                "scheduling.cohorts[0].parent goes round in a circle: a → b → c → a",
                "scheduling.cohorts[1].parent goes round in a circle: b → c → a → b",
                "scheduling.cohorts[2].parent goes round in a circle: c → a → b → c",
                "scheduling.cohorts[3].parent there is no cohort `nobody` under `scheduling.cohorts`",
                "scheduling.cohorts[4].name `d` is listed twice",
                "scheduling.cohorts[4].borrow has no effect without a `parent` to borrow from",
                "scheduling.quotas[0] would let nothing run: it is 0 and there is no cohort to borrow from",
                "scheduling.quotas[1].tenant there is no tenant `who` under `tenants`",
                "scheduling.quotas[1].cohort there is no cohort `x` under `scheduling.cohorts`",
                "scheduling.quotas[2] limits nothing: give `concurrency`, `tokens_in_flight` or both",
                "scheduling.quotas[3].tenant `acme` has this quota twice",
                "scheduling.quotas[3] `borrow` and `lend` have no effect without a `cohort`",
                "scheduling.quotas[4] holds an amount beyond 1099511627776",
            ]
        );
    }
}
