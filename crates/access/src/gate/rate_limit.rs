//! `rate_limit`: takes a call's part of its caller's limits, or refuses it with 429. What is taken is kept by the visit.

use kernel::{Call, Kind, Result};

use super::{After, Row, Work};
use crate::door::{Machine, Visit};

pub(super) const KIND: Kind<Row> = Kind {
    name: "rate_limit",
    about: "Keeps tenants, keys and models to their requests and tokens per time and calls at once; else 429.",
    build: Row {
        work: Work::Call(pass),
        after: &[After { gate: "authenticate", needed: true, why: "whose limits they are must be known" }],
    },
};

fn pass(machine: &Machine, visit: &mut Visit, call: Call) -> Result<Call> {
    // A model that nobody serves is answered with 404, and is no key to count by.
    if visit.model.is_some() {
        visit.admit(&machine.limiter, &call)?;
    }
    Ok(call)
}
