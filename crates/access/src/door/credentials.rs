//! Who calls, by the credential in the head.

use kernel::error::Kind;
use kernel::{Caller, Error, Origin, Result};
use tenancy::{Rejected, key};

use super::Machine;
use super::said::Said;

/// Finds the caller. On an open door a key that is known still says whose call it is.
pub(crate) fn identify(said: &Said<'_>, machine: &Machine) -> Result<Caller> {
    let known = presented(said).map(|key| (key, machine.register.find(key)));
    let caller = match known {
        Some((_, Ok(caller))) => caller,
        Some((_, Err(Rejected::Suspended))) => {
            return Err(forbidden("The tenant is suspended: ask whoever runs this gateway."));
        }
        Some((_, Err(Rejected::Unplanned))) => {
            return Err(forbidden("The tenant's plan is not known here: ask whoever runs this gateway."));
        }
        _ if machine.open() => Caller::anonymous(),
        None => return Err(refused("No API key was sent: send it as `Authorization: Bearer <key>`.")),
        Some((_, Err(Rejected::Expired))) => {
            return Err(refused("The API key has expired: ask for another one."));
        }
        Some((_, Err(Rejected::Revoked))) => {
            return Err(refused("The API key was revoked: ask for another one."));
        }
        Some((key, Err(Rejected::Unknown))) if key::mistyped(key) => {
            return Err(refused("The API key is mistyped or cut off: its check digits do not fit."));
        }
        Some((_, Err(Rejected::Unknown))) => return Err(refused("The API key is not known here.")),
    };
    agrees(said, &caller)?;
    Ok(caller)
}

/// The key a request shows, wherever its SDK puts it.
fn presented<'a>(said: &Said<'a>) -> Option<&'a str> {
    let bearer = said.authorization.and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let plain = || said.keys.iter().find_map(|key| key.as_ref()?.to_str().ok());
    bearer.or_else(plain).filter(|key| !key.is_empty())
}

/// A tenant named in the head must be the one the credential belongs to.
fn agrees(said: &Said<'_>, caller: &Caller) -> Result<()> {
    match said.tenant_id {
        Some(value) if value.as_bytes() != caller.tenant.as_str().as_bytes() => {
            let mut error = Error::new(
                Kind::Forbidden,
                Origin::Caller,
                "`x-tenant-id` names another tenant than the one the credential belongs to.",
            );
            error.field = Some("x-tenant-id".into());
            Err(error)
        }
        _ => Ok(()),
    }
}

fn forbidden(message: &'static str) -> Error {
    Error::new(Kind::Forbidden, Origin::Caller, message)
}

fn refused(message: &'static str) -> Error {
    Error::new(Kind::Unauthenticated, Origin::Caller, message)
}
