//! Asking a trusted service for a small document: an issuer for its keys, an authorization server about a token.
//!
//! Not the way of calls to models, and no general client: one request, one JSON answer of bounded size within a bounded
//! time, no redirects, and nothing sent in clear over a network.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::settings::Secret;

/// What a fetch returns: a boxed future, so that drivers can stand behind `dyn`.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, Fault>> + Send + 'a>>;

/// What to ask, of whom, and how much of an answer to take.
#[derive(Debug, Clone)]
pub struct Ask {
    /// An absolute URL that [`is_safe`] agrees with.
    pub url: String,
    /// What to send: nothing makes it a GET, fields make it the POST of a form.
    pub form: Option<Vec<(&'static str, Secret)>>,
    /// Name and password shown as HTTP Basic credentials.
    pub basic: Option<(String, Secret)>,
    /// The largest body taken, in bytes.
    pub most: usize,
    /// The longest it may take from the first packet to the last byte.
    pub within: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why nothing did. In the operator's words; never holds what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The URL is none, or one that would send secrets in clear.
    Url,
    /// It could not be reached, or broke off.
    Unreachable(String),
    /// It took too long.
    Slow,
    /// The answer is larger than allowed.
    TooLarge,
}

/// Fetches. Drivers live in `infrastructure`.
pub trait Fetch: Send + Sync + 'static {
    /// Asks once. Dropping the future gives up.
    fn fetch(&self, ask: Ask) -> Fetching<'_>;
}

/// Whether a URL may be asked: `https`, or `http` on this machine, without a user name in it.
pub fn is_safe(url: &str) -> bool {
    let https = url.strip_prefix("https://");
    let Some(rest) = https.or_else(|| url.strip_prefix("http://")) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let local = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#');
    plain && !host.is_empty() && !authority.contains(['@', '\\']) && (https.is_some() || local)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("the URL is not https (plain http is for this machine only)"),
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Slow => f.write_str("it took too long"),
            Self::TooLarge => f.write_str("its answer is too large"),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_encrypted_or_local_may_be_asked() {
        for url in ["https://idp.example/keys", "http://127.0.0.1:8000", "http://localhost/x?y", "http://[::1]:9/"] {
            assert!(is_safe(url), "{url}");
        }
        for url in [
            "http://idp.example/keys",
            "http://127.0.0.1@idp.example/",
            "http://localhost.evil.example/",
            "http://127.0.0.1\\@idp.example/",
            "https://",
            "https://user@idp.example/",
            "https://idp.example/a b",
            "https://idp.example/#x",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
            "",
        ] {
            assert!(!is_safe(url), "{url}");
        }
    }
}
