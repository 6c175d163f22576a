//! A token taken apart: what it says about itself before anybody believes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::keys::{self, Algorithm};
use crate::credential::members::Members;

/// Bound: header lines of proxies end there, and a token is parsed before anything of it is believed.
const TOKEN_MAX: usize = 8 << 10;

/// What must not be in a header: keys and places of keys that the sender chose, and extensions nobody here knows.
const BARRED: [&str; 7] = ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip"];
/// What a token may call itself, beside nothing.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// The parts of a token.
pub(super) struct Token<'a> {
    header: Members,
    pub(super) algorithm: &'static Algorithm,
    pub(super) access_token: bool,
    pub(super) claims: Members,
    /// The text that is signed.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// Whether a text has a token's form: three parts with dots between, the first a JSON object's beginning.
pub(super) fn looks_like_one(text: &str) -> bool {
    text.starts_with("ey") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What is wrong with its form, or which part of it is never accepted.
    pub(super) fn read(text: &'a str) -> Result<Self, &'static str> {
        const FORM: &str = "The token is cut off or damaged: it is not three parts of base64url with dots between.";
        if text.len() > TOKEN_MAX {
            return Err("The token is longer than 8 KiB.");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(FORM)?;
        let (header, claims) = signed.split_once('.').ok_or(FORM)?;
        // Neither padding nor stray bits at the end: one token has one text.
        let decode = |part: &str| BASE64.decode(part).map_err(|_| FORM);
        let header = Members::read(&decode(header)?).ok_or(FORM)?;
        if BARRED.iter().any(|name| header.get(name).is_some()) {
            return Err("The token's header brings keys, or extensions, that are not accepted.");
        }
        let algorithm = header.text("alg").and_then(keys::algorithm);
        let algorithm = algorithm.ok_or("The token's algorithm is not accepted: RS, PS, ES or EdDSA are.")?;
        let kind = match header.get("typ") {
            None => None,
            Some(typ) => Some(typ.as_str().and_then(kind).ok_or("The token is of a type that is not accepted here.")?),
        };
        if header.get("kid").is_some_and(|kid| !kid.is_string()) {
            return Err(FORM);
        }
        let claims = Members::read(&decode(claims)?).ok_or(FORM)?;
        let (signature, access_token) = (decode(signature)?, kind == Some("at+jwt"));
        Ok(Self { header, algorithm, access_token, claims, signed: signed.as_bytes(), signature })
    }

    /// The name of the key it says it was signed with.
    pub(super) fn kid(&self) -> Option<&str> {
        self.header.text("kid")
    }
}

/// A media type of RFC 7519 and RFC 9068, with or without its `application/`.
fn kind(typ: &str) -> Option<&'static str> {
    let short = typ.get(..12).filter(|start| start.eq_ignore_ascii_case("application/")).map_or(typ, |_| &typ[12..]);
    TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(short))
}
