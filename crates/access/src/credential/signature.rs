//! Signed requests: a profile of HTTP Message Signatures (RFC 9421) with HMAC-SHA256.
//!
//! A signature covers at least `@method`, `@authority`, `@path` and `@query`, and `content-digest` (RFC 9530) where there
//! is a body; it has `created`, `expires`, `nonce`, `keyid` and `alg`. The head is judged before a byte of the body is
//! read, the body when it is there. A nonce counts once. What is unclear (two labels, a header twice in the list, two
//! hosts) is refused: between two readings an attacker finds room.

mod base;
mod fields;
mod nonces;
mod shared;
mod sign;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{constant_time, hmac};
use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;
use kernel::error::Kind as ErrorKind;
use kernel::{Error, KeyId, Origin, Result};
use tenancy::Rejected;

use self::fields::{Bare, List};
pub(super) use self::nonces::Nonces;
pub(super) use self::shared::Shared;
pub use self::sign::{Request, SignFault, Signed, sign};
use super::{Desk, Found, Shown, refused, rejected, seconds};

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// The label ours has where a request bears several signatures.
const LABEL: &str = "sluice";
const ALGORITHM: &str = "hmac-sha256";
const DIGEST: &str = "content-digest";
/// What every signature covers.
const COVERED: [&str; 4] = ["@method", "@authority", "@path", "@query"];

/// By how much the signer's clock may be ahead of ours, in seconds.
const SKEW: i64 = 30;
/// Bound: how long after `created` a signature may expire, in seconds. Nonces are kept for so long.
const LIFETIME_MAX: i64 = 300;
/// Bound: a nonce's length. Shorter ones repeat by chance.
const NONCE: std::ops::RangeInclusive<usize> = 8..=128;
/// Bound: a key's id.
const KEY_ID_MAX: usize = 128;

/// What a verified signature says about the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing was signed.
    Nothing,
    /// There is none.
    Empty,
    /// It has this SHA-256.
    Digest([u8; 32]),
}

/// Whether a request bears signatures at all.
pub(super) fn is_there(head: &Parts) -> bool {
    head.headers.contains_key(SIGNATURE_INPUT) || head.headers.contains_key(SIGNATURE)
}

pub(super) fn find<'a>(shown: Shown<'a>, desk: Desk<'a>) -> Found<'a> {
    if !is_there(shown.head) {
        return Found::Absent;
    }
    match verify_head(shown, desk, seconds()) {
        Ok(found) => found,
        Err(error) => Found::Refused(error),
    }
}

/// Verifies all that is in the head.
fn verify_head<'a>(shown: Shown<'_>, desk: Desk<'a>, now: i64) -> Result<Found<'a>> {
    let headers = &shown.head.headers;
    let input = base::combined(headers, &SIGNATURE_INPUT).ok_or_else(|| malformed("`Signature-Input` is missing."))?;
    let tags = base::combined(headers, &SIGNATURE).ok_or_else(|| malformed("`Signature` is missing."))?;
    let wrong = || malformed("`Signature-Input` or `Signature` is not written as RFC 9421 and RFC 8941 want it.");
    let (inputs, tags) = fields::lists(&input).zip(fields::bytes(&tags)).ok_or_else(wrong)?;
    // Signatures have other uses: one that is meant for somebody else does not make what else is shown worthless.
    let ours = inputs
        .iter()
        .any(|(label, list)| label == LABEL || list.parameter("alg") == Some(&Bare::Text(ALGORITHM.into())));
    if !ours && shown.bearer.or(shown.plain).is_some() {
        return Ok(Found::Absent);
    }
    let (label, list) = chosen(&inputs)?;
    let tag = tags.iter().find(|(name, _)| name == label).map(|(_, tag)| tag);
    let tag = tag.ok_or_else(|| malformed("`Signature` has no signature with the label of `Signature-Input`."))?;
    let claims = Claims::read(list, now)?;
    let secure = shown.peer.secure;
    let base = base::of(shown.head, secure, list).map_err(malformed)?;
    let promise = promised(shown, list)?;
    // Done for every id, known or not: how long it takes says nothing about which there are.
    let secret = desk.directory.signing_secret(claims.key).ok_or_else(not_verified)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let genuine = hmac::verify(&key, base.as_bytes(), tag).is_ok();
    if !genuine {
        return Err(not_verified());
    }
    let caller = desk.directory.key(claims.key).map_err(|why| match why {
        Rejected::Unknown => not_verified(),
        why => rejected(why),
    })?;
    let id = caller.key.clone().unwrap_or_else(|| KeyId::new(claims.key));
    let state = &desk.credentials.state;
    state.nonces.spend(&id, claims.nonce, claims.expires, now)?;
    let Some(shared) = &state.shared else { return Ok(Found::Signed(caller, promise)) };
    let (nonce, expires) = (claims.nonce.to_owned(), claims.expires);
    Ok(Found::Asking(Box::pin(async move {
        shared.spend(&id, &nonce, expires, now).await?;
        Ok(Found::Signed(caller, promise))
    })))
}

