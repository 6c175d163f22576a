//! `access_log`: from here on a request is written into the access log, whatever becomes of it.

use kernel::{Kind, Result};

use super::{Entry, Passed, Row, Work};

pub(super) const KIND: Kind<Row> = Kind {
    name: "access_log",
    about: "Requests that get this far are written into the access log, refused ones too.",
    build: Row { work: Work::Head(pass), after: &[] },
};

fn pass<'a>(entry: &mut Entry<'a>) -> Result<Passed<'a>> {
    entry.visit.logged = true;
    Ok(Passed::On)
}
