//! Who calls, by what the request shows.
//!
//! [`KINDS`] has one row per kind of credential. Every one that a request carries must be right, and all must belong to
//! the same tenant: what a proxy added, or an attacker, cannot hide behind what is genuine. Nothing waits but a token
//! whose issuer must be asked first; everything else is answered from memory.

mod api_key;
mod certificate;
mod introspection;
mod jwt;
mod members;
mod settings;
pub mod signature;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use kernel::error::Kind as ErrorKind;
use kernel::fetch::Fetch;
use kernel::share::Once;
use kernel::sight::{Gauges, Sample};
use kernel::{Caller, CredentialKind, Error, Network, Origin, Result, Scope, Timestamp};
use tenancy::{Directory, Rejected};

use self::introspection::Introspection;
use self::jwt::Tokens;
use self::signature::{Nonces, Shared};
use crate::door::Said;
use crate::listener::Peer;

pub use self::certificate::Certificate;
pub use self::settings::{IntrospectionSettings, IssuerSettings};
pub(crate) use self::signature::Promise;

/// One kind of credential: does the request carry it, and whose is it?
struct Kind {
    /// Its name, as in a plan's `auth`.
    kind: CredentialKind,
    find: for<'a> fn(Shown<'a>, Desk<'a>) -> Found<'a>,
}

/// All kinds. Of several that a request carries, the first counts; the others must agree.
const KINDS: &[Kind] = &[
    Kind { kind: CredentialKind::Signature, find: signature::find },
    Kind { kind: CredentialKind::Jwt, find: jwt::find },
    Kind { kind: CredentialKind::Oauth2, find: introspection::find },
    Kind { kind: CredentialKind::ApiKey, find: api_key::find },
    Kind { kind: CredentialKind::Mtls, find: certificate::find },
];

/// What comes once somebody has been asked.
pub(crate) type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What a kind makes of a request.
enum Found<'a> {
    /// It carries no such credential.
    Absent,
    /// It does, and whose it is. The kind is said where it is not the row's.
    Known(Caller, Option<CredentialKind>),
    /// A signature of this caller's key, and what it says about the body.
    Signed(Caller, Promise),
    /// It does, and it is worth nothing.
    Refused(Error),
    /// Somebody must be asked first.
    Asking(Asked<'a, Found<'a>>),
}

/// A request, as far as credentials go.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    head: &'a Parts,
    /// What follows `Authorization: Bearer`.
    bearer: Option<&'a str>,
    /// What stands in the headers where SDKs put API keys.
    plain: Option<&'a str>,
    tenant: Option<&'a HeaderValue>,
    peer: &'a Peer,
}

/// What credentials are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) credentials: &'a Credentials,
    /// Whether anyone may call; a known credential still says whose call it is.
    pub(crate) open: bool,
}

/// What a config says about credentials, joined with what is remembered of them.
#[derive(Clone, Default)]
pub struct Credentials {
    state: Arc<State>,
    issuers: IssuerSettings,
    introspection: Option<Arc<Introspection>>,
    trusted_peers: Arc<[Network]>,
}

/// What is remembered of credentials; it outlives configs.
#[derive(Default)]
pub struct State {
    tokens: Tokens,
    introspected: Arc<introspection::Memory>,
    nonces: Nonces,
    /// Where other processes' nonces are known.
    shared: Option<Shared>,
}

/// Who turned out to call.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The caller.
    pub caller: Caller,
    /// By what; `None` where no credential was asked for, or a trusted peer said so.
    pub by: Option<CredentialKind>,
    pub(crate) promise: Promise,
}

/// Whose a request is.
pub(crate) enum Sought<'a> {
    /// Nobody had to be asked.
    Found(Result<Identity>),
    /// Somebody is.
    Asking(Asked<'a, Identity>),
}

/// Finds the caller by the head of a request. What a signature says about the body is checked by
/// [`verify_signature`] once the body is there.
pub(crate) fn identify<'a>(shown: Shown<'a>, desk: Desk<'a>) -> Sought<'a> {
    go_on(shown, desk, KINDS, None)
}

/// Looks at the rest of the table; `identity` is whose the request is by what came before.
fn go_on<'a>(
    shown: Shown<'a>,
    desk: Desk<'a>,
    mut rows: &'static [Kind],
    mut identity: Option<Identity>,
) -> Sought<'a> {
    while let Some((row, rest)) = rows.split_first() {
        rows = rest;
        let found = match (row.find)(shown, desk) {
            Found::Asking(asking) => {
                return Sought::Asking(Box::pin(async move {
                    let found = asking.await.unwrap_or_else(Found::Refused);
                    note(&mut identity, row.kind, found, desk.open)?;
                    match go_on(shown, desk, rest, identity) {
                        Sought::Found(found) => found,
                        Sought::Asking(asking) => asking.await,
                    }
                }));
            }
            found => found,
        };
        if let Err(error) = note(&mut identity, row.kind, found, desk.open) {
            return Sought::Found(Err(error));
        }
    }
    Sought::Found(judge(shown, desk, identity))
}

