//! The chain: what a request passes before it is answered, gate by gate, in the order the config gives.
//!
//! Some gates stand at the head, before the body is read: who is it, from where. The others stand at the call, once it
//! is known which model is wanted and by whom; only these can differ by model and tenant. A gate holds nothing: what it
//! goes by is in the machine, so that a chain is a list of functions and passing one costs a call. What an order would
//! make senseless or unsafe is refused when the config is read.

mod access_log;
mod authenticate;
pub mod cors;
pub mod ip_filter;
mod preprocess;
mod quota;
mod rate_limit;
mod verify_signature;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use kernel::fleet::Model;
use kernel::settings::Findings;
use kernel::{Call, Kind, Result, Terms, kind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tenancy::Directory;

use crate::credential::{Asked, Identity};
use crate::door::{Machine, Outgoing, Said, Target, Visit};
use crate::listener::Peer;
use crate::settings::Auth;

/// Every gate. The order is the one of a config that does not say.
pub const KINDS: &[Kind<Row>] = &[
    access_log::KIND,
    cors::KIND,
    ip_filter::KIND,
    authenticate::KIND,
    verify_signature::KIND,
    rate_limit::KIND,
    quota::KIND,
    preprocess::KIND,
];

/// What a row of the table says beside the name.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    work: Work,
    after: &'static [After],
}

/// A gate that must not come later.
#[derive(Debug, Clone, Copy)]
struct After {
    gate: &'static str,
    /// Whether it must be there at all.
    needed: bool,
    why: &'static str,
}

/// What a gate does, and where it stands.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Before the body is read.
    Head(AtHead),
    /// When all of the body is there, before it is understood.
    Body(AtBody),
    /// When it is known what is wanted.
    Call(AtCall),
}

type AtHead = for<'a> fn(&mut Entry<'a>) -> Result<Passed<'a>>;
type AtBody = fn(&Visit, &Bytes) -> Result<()>;
type AtCall = fn(&Machine, &mut Visit, Call) -> Result<Call>;

/// A request at the head.
pub(crate) struct Entry<'a> {
    pub(crate) machine: &'a Machine,
    /// Everybody, as it was when the request came.
    pub(crate) directory: &'a Directory,
    pub(crate) head: &'a Parts,
    pub(crate) said: &'a Said<'a>,
    pub(crate) peer: &'a Peer,
    /// What it wants; `None` where there is no such path or method.
    pub(crate) target: Option<&'a Target>,
    pub(crate) visit: &'a mut Visit,
}

/// What came of a gate at the head.
pub(crate) enum Passed<'a> {
    /// On to the next.
    On,
    /// That was all it wanted.
    Answered(Box<Response<Outgoing>>),
    /// Who it is must be asked elsewhere first.
    Asking(Asked<'a, Identity>),
}

/// A gate's name, as configs give it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct GateName(pub String);

/// The chain of one config.
pub struct Chain {
    head: Vec<AtHead>,
    body: Vec<AtBody>,
    call: Vec<AtCall>,
}

// === impl Chain ===

impl Chain {
    /// The chain of a validated list; `None`: all gates as they stand in the table.
    pub fn new(names: Option<&[GateName]>) -> Self {
        let all: Vec<&Kind<Row>> = match names {
            None => KINDS.iter().collect(),
            Some(names) => names.iter().filter_map(|name| kind::find(KINDS, &name.0)).collect(),
        };
        let at_head = |kind: &&Kind<Row>| if let Work::Head(work) = kind.build.work { Some(work) } else { None };
        let at_call = |kind: &&Kind<Row>| if let Work::Call(work) = kind.build.work { Some(work) } else { None };
        let at_body = |kind: &&Kind<Row>| if let Work::Body(work) = kind.build.work { Some(work) } else { None };
        Self {
            head: all.iter().filter_map(at_head).collect(),
            body: all.iter().filter_map(at_body).collect(),
            call: all.iter().filter_map(at_call).collect(),
        }
    }

    /// Takes a request past the gates at the head; an answer if one of them had it.
    pub(crate) async fn enter(&self, mut entry: Entry<'_>) -> Result<Option<Response<Outgoing>>> {
        for gate in &self.head {
            match gate(&mut entry)? {
                Passed::On => {}
                Passed::Answered(response) => return Ok(Some(*response)),
                Passed::Asking(asked) => {
                    let identity = asked.await?;
                    authenticate::seat(entry.visit, identity)?;
                }
            }
        }
        Ok(None)
    }

    /// Takes a body past the gates that look at it as it came.
    pub(crate) fn body(&self, visit: &Visit, body: &Bytes) -> Result<()> {
        self.body.iter().try_for_each(|gate| gate(visit, body))
    }

    /// Takes a call past the others: the model's own, else the tenant's own, else the chain's.
    pub(crate) fn call(
        &self,
        machine: &Machine,
        model: Option<&Model>,
        terms: &Terms,
        visit: &mut Visit,
        mut call: Call,
    ) -> Result<Call> {
        match model.and_then(|model| model.middleware.as_ref()).or(terms.middleware.as_ref()) {
            None => {
                for gate in &self.call {
                    call = gate(machine, visit, call)?;
                }
            }
            Some(own) => {
                for name in own.iter() {
                    if let Some(Row { work: Work::Call(gate), .. }) = kind::find(KINDS, name).map(|kind| kind.build) {
                        call = gate(machine, visit, call)?;
                    }
                }
            }
        }
        Ok(call)
    }
}

