//! `quota`: holds calls to what may be spent.
//!
//! Budgets and balances are judged where it is known what an attempt costs, on the model it is really sent to; here it is
//! only said that they are. Without this gate calls are counted and charged all the same, and never refused for money.

use kernel::{Call, Kind, Result};

use super::{After, Row, Work};
use crate::door::{Machine, Visit};

pub(super) const KIND: Kind<Row> = Kind {
    name: "quota",
    about: "Holds calls to budgets and balances: what cannot be paid for is refused with 402, or cut off.",
    build: Row {
        work: Work::Call(pass),
        after: &[After { gate: "authenticate", needed: true, why: "whose budgets count must be known" }],
    },
};

fn pass(_: &Machine, visit: &mut Visit, call: Call) -> Result<Call> {
    visit.budgeted = true;
    Ok(call)
}