/// Takes down what a kind found.
fn note(identity: &mut Option<Identity>, kind: CredentialKind, found: Found<'_>, open: bool) -> Result<()> {
    let (caller, by, promise) = match found {
        Found::Absent | Found::Asking(_) => return Ok(()),
        // Anyone may call: a bad credential is as good as none.
        Found::Refused(_) if open => return Ok(()),
        Found::Refused(error) => return Err(error),
        Found::Known(caller, by) => (caller, by, Promise::Nothing),
        Found::Signed(caller, promise) => (caller, None, promise),
    };
    match identity {
        None => *identity = Some(Identity { caller, by: by.or(Some(kind)), promise }),
        Some(first) => agree(first, &caller, kind)?,
    }
    Ok(())
}

/// Whether whoever was found may call in this way.
fn judge(shown: Shown<'_>, desk: Desk<'_>, identity: Option<Identity>) -> Result<Identity> {
    let identity = match identity {
        Some(identity) => identity,
        None => stranger(shown, desk)?,
    };
    if matches!(identity.by, Some(CredentialKind::Jwt | CredentialKind::Oauth2)) {
        // A token says whose it is for as long as it lives; whether that tenant is let in says the directory of today.
        desk.directory.tenant(identity.caller.tenant.as_str()).map_err(rejected)?;
    }
    claimed(shown, &identity.caller)?;
    allowed(&identity)?;
    Ok(identity)
}

/// Checks the body against what the signature in the head covers. Without a signature there is nothing to check.
///
/// # Errors
/// 401 where the body is not the one that was signed.
pub(crate) fn verify_signature(promise: Promise, body: &Bytes) -> Result<()> {
    signature::verify_body(promise, body)
}

/// Who calls without any credential.
fn stranger(shown: Shown<'_>, desk: Desk<'_>) -> Result<Identity> {
    let nobody = |caller| Identity { caller, by: None, promise: Promise::Nothing };
    if let Some(named) = shown.tenant.filter(|_| desk.credentials.trusts(shown.peer.address)) {
        let known = named.to_str().map_or(Err(Rejected::Unknown), |id| desk.directory.tenant(id));
        let unknown = |why| {
            if why != Rejected::Unknown {
                return rejected(why);
            }
            let mut error = refused("`x-tenant-id` names a tenant that is not known here.");
            error.field = Some("x-tenant-id".into());
            error
        };
        return known.map(nobody).map_err(unknown);
    }
    if desk.open {
        return Ok(nobody(Caller::anonymous()));
    }
    let mut error = refused("No API key was sent: send it as `Authorization: Bearer <key>`.");
    error.cause = NO_CREDENTIAL.into();
    Err(error)
}

/// Several credentials must be of one tenant, and of one key where both are made of a key.
fn agree(first: &Identity, other: &Caller, by: CredentialKind) -> Result<()> {
    let of_key =
        |kind: Option<CredentialKind>| matches!(kind, Some(CredentialKind::Signature | CredentialKind::ApiKey));
    let same_key = !of_key(first.by) || !of_key(Some(by)) || first.caller.key == other.key;
    if first.caller.tenant == other.tenant && same_key {
        return Ok(());
    }
    let first = first.by.map_or("", CredentialKind::as_str);
    let message = format!(
        "The request shows two credentials ({first}, {}) that do not belong to the same caller: send one.",
        by.as_str()
    );
    Err(Error::new(ErrorKind::Forbidden, Origin::Caller, message))
}

