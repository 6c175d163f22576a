//! Who asks: whoever shows the admin token is the operator, whoever shows an API key speaks for its tenant.

use std::net::IpAddr;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use kernel::settings::Secret;
use kernel::{Caller, CredentialKind, KeyId, Scope, TenantId};
use tenancy::Rejected;

use super::route::Who;
use super::{Plane, Refusal};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Nobody knows: no credential was asked for.
    Nobody,
    /// Whoever runs Sluice.
    Operator,
    /// A tenant, by one of its keys.
    Key {
        /// Whose.
        tenant: TenantId,
        /// Which.
        key: Option<KeyId>,
        /// Whether it may change things; else it only reads.
        admin: bool,
    },
}

/// A new token: 256 bits of chance, in hexadecimal.
///
/// # Errors
/// When the system gives no randomness.
pub fn new_token() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}")))
}

impl By {
    /// Finds out who asks, by the credential in the head and the address it came from.
    ///
    /// # Errors
    /// 401 without a credential that is known; 403 with one that has no business here; 503 where no token is kept.
    pub(super) fn identify(plane: &Plane, headers: &HeaderMap, peer: IpAddr) -> Result<Self, Refusal> {
        let machine = plane.door.machine();
        let Some(shown) = shown(headers) else {
            let message =
                "Send the admin token, or an API key with the scope `admin` or `usage`, as `Authorization: Bearer …`.";
            return Err(unauthorized(message));
        };
        // Secrets compare in constant time.
        if machine.admin_token.as_ref().is_some_and(|token| *token == shown) {
            return Ok(Self::Operator);
        }
        match machine.register.find(shown.expose()) {
            Ok(caller) => Self::key(&caller, peer),
            Err(Rejected::Suspended) => Err(forbidden("The tenant is suspended: ask whoever runs this gateway.")),
            Err(Rejected::Unplanned) => {
                Err(forbidden("The tenant's plan is not known here: ask whoever runs this gateway."))
            }
            Err(Rejected::Expired) => Err(unauthorized("The API key has expired.")),
            Err(Rejected::Revoked) => Err(unauthorized("The API key was revoked.")),
            Err(Rejected::Unknown) if machine.admin_token.is_none() => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "admin_closed",
                "The admin API is closed: no `admin.token` is configured, and none can be kept in the data directory.",
            )),
            Err(Rejected::Unknown) => Err(unauthorized("The admin token is not the right one.")),
        }
    }

    /// Whether it may use an endpoint that is about this tenant, where it is about one.
    ///
    /// # Errors
    /// 403; 404 where it is about another tenant.
    pub(super) fn may(&self, who: Who, tenant: Option<&str>) -> Result<(), Refusal> {
        match (self, who) {
            (_, Who::Anybody) | (Self::Operator, _) => Ok(()),
            (Self::Nobody, _) => Err(unauthorized("Send a credential.")),
            (Self::Key { .. }, Who::Operator) => Err(forbidden("Only an operator may do this, with the admin token.")),
            (Self::Key { admin: false, .. }, Who::Admin) => {
                Err(forbidden("This key may only read: its scopes do not have `admin`."))
            }
            (Self::Key { tenant: own, .. }, Who::Admin | Who::Reader) => match tenant {
                Some(asked) if asked != own.as_str() => Err(Refusal::missing("tenant")),
                _ => Ok(()),
            },
        }
    }

    /// In a word, for the operator's log.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Nobody => "nobody".into(),
            Self::Operator => "operator".into(),
            Self::Key { tenant, key, .. } => {
                format!("{tenant}/{}", key.as_ref().map_or("no key", KeyId::as_str))
            }
        }
    }

    fn key(caller: &Caller, peer: IpAddr) -> Result<Self, Refusal> {
        let has = |scope| caller.terms.scopes.contains(&scope);
        if !has(Scope::Admin) && !has(Scope::Usage) {
            return Err(forbidden("This key may not use the admin API: its scopes have neither `admin` nor `usage`."));
        }
        let accepted = &caller.terms.credentials;
        if !accepted.is_empty() && !accepted.contains(&CredentialKind::ApiKey) {
            return Err(forbidden("The tenant's plan does not let anybody in by an API key."));
        }
        if caller.terms.signed {
            return Err(forbidden(
                "This key lets in signed requests only, and the admin API takes none: use another key.",
            ));
        }
        if !caller.terms.origins.hold(peer) {
            return Err(forbidden("This key may not be used from this address."));
        }
        Ok(Self::Key { tenant: caller.tenant.clone(), key: caller.key.clone(), admin: has(Scope::Admin) })
    }
}

/// The credential in the head.
fn shown(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| Secret::new(token))
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_admin_token", message)
}

fn forbidden(message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
}