/// Checks the body against a promise.
pub(super) fn verify_body(promise: Promise, body: &Bytes) -> Result<()> {
    match promise {
        Promise::Nothing => Ok(()),
        Promise::Empty if body.is_empty() => Ok(()),
        Promise::Empty => Err(malformed("The request has a body, and its signature does not cover `content-digest`.")),
        Promise::Digest(promised) => {
            let found = digest(&SHA256, body);
            constant_time::verify_slices_are_equal(found.as_ref(), &promised).map_err(|_| {
                refused("The body is not the one that was signed: its SHA-256 is not the one in `Content-Digest`.")
            })
        }
    }
}

/// The one signature that is ours to judge.
fn chosen(inputs: &[(String, List)]) -> Result<(&str, &List)> {
    let ours = inputs.iter().find(|(label, _)| label == LABEL);
    match (ours, inputs) {
        (Some((label, list)), _) => Ok((label, list)),
        (None, [(label, list)]) => Ok((label, list)),
        _ => Err(malformed("The request bears several signatures: give the one for Sluice the label `sluice`.")),
    }
}

/// What the signature says about the body; its digest is read here and compared when the body is there.
fn promised(shown: Shown<'_>, list: &List) -> Result<Promise> {
    if !list.items.iter().any(|item| item == DIGEST) {
        return Ok(Promise::Empty);
    }
    let wrong = || malformed("`Content-Digest` must have one `sha-256=:…:` with the base64 of the body's SHA-256.");
    let text = base::combined(&shown.head.headers, &CONTENT_DIGEST).ok_or_else(wrong)?;
    let digests = fields::bytes(&text).ok_or_else(wrong)?;
    let ours = digests.into_iter().find(|(name, _)| name == "sha-256").ok_or_else(wrong)?.1;
    ours.try_into().map(Promise::Digest).map_err(|_| wrong())
}

/// What a signature says about itself.
struct Claims<'a> {
    key: &'a str,
    nonce: &'a str,
    expires: i64,
}

impl<'a> Claims<'a> {
    fn read(list: &'a List, now: i64) -> Result<Self> {
        let text = |name: &str| match list.parameter(name) {
            Some(Bare::Text(text)) => Ok(text.as_str()),
            _ => Err(incomplete()),
        };
        let number = |name: &str| match list.parameter(name) {
            Some(Bare::Number(number)) => Ok(*number),
            _ => Err(incomplete()),
        };
        let (created, expires) = (number("created")?, number("expires")?);
        let (key, nonce, algorithm) = (text("keyid")?, text("nonce")?, text("alg")?);
        if algorithm != ALGORITHM {
            return Err(malformed("The signature's `alg` must be \"hmac-sha256\"."));
        }
        if COVERED.iter().any(|wanted| !list.items.iter().any(|item| item == wanted)) {
            return Err(malformed("The signature must cover @method, @authority, @path and @query."));
        }
        if !NONCE.contains(&nonce.len()) || key.is_empty() || key.len() > KEY_ID_MAX {
            return Err(malformed("The signature's `nonce` must be 8 to 128 characters long, and `keyid` up to 128."));
        }
        if created > now.saturating_add(SKEW) {
            return Err(refused("The signature was made in the future: the signer's clock is wrong."));
        }
        if expires <= now {
            return Err(refused("The signature has expired: sign each request anew, with a clock that is right."));
        }
        if expires > created.saturating_add(LIFETIME_MAX) {
            return Err(malformed("The signature's `expires` must be at most 300 seconds after `created`."));
        }
        Ok(Self { key, nonce, expires })
    }
}

fn incomplete() -> Error {
    malformed("The signature must have `created`, `expires`, `nonce`, `keyid` and `alg`.")
}

fn malformed(message: &'static str) -> Error {
    let mut error = refused(message);
    error.cause = "malformed_signature".into();
    error
}

/// The same words for an id that is not known and a signature that is wrong.
fn not_verified() -> Error {
    refused(
        "The signature is not right: not this key's secret, or not over what arrived. `sluice sign` makes one to compare.",
    )
}

/// Too many nonces of a key are kept for another.
fn too_many() -> Error {
    let message = "More requests are signed with this key than nonces can be kept for: let signatures expire sooner.";
    let mut error = Error::new(ErrorKind::Limited, Origin::Caller, message);
    error.retry_after = Some(std::time::Duration::from_secs(5));
    error
}

fn replayed() -> Error {
    refused("The signature was used before: each request needs a nonce of its own.")
}

/// The signature of a head, without any rule of ours about what it covers.
#[cfg(test)]
pub(super) fn tag_of(head: &Parts, secure: bool, input: &str, secret: &[u8]) -> Option<String> {
    use base64::Engine as _;
    let inputs = fields::lists(input)?;
    let base = base::of(head, secure, &inputs.first()?.1).ok()?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), base.as_bytes());
    Some(base64::engine::general_purpose::STANDARD.encode(tag))
}
