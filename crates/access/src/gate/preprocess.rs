//! `preprocess`: makes a request what its plan wants it to be. How, is the dialect's business.

use kernel::{Call, Caller, Kind, Result};
use wire::openai::preprocess;

use super::{After, Row, Work};
use crate::door::{Machine, Visit};

pub(super) const KIND: Kind<Row> = Kind {
    name: "preprocess",
    about: "Applies the plan's `preprocess` to the request: defaults, ceiling on tokens, system prompt, list of fields.",
    build: Row {
        work: Work::Call(pass),
        after: &[After { gate: "authenticate", needed: true, why: "whose plan it is must be known" }],
    },
};

fn pass(_: &Machine, visit: &mut Visit, call: Call) -> Result<Call> {
    match visit.caller.as_ref().and_then(|Caller { terms, .. }| terms.preprocess.as_ref()) {
        None => Ok(call),
        Some(rules) => preprocess::apply(call, rules),
    }
}
