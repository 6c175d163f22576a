//! Tokens that their issuer signed (RFC 7519, checked as RFC 8725 and RFC 9068 advise).
//!
//! The order is the point: a token's issuer must be one that some tenant trusts before anything else of it is believed;
//! the issuer's own keys say which algorithms count; the signature is checked; only then do its claims mean anything. A
//! `kid` is looked up in a map and used for nothing else. What has been verified is remembered until it ends.

mod issuer;
mod keys;
mod recall;
mod token;

use std::sync::Arc;
use std::time::Duration;

use kernel::error::Kind as ErrorKind;
use kernel::{Caller, CredentialKind, Error, KeyId, Origin, Terms};
use tenancy::identity::Binding;

use self::issuer::{Issuer, Issuers};
use self::recall::{Recall, Remembered};
use self::token::Token;
use super::members::Members;
use super::{Desk, Found, Shown, refused, seconds};

/// By how much two clocks may differ, in seconds.
pub(super) const LEEWAY: i64 = 30;
/// Bound: how long a user's name may be in limits, logs and bills.
const USER_MAX: usize = 128;

/// The issuers' keys, and the tokens that were verified with them.
#[derive(Default)]
pub(super) struct Tokens {
    issuers: Arc<Issuers>,
    recall: Recall,
}

/// What a verified token says, and with whose keys it was verified.
#[derive(Debug)]
pub(super) struct Verified {
    issuer: Arc<Issuer>,
    /// The generation of keys it was verified with.
    generation: u64,
    claims: Members,
    /// Whether it says itself that it is an access token.
    access_token: bool,
    /// When it ends, in seconds since 1970.
    until: i64,
}

/// Why a token is not verified.
enum Obstacle {
    /// It never will be.
    Refused(Error),
    /// Its issuer's keys are not here, or none of them has its `kid`.
    NoKey(Arc<Issuer>),
}

impl Tokens {
    pub(super) fn issuers(&self) -> &Arc<Issuers> {
        &self.issuers
    }
}

/// Whether a bearer token is for this kind to judge: it has a token's form, and some tenant trusts an issuer.
pub(super) fn is_one(token: &str, desk: Desk<'_>) -> bool {
    desk.directory.identities().trusts_tokens() && token::looks_like_one(token)
}

pub(super) fn find<'a>(shown: Shown<'a>, desk: Desk<'a>) -> Found<'a> {
    let Some(text) = shown.bearer.filter(|token| is_one(token, desk)) else { return Found::Absent };
    let (tokens, now) = (&desk.credentials.state.tokens, seconds());
    let print = recall::print(text);
    if let Some((caller, by)) = tokens.recall.find(&print, now, desk) {
        return Found::Known(caller, Some(by));
    }
    match verify(text, desk, now) {
        Ok(verified) => match admit(verified, print, desk, now) {
            Ok((caller, by)) => Found::Known(caller, Some(by)),
            Err(error) => Found::Refused(error),
        },
        Err(Obstacle::Refused(error)) => Found::Refused(error),
        Err(Obstacle::NoKey(issuer)) => Found::Asking(Box::pin(async move {
            tokens.issuers.renewed(&issuer).await;
            let now = seconds();
            match verify(text, desk, now) {
                Ok(verified) => admit(verified, print, desk, now).map(|(caller, by)| Found::Known(caller, Some(by))),
                Err(Obstacle::Refused(error)) => Err(error),
                Err(Obstacle::NoKey(issuer)) if issuer.keys().is_some() => Err(not_verified()),
                Err(Obstacle::NoKey(_)) => Err(no_keys()),
            }
        })),
    }
}

/// Checks everything about a token that does not depend on the tenant.
fn verify(text: &str, desk: Desk<'_>, now: i64) -> Result<Verified, Obstacle> {
    let token = Token::read(text).map_err(|message| Obstacle::Refused(refused(message)))?;
    let name = token.claims.text("iss").ok_or_else(|| Obstacle::Refused(refused(MISSING)))?;
    if desk.directory.identities().issuer(name).is_empty() {
        return Err(Obstacle::Refused(refused("The token's issuer (`iss`) is not one that is trusted here.")));
    }
    let issuer = desk.credentials.state.tokens.issuers.get(name);
    let Some(held) = issuer.keys() else { return Err(Obstacle::NoKey(issuer)) };
    let Some(key) = held.keys.find(token.kid(), token.algorithm) else { return Err(Obstacle::NoKey(issuer)) };
    if !key.verifies(token.algorithm, token.signed, &token.signature) {
        return Err(Obstacle::Refused(not_verified()));
    }
    let until = times(&token.claims, now).map_err(|message| Obstacle::Refused(refused(message)))?;
    Ok(Verified { issuer, generation: held.generation, access_token: token.access_token, claims: token.claims, until })
}

const MISSING: &str = "The token lacks a claim it must have: `iss`, `aud`, `exp` and `iat` are demanded.";

