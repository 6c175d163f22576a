//! `cors`: lets web pages of listed origins call from a browser (the Fetch standard's CORS protocol).
//!
//! A browser asks before it sends: an `OPTIONS` request without credentials, answered here. To what it then sends, the
//! answer says whose page may read it; so does every refusal, or the page would only see that something failed.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use kernel::settings::{Findings, Millis};
use kernel::{Kind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, Passed, Row, Work};
use crate::door::head;

pub(super) const KIND: Kind<Row> = Kind {
    name: "cors",
    about: "Answers browsers that ask whether a page may call, and tells them whose pages may read answers (`cors`).",
    build: Row { work: Work::Head(pass), after: &[] },
};

/// Which web pages may call from a browser. Default: none, which keeps browsers out and nobody else.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    /// Their origins: `https://app.example.com`, `https://*.example.com` for all below it, `*` for all.
    pub origins: Vec<String>,
    /// Request headers they may send. Default: whatever they ask for.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Whether browsers may send cookies and client certificates of theirs along; needs origins other than `*`.
    #[serde(default)]
    pub credentials: bool,
    /// For so long a browser may remember the answer.
    #[serde(default = "ten_minutes")]
    pub max_age_ms: Millis,
}

/// The same, read.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Pattern>,
    headers: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum Pattern {
    Any,
    Exactly(String),
    /// Scheme with `://`, and what the host ends in, dot included.
    Below(String, String),
}

/// What an answer must say about who may read it.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Whose page sent the request, if it is a listed one.
    origin: Option<HeaderValue>,
    credentials: bool,
}

/// Headers of answers that pages may read, beside those every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, retry-after, retry-after-ms, server-timing, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
     x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, \
     x-ratelimit-limit-concurrency, x-ratelimit-remaining-concurrency, \
     x-sluice-model, x-sluice-instance, x-sluice-queue-ms, x-sluice-queue-position, x-sluice-queue-estimate-ms, \
     x-sluice-attempts, x-sluice-cache, x-sluice-cost, x-sluice-config, x-sluice-explain",
);
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

const fn ten_minutes() -> Millis {
    Millis(600_000)
}

impl CorsSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        findings.require(!self.origins.is_empty(), format!("{path}.origins"), "is empty: name at least one origin");
        for (i, origin) in self.origins.iter().enumerate() {
            let message =
                "must be an origin, as in https://app.example.com: scheme and host, and the port if it is an odd one";
            findings.require(Pattern::read(origin).is_some(), format!("{path}.origins[{i}]"), message);
        }
        let all = self.origins.iter().any(|origin| origin == "*");
        let message = "cannot go with the origin `*`: any page could act in a user's name";
        findings.require(!(all && self.credentials), format!("{path}.credentials"), message);
        for (i, name) in self.headers.iter().enumerate() {
            let fits = HeaderName::try_from(name.as_str()).is_ok();
            findings.require(fits, format!("{path}.headers[{i}]"), "is no name a header can have");
        }
    }
}

impl Pattern {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, host) = text.split_once("://")?;
        let plain = |part: &str| !part.is_empty() && !part.contains(['*', '/', '?', '#', '@', ' ', ',']);
        if !plain(scheme) {
            return None;
        }
        match host.strip_prefix("*.") {
            Some(rest) => plain(rest).then(|| Self::Below(format!("{scheme}://"), format!(".{rest}"))),
            None => plain(host).then(|| Self::Exactly(text.clone())),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(text) => origin.eq_ignore_ascii_case(text),
            Self::Below(scheme, end) => {
                let origin = origin.to_ascii_lowercase();
                let host = origin.strip_prefix(scheme.as_str());
                host.is_some_and(|host| host.len() > end.len() && host.ends_with(end.as_str()))
            }
        }
    }
}

impl Cors {
    /// The rules of validated settings.
    pub fn new(settings: &CorsSettings) -> Self {
        let listed = (!settings.headers.is_empty()).then(|| settings.headers.join(", "));
        Self {
            origins: settings.origins.iter().filter_map(|text| Pattern::read(text)).collect(),
            headers: listed.and_then(|text| HeaderValue::from_str(&text).ok()),
            credentials: settings.credentials,
            max_age: HeaderValue::from(settings.max_age_ms.0 / 1000),
        }
    }

    fn reader(&self, origin: Option<&HeaderValue>) -> Reader {
        let listed = |origin: &&HeaderValue| {
            origin.to_str().is_ok_and(|text| self.origins.iter().any(|pattern| pattern.matches(text)))
        };
        Reader { origin: origin.filter(listed).cloned(), credentials: self.credentials }
    }
}

impl Reader {
    /// Says in an answer whose page may read it.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        // To whoever it was given: a cache must not give it to a page of another origin, with or without leave to read it.
        headers.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = &self.origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn pass<'a>(entry: &mut Entry<'a>) -> Result<Passed<'a>> {
    let Some(cors) = &entry.machine.cors else { return Ok(Passed::On) };
    let origin = entry.head.headers.get(ORIGIN);
    let asked = entry.head.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = entry.head.method == Method::OPTIONS && origin.is_some() && asked.is_some();
    let reader = cors.reader(origin);
    let listed = reader.origin.is_some();
    entry.visit.reader = Some(reader);
    if !preflight {
        // A page that is not listed gets its answer and cannot read it: that is the browser's part.
        return Ok(Passed::On);
    }
    let mut headers = HeaderMap::with_capacity(8);
    if listed {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        let named = entry.head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        headers.extend(cors.headers.as_ref().or(named).map(|value| (ACCESS_CONTROL_ALLOW_HEADERS, value.clone())));
        headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
        headers.append(VARY, HeaderValue::from_static("access-control-request-headers"));
    }
    Ok(Passed::Answered(Box::new(head::empty(entry.machine, headers, entry.visit.leave()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_matched_whole() {
        let check = |pattern: &str, origin: &str| Pattern::read(pattern).unwrap().matches(origin);
        assert!(check("https://app.example.com", "https://app.example.com"));
        assert!(check("https://App.example.com", "https://app.EXAMPLE.com"));
        assert!(check("http://localhost:3000", "http://localhost:3000") && check("*", "null"));
        assert!(check("https://*.example.com", "https://a.b.example.com"));
        for origin in [
            "https://example.com",
            "https://.example.com",
            "http://a.example.com",
            "https://a.example.com.evil.org",
            "https://aexample.com",
            "https://a.example.com:8443",
            "null",
        ] {
            assert!(!check("https://*.example.com", origin), "{origin}");
        }
        assert!(!check("https://app.example.com", "https://app.example.com.evil.org"));
        for text in ["", "example.com", "https://", "https://a/", "https://a*b", "https://*.*.x", "https://*."] {
            assert!(Pattern::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn any_page_with_a_users_credentials_is_refused() {
        let settings: CorsSettings = serde_json::from_str(r#"{"origins":["*"],"credentials":true}"#).unwrap();
        let mut findings = Findings::default();
        settings.validate("cors", &mut findings);
        assert_eq!(findings.0[0].path, "cors.credentials");
    }
}
