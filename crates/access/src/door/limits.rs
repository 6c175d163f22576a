//! What an answer tells about its caller's limits: `x-ratelimit-*`, and `retry-after` with a refusal.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tenancy::limit::{Gauge, View};

/// The headers of one kind of limit: the most, what is left, and until when all of it is left again.
struct Names {
    limit: HeaderName,
    remaining: HeaderName,
    reset: Option<HeaderName>,
}

const REQUESTS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-requests"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
    reset: Some(HeaderName::from_static("x-ratelimit-reset-requests")),
};
const TOKENS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
    reset: Some(HeaderName::from_static("x-ratelimit-reset-tokens")),
};
const CONCURRENCY: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-concurrency"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-concurrency"),
    reset: None,
};
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Bound: what all values take together: three numbers and a span for each of three kinds.
const TEXTS: usize = 160;

/// Where the caller stands.
pub(super) fn tell(headers: &mut HeaderMap, view: &View) {
    // The values lie in one piece of memory, of which each holds a part: with every answer there are eight.
    let mut text = Vec::with_capacity(TEXTS);
    let mut values: SmallVec<[(HeaderName, Range<usize>); 8]> = SmallVec::new();
    for (names, gauge) in [(REQUESTS, view.requests), (TOKENS, view.tokens), (CONCURRENCY, view.concurrency)] {
        let Some(Gauge { limit, remaining, reset }) = gauge else { continue };
        let mut value = |name: HeaderName, write: &dyn Fn(&mut Vec<u8>)| {
            let from = text.len();
            write(&mut text);
            values.push((name, from..text.len()));
        };
        value(names.limit, &|to| number(to, limit));
        value(names.remaining, &|to| number(to, remaining));
        names.reset.into_iter().for_each(|name| value(name, &|to| span(to, reset)));
    }
    let text = Bytes::from(text);
    headers.reserve(values.len());
    for (name, place) in values {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(place)) {
            headers.insert(name, value);
        }
    }
}

/// When to come back: in whole seconds, as the standard has it, and in milliseconds, as SDKs prefer it. Both rounded up:
/// nobody is to come back too early.
pub(super) fn come_back(headers: &mut HeaderMap, wait: Duration) {
    headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis_up(wait)));
}

fn millis_up(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn number(to: &mut Vec<u8>, number: u64) {
    to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A span as OpenAI writes them, which is how Go does: `12ms`, `1s`, `1.5s`, `6m0s`, `1h0m0s`; rounded up to milliseconds.
fn span(to: &mut Vec<u8>, span: Duration) {
    let millis = millis_up(span);
    let (hours, minutes, seconds, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000);
    let mut put = |value: u64, unit: &[u8]| {
        number(to, value);
        to.extend_from_slice(unit);
    };
    if (1..1000).contains(&millis) {
        put(millis, b"ms");
        return;
    }
    if hours > 0 {
        put(hours, b"h");
    }
    if millis >= 60_000 {
        put(minutes, b"m");
    }
    put(seconds, b"");
    if rest > 0 {
        let mut fraction = *b".000";
        let parts = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
        fraction.iter_mut().skip(1).zip(parts).for_each(|(to, from)| *to = from);
        let keep = fraction.iter().rposition(|byte| *byte != b'0').map_or(0, |last| last + 1);
        to.extend_from_slice(fraction.get(..keep).unwrap_or_default());
    }
    to.extend_from_slice(b"s");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_openai_writes_them_and_never_too_short() {
        let check = |micros: u64, text: &str| {
            let mut written = Vec::new();
            span(&mut written, Duration::from_micros(micros));
            assert_eq!(written, text.as_bytes());
        };
        check(0, "0s");
        check(1, "1ms");
        check(12_000, "12ms");
        check(999_001, "1s");
        check(1_000_000, "1s");
        check(1_500_000, "1.5s");
        check(1_000_001, "1.001s");
        check(59_990_000, "59.99s");
        check(60_000_000, "1m0s");
        check(360_000_000, "6m0s");
        check(3_600_000_000, "1h0m0s");
        check(3_661_010_000, "1h1m1.01s");
    }

    #[test]
    fn only_what_is_limited_is_told() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, &View::default());
        assert!(headers.is_empty());
        let requests = Some(Gauge { limit: 10, remaining: 3, reset: Duration::from_millis(700) });
        tell(&mut headers, &View { requests, ..View::default() });
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(value("x-ratelimit-limit-requests"), Some("10"));
        assert_eq!(value("x-ratelimit-remaining-requests"), Some("3"));
        assert_eq!(value("x-ratelimit-reset-requests"), Some("700ms"));
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn nobody_is_told_to_come_back_too_early() {
        let check = |micros: u64, seconds: &str, millis: &str| {
            let mut headers = HeaderMap::new();
            come_back(&mut headers, Duration::from_micros(micros));
            assert_eq!(
                (&headers["retry-after"], &headers["retry-after-ms"]),
                (&seconds.parse().unwrap(), &millis.parse().unwrap())
            );
        };
        check(1_000_000, "1", "1000");
        check(1_000_001, "2", "1001");
        check(333_334, "1", "334");
    }
}
