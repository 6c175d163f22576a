//! `authenticate`: finds out who calls.

use kernel::error::Kind as ErrorKind;
use kernel::{Error, Kind, Origin, Result};

use super::{After, Entry, Passed, Row, Work};
use crate::door::credentials;

pub(super) const KIND: Kind<Row> = Kind {
    name: "authenticate",
    about: "Finds out who calls, by the credential shown; without a good one requests are refused with 401.",
    build: Row {
        work: Work::Head(pass),
        after: &[After {
            gate: "cors",
            needed: false,
            why: "browsers ask without a credential whether a page may call",
        }],
    },
};

fn pass<'a>(entry: &mut Entry<'a>) -> Result<Passed<'a>> {
    // Behind a path that does not exist there is nothing to guard, and whoever mistypes one is to be told so.
    if entry.target.is_some() {
        let caller = credentials::identify(entry.said, entry.machine)?;
        let origins = &caller.terms.origins;
        if !origins.everywhere() && !entry.visit.address.is_some_and(|address| origins.hold(address)) {
            let message = "This credential may not be used from this address.";
            return Err(Error::new(ErrorKind::Forbidden, Origin::Caller, message));
        }
        entry.visit.caller = Some(caller);
    }
    Ok(Passed::On)
}