/// Finds what is wrong with a chain, by what the config says about credentials and whether it lists any.
pub fn validate(names: &[GateName], auth: Option<Auth>, has_keys: bool, path: &str, findings: &mut Findings) {
    let list: Vec<&str> = names.iter().map(|name| name.0.as_str()).collect();
    check(&list, path, &[], findings);
    if !list.contains(&authenticate::KIND.name) {
        // With nothing said it would be open until there is a first key, and this chain would stay so when there is one.
        let open = "lets everybody in without a credential, also once there are keys: add `authenticate`, or say `auth: none` if that is meant";
        let senseless = "does not look at the keys, tokens and certificates that are listed under `tenants`: add `authenticate`, or take them out";
        match auth {
            Some(Auth::None) if has_keys => findings.add(path, senseless),
            Some(Auth::None) => {}
            _ => findings.add(path, open),
        }
    }
    let (authenticates, verifies) = (authenticate::KIND.name, verify_signature::KIND.name);
    if list.contains(&authenticates) && !list.contains(&verifies) {
        let message =
            "lets a body be swapped under a good signature: `verify_signature` must stand behind `authenticate`";
        findings.add(path, message);
    }
}

/// Finds what is wrong with a model's or a tenant's own list.
pub fn validate_own(names: &[Arc<str>], path: &str, findings: &mut Findings) {
    let list: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    // By the time it counts, the whole head has been passed.
    let passed: Vec<&str> =
        KINDS.iter().filter(|kind| !matches!(kind.build.work, Work::Call(_))).map(|kind| kind.name).collect();
    check(&list, path, &passed, findings);
    for (i, name) in list.iter().enumerate() {
        if passed.contains(name) {
            let message = format!(
                "`{name}` does its work before the model and the tenant are known: it can only stand in the top-level `middleware`"
            );
            findings.add(format!("{path}[{i}]"), message);
        }
    }
}

fn check(list: &[&str], path: &str, passed: &[&str], findings: &mut Findings) {
    for (i, name) in list.iter().enumerate() {
        let place = format!("{path}[{i}]");
        let before = list.get(..i).unwrap_or_default();
        let Some(kind) = kind::find(KINDS, name) else {
            findings.add(place, format!("there is no `{name}`: use {}", kind::names(KINDS).join(", ")));
            continue;
        };
        findings.require(!before.contains(name), place.clone(), format!("`{name}` is listed twice"));
        for After { gate, needed, why } in kind.build.after {
            let later = list.contains(gate) && !before.contains(gate);
            let missing = *needed && !before.contains(gate) && !passed.contains(gate);
            if later || missing {
                findings.add(place.clone(), format!("`{gate}` must stand before `{name}`: {why}"));
            }
        }
    }
}

// === impl GateName ===

impl JsonSchema for GateName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GateName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": kind::names(KINDS) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(list: &[&str]) -> Vec<String> {
        let names: Vec<GateName> = list.iter().map(|name| GateName((*name).into())).collect();
        let mut findings = Findings::default();
        validate(&names, Some(Auth::Required), true, "middleware", &mut findings);
        findings.0.into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
    }

    #[test]
    fn the_tables_own_order_is_a_good_one() {
        assert_eq!(faults(&kind::names(KINDS)), Vec::<String>::new());
    }

    #[test]
    fn a_senseless_order_is_refused_with_the_reason() {
        let faults = faults(&["preprocess", "authenticate", "cors"]);
        assert!(faults[0].starts_with("middleware[0]: `authenticate` must stand before `preprocess`: "), "{faults:?}");
        assert!(faults[1].starts_with("middleware[1]: `cors` must stand before `authenticate`"), "{faults:?}");
    }

    #[test]
    fn a_chain_without_authentication_must_be_meant() {
        let fault = |auth, has_keys| {
            let mut findings = Findings::default();
            validate(&[GateName("access_log".into())], auth, has_keys, "middleware", &mut findings);
            findings.0.into_iter().map(|finding| finding.message).collect::<String>()
        };
        for has_keys in [false, true] {
            assert!(fault(Some(Auth::Required), has_keys).contains("lets everybody in"));
            assert!(fault(None, has_keys).contains("also once there are keys"), "a first key must shut the door");
        }
        assert_eq!(fault(Some(Auth::None), false), "");
        assert!(fault(Some(Auth::None), true).contains("does not look at the keys"));
    }

    #[test]
    fn unknown_doubled_and_misplaced_gates_are_named() {
        assert!(faults(&["authentcate", "authenticate"])[0].contains("there is no `authentcate`"));
        assert!(faults(&["authenticate", "authenticate"])[0].contains("twice"));
        let mut findings = Findings::default();
        validate_own(&["ip_filter".into(), "preprocess".into()], "models[0].middleware", &mut findings);
        assert_eq!(findings.0.len(), 1);
        assert_eq!(findings.0[0].path, "models[0].middleware[0]");
    }
}
