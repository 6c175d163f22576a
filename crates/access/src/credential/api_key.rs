//! API keys: found by their keyed hash.

use tenancy::{Rejected, key};

use super::{Desk, Found, Shown, refused, rejected};

pub(super) fn find<'a>(shown: Shown<'a>, desk: Desk<'a>) -> Found<'a> {
    // A bearer token that is somebody else's trade is no key, whether it is any good or not.
    let bearer =
        shown.bearer.filter(|token| !super::jwt::is_one(token, desk) && !super::introspection::is_one(token, desk));
    let Some(key) = bearer.or(shown.plain) else { return Found::Absent };
    match desk.directory.find(key) {
        Ok(caller) => Found::Known(caller, None),
        Err(Rejected::Unknown) if key::mistyped(key) => {
            Found::Refused(refused("The API key is mistyped or cut off: its check digits do not fit."))
        }
        Err(why) => Found::Refused(rejected(why)),
    }
}