/// A tenant named in the head must be the one the credential belongs to.
fn claimed(shown: Shown<'_>, caller: &Caller) -> Result<()> {
    match shown.tenant {
        Some(value) if value.as_bytes() != caller.tenant.as_str().as_bytes() => {
            let message = "`x-tenant-id` names another tenant than the one the credential belongs to.";
            let mut error = Error::new(ErrorKind::Forbidden, Origin::Caller, message);
            error.field = Some("x-tenant-id".into());
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Whether the caller may show itself in this way.
fn allowed(identity: &Identity) -> Result<()> {
    let Some(by) = identity.by else { return Ok(()) };
    let terms = &identity.caller.terms;
    if !terms.credentials.is_empty() && !terms.credentials.contains(&by) {
        let accepted: Vec<&str> = terms.credentials.iter().map(|kind| kind.as_str()).collect();
        let message = format!(
            "The tenant's plan does not let anybody in by {}. It accepts: {}.",
            by.as_str(),
            accepted.join(", ")
        );
        return Err(Error::new(ErrorKind::Forbidden, Origin::Caller, message));
    }
    if !terms.scopes.contains(&Scope::Inference) {
        let message = "This credential may not call models: its scopes do not have `inference`.";
        return Err(Error::new(ErrorKind::Forbidden, Origin::Caller, message));
    }
    if terms.signed && by != CredentialKind::Signature {
        return Err(refused("Requests with this key must be signed: `sluice sign` shows how."));
    }
    Ok(())
}

/// What a 401 without any credential is told from the others by.
const NO_CREDENTIAL: &str = "no_credential";

/// Why somebody who is known is not let in.
fn rejected(why: Rejected) -> Error {
    let forbidden = |message| Error::new(ErrorKind::Forbidden, Origin::Caller, message);
    match why {
        Rejected::Unknown => refused("The API key is not known here."),
        Rejected::Revoked => refused("The API key was revoked: ask for another one."),
        Rejected::Expired => refused("The API key has expired: ask for another one."),
        Rejected::Suspended => forbidden("The tenant is suspended: ask whoever runs this gateway."),
        Rejected::Unplanned => forbidden("The tenant's plan is not known here: ask whoever runs this gateway."),
    }
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::Unauthenticated, Origin::Caller, message)
}

/// The `WWW-Authenticate` of a 401 (RFC 6750 §3).
pub(crate) fn challenge(error: &Error) -> HeaderValue {
    let bare = HeaderValue::from_static("Bearer realm=\"sluice\"");
    if error.cause == NO_CREDENTIAL {
        return bare;
    }
    // The grammar knows no escapes: what would need one is left out.
    let described: String =
        error.message.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
    let text = format!("Bearer realm=\"sluice\", error=\"invalid_token\", error_description=\"{described}\"");
    HeaderValue::from_str(&text).unwrap_or(bare)
}

// === impl Shown ===

impl<'a> Shown<'a> {
    /// What a request's head and its connection show.
    pub(crate) fn new(head: &'a Parts, said: &Said<'a>, peer: &'a Peer) -> Self {
        let bearer = said.authorization.and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let plain = said.keys.iter().find_map(|key| key.as_ref()?.to_str().ok());
        let some = |text: &&str| !text.is_empty();
        Self { head, bearer: bearer.filter(some), plain: plain.filter(some), tenant: said.tenant_id, peer }
    }
}

// === impl Credentials ===

impl Credentials {
    /// What a config says, over what is remembered; whoever must be asked is asked with `fetch`.
    pub fn new(
        issuers: &IssuerSettings,
        introspection: Option<&IntrospectionSettings>,
        trusted_peers: &[String],
        state: &Arc<State>,
        fetch: &Arc<dyn Fetch>,
    ) -> Self {
        let memory = &state.introspected;
        Self {
            issuers: issuers.clone(),
            introspection: introspection.map(|settings| Arc::new(Introspection::new(settings, memory, fetch))),
            trusted_peers: trusted_peers.iter().filter_map(|text| Network::parse(text)).collect(),
            state: Arc::clone(state),
        }
    }

    /// How issuers are asked for their keys.
    pub fn issuers(&self) -> &IssuerSettings {
        &self.issuers
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|ip| self.trusted_peers.iter().any(|network| network.holds(ip)))
    }
}

// === impl State ===

impl State {
    /// A state whose nonces count once among all processes. Where nobody can be asked, what this one knows must do; or, if
    /// it is `strict`, requests are refused.
    pub fn sharing(once: Arc<dyn Once>, strict: bool) -> Self {
        Self { shared: Some(Shared::new(once, strict)), ..Self::default() }
    }

    /// Keeps the keys of the issuers that `trusted` names, and renews them in time. Never returns.
    pub async fn look_after(
        &self,
        fetch: Arc<dyn Fetch>,
        settings: impl Fn() -> IssuerSettings,
        trusted: impl Fn() -> Vec<Box<str>>,
    ) {
        self.tokens.issuers().look_after(fetch, settings, trusted).await
    }
}

impl Gauges for State {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        to(Sample {
            name: "sluice_nonces_alone_total",
            help: "Signed requests let in while Redis did not say whether another process has seen their nonce.",
            counter: true,
            labels: Vec::new(),
            value: self.shared.as_ref().map_or(0, Shared::alone) as f64,
        });
    }
}

/// Now, in seconds since 1970.
fn seconds() -> i64 {
    Timestamp::now().millis() / 1000
}

#[cfg(test)]
mod tests;