/// Checks when a token is good; gives its end.
fn times(claims: &Members, now: i64) -> Result<i64, &'static str> {
    let (exp, iat) = claims.seconds("exp").zip(claims.seconds("iat")).ok_or(MISSING)?;
    if claims.get("aud").is_none() {
        return Err(MISSING);
    }
    let nbf = match claims.get("nbf") {
        None => None,
        Some(_) => Some(claims.seconds("nbf").ok_or("The token's `nbf` is no point in time.")?),
    };
    if exp.saturating_add(LEEWAY) <= now {
        return Err("The token has expired: ask its issuer for a new one.");
    }
    if iat > now + LEEWAY || nbf.is_some_and(|nbf| nbf > now + LEEWAY) {
        return Err("The token is not valid yet: the clock of its issuer, or the one here, is wrong.");
    }
    if exp <= iat {
        return Err("The token ends before it begins.");
    }
    Ok(exp.saturating_add(LEEWAY))
}

/// Finds whose a verified token is, and remembers it.
fn admit(
    verified: Verified,
    print: recall::Print,
    desk: Desk<'_>,
    now: i64,
) -> Result<(Caller, CredentialKind), Error> {
    let bindings = desk.directory.identities().issuer(verified.issuer.name());
    let caller = owner(bindings, &verified.claims, true)?;
    let by = kind(verified.access_token, &caller);
    let (known, until) = ((caller.clone(), by), verified.until);
    let remembered =
        Remembered { verified: Arc::new(verified), caller, by, serial: desk.directory.identities().serial() };
    desk.credentials.state.tokens.recall.keep(print, remembered, until, now);
    Ok(known)
}

/// An access token that says so is OAuth's too: a plan may name either.
fn kind(access_token: bool, caller: &Caller) -> CredentialKind {
    let named = caller.terms.credentials.contains(&CredentialKind::Jwt);
    if access_token && !named { CredentialKind::Oauth2 } else { CredentialKind::Jwt }
}

/// Whose the claims of an issuer are: the one tenant whose conditions they fulfil.
pub(super) fn owner(bindings: &[Binding], claims: &Members, audience: bool) -> Result<Caller, Error> {
    let said = claims.texts("aud");
    let for_us = |binding: &&Binding| match &said {
        Some(said) => said.contains(&binding.settings.audience.as_str()),
        None => !audience && claims.get("aud").is_none(),
    };
    let meant: Vec<&Binding> = bindings.iter().filter(for_us).collect();
    if meant.is_empty() {
        return Err(refused("The token is for another service: its `aud` is not the one expected here."));
    }
    let client = claims.text("client_id").or_else(|| claims.text("azp"));
    let mut owners = meant.into_iter().filter(|binding| {
        let settings = &binding.settings;
        let named = settings
            .tenant_claim
            .as_ref()
            .is_none_or(|claim| claims.text(claim) == Some(binding.caller.tenant.as_str()));
        let listed = |client: &str| settings.clients.iter().any(|listed| listed == client);
        named && (settings.clients.is_empty() || client.is_some_and(listed))
    });
    match (owners.next(), owners.next()) {
        (Some(binding), None) => user(binding, claims),
        // The config is refused before it comes to two of them.
        _ => Err(refused("The token belongs to no tenant here: the claim that names one is missing or says another.")),
    }
}

/// The tenant, with the token's user in place of a key and the token's scopes in place of the plan's.
fn user(binding: &Binding, claims: &Members) -> Result<Caller, Error> {
    let settings = &binding.settings;
    let mut caller = binding.caller.clone();
    if let Some(user) = claims.text(&settings.key_claim) {
        let plain = (1..=USER_MAX).contains(&user.len()) && !user.chars().any(char::is_control);
        if !plain {
            return Err(refused(
                "The token's user is no name: empty, longer than 128 bytes, or with control characters.",
            ));
        }
        // Invariant: no API key's id has a colon in it, so nobody shares a key's limits by being named like it.
        caller.key = Some(KeyId::new(format!("user:{user}")));
    }
    if let Some(claim) = &settings.scope_claim {
        let words = claims.texts(claim).unwrap_or_default();
        let scopes = settings.scopes(words.iter().flat_map(|words| words.split(' ')));
        caller.terms = Arc::new(Terms { scopes, ..Terms::clone(&caller.terms) });
    }
    Ok(caller)
}

/// The same words for a key that is not there and a signature that is wrong: nobody learns which keys there are.
fn not_verified() -> Error {
    refused("The token's signature is not one of its issuer's: it was changed on the way, or made with another key.")
}

fn no_keys() -> Error {
    let message = "The keys of the token's issuer cannot be had at the moment.";
    Error::new(ErrorKind::Unavailable, Origin::Gateway, message).after(Duration::from_secs(1))
}

impl Verified {
    /// Whether it would still be verified, but for its end.
    fn stands(&self) -> bool {
        self.issuer.still(self.generation)
    }
}
