//! The other side: a signature as a client makes it, for `sluice sign` and for tests.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use http::{Method, Uri};
use kernel::settings::Secret;

use super::fields::{Bare, List};
use super::{ALGORITHM, COVERED, DIGEST, LABEL, LIFETIME_MAX, base};

/// A request to sign.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `POST` and the like.
    pub method: &'a str,
    /// The whole URL.
    pub url: &'a str,
    /// The body; without one none is covered.
    pub body: Option<&'a [u8]>,
    /// The id of the key.
    pub key_id: &'a str,
    /// Its signing secret.
    pub secret: &'a Secret,
    /// When it is signed, in seconds since 1970.
    pub created: i64,
    /// For how many seconds it is good.
    pub lifetime: i64,
    /// A text never used before with this key; `None`: one is made.
    pub nonce: Option<&'a str>,
}

/// Headers to send with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The text that was signed.
    pub base: String,
}

/// Why a request cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignFault {
    /// Not a method.
    Method,
    /// Not a whole http or https URL.
    Url,
    /// A key id or nonce that no header can carry.
    Text,
    /// Signatures last from one second to five minutes.
    Lifetime,
    /// The system gives no randomness for a nonce.
    Chance,
}

/// Signs a request.
///
/// # Errors
/// What of the request cannot be signed.
pub fn sign(request: &Request<'_>) -> Result<Signed, SignFault> {
    let method: Method = request.method.parse().map_err(|_| SignFault::Method)?;
    let uri: Uri = request.url.parse().map_err(|_| SignFault::Url)?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(SignFault::Url),
    };
    // The host is checked here: what the door would call unclear must not be signed.
    uri.authority().and_then(|authority| base::normal(authority, secure)).ok_or(SignFault::Url)?;
    if !(1..=LIFETIME_MAX).contains(&request.lifetime) {
        return Err(SignFault::Lifetime);
    }
    let nonce = request.nonce.map_or_else(chance, |nonce| Ok(nonce.to_owned()))?;
    let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !plain(request.key_id) || !plain(&nonce) {
        return Err(SignFault::Text);
    }
    let mut builder = http::Request::builder().method(method).uri(uri);
    let mut headers = Vec::new();
    let mut items: Vec<String> = COVERED.iter().map(|name| (*name).to_owned()).collect();
    if let Some(body) = request.body {
        let value = format!("sha-256=:{}:", BASE64.encode(digest(&SHA256, body)));
        builder = builder.header(DIGEST, value.as_str());
        headers.push(("content-digest", value));
        items.push(DIGEST.to_owned());
    }
    let text = |text: &str| Bare::Text(text.to_owned());
    let parameters = [
        ("created", Bare::Number(request.created)),
        ("expires", Bare::Number(request.created + request.lifetime)),
        ("nonce", text(&nonce)),
        ("keyid", text(request.key_id)),
        ("alg", text(ALGORITHM)),
    ];
    let list = List::new(items, parameters.map(|(name, value)| (name.to_owned(), value)).into());
    let (head, ()) = builder.body(()).map_err(|_| SignFault::Url)?.into_parts();
    let base = base::of(&head, secure, &list).map_err(|_| SignFault::Url)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, request.secret.expose().as_bytes());
    let mut input = format!("{LABEL}=");
    list.write(&mut input);
    headers.push(("signature-input", input));
    headers.push(("signature", format!("{LABEL}=:{}:", BASE64.encode(hmac::sign(&key, base.as_bytes())))));
    Ok(Signed { headers, base })
}

fn chance() -> Result<String, SignFault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| SignFault::Chance)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl fmt::Display for SignFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the method is none: write it as in POST",
            Self::Url => "the URL is none: write the whole of it, as in https://api.example.com/v1/models",
            Self::Text => "the key id or the nonce has characters that a header cannot carry",
            Self::Lifetime => "a signature can be good for 1 to 300 seconds",
            Self::Chance => "the system gives no randomness for a nonce",
        })
    }
}

impl std::error::Error for SignFault {}
