//! `authenticate`: finds out who calls.

use kernel::error::Kind as ErrorKind;
use kernel::{Error, Kind, Origin, Result};

use super::{After, Entry, Passed, Row, Work};
use crate::credential::{self, Desk, Identity, Shown, Sought};
use crate::door::Visit;

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
    if entry.target.is_none() {
        return Ok(Passed::On);
    }
    let shown = Shown::new(entry.head, entry.said, entry.peer);
    let machine = entry.machine;
    let desk = Desk { directory: entry.directory, credentials: &machine.credentials, open: machine.open() };
    match credential::identify(shown, desk) {
        Sought::Found(found) => seat(entry.visit, found?).map(|()| Passed::On),
        Sought::Asking(asking) => Ok(Passed::Asking(asking)),
    }
}

/// The request is this caller's from here on, if it may call from where it does.
pub(super) fn seat(visit: &mut Visit, identity: Identity) -> Result<()> {
    let origins = &identity.caller.terms.origins;
    if !origins.everywhere() && !visit.address.is_some_and(|address| origins.hold(address)) {
        let message = "This credential may not be used from this address.";
        return Err(Error::new(ErrorKind::Forbidden, Origin::Caller, message));
    }
    visit.promise = identity.promise;
    visit.caller = Some(identity.caller);
    Ok(())
}
