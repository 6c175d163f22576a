//! `verify_signature`: holds a signed request's body against what its signature covers.
//!
//! The signature itself is judged by `authenticate`: it says who calls, and that is known before a byte of the body is
//! read.

use bytes::Bytes;
use kernel::{Kind, Result};

use super::{After, Row, Work};
use crate::credential;
use crate::door::Visit;

pub(super) const KIND: Kind<Row> = Kind {
    name: "verify_signature",
    about: "Refuses with 401 a signed request whose body is not the one that was signed.",
    build: Row {
        work: Work::Body(pass),
        after: &[After { gate: "authenticate", needed: true, why: "it finds the signature" }],
    },
};

fn pass(visit: &Visit, body: &Bytes) -> Result<()> {
    credential::verify_signature(visit.promise, body)
}
