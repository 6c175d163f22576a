//! What a request's head says to us, read in one pass: looking each name up would cost more than reading all of them.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use kernel::Network;

/// The headers that mean something here. Where one is repeated, the first counts; of `x-forwarded-for` the last.
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    pub(crate) authorization: Option<&'a HeaderValue>,
    /// `x-api-key`, `api-key` and `x-goog-api-key`: where the SDKs of each dialect put a key, in order of preference.
    pub(crate) keys: [Option<&'a HeaderValue>; 3],
    pub(super) content_length: Option<&'a HeaderValue>,
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) session_id: Option<&'a HeaderValue>,
    pub(crate) tenant_id: Option<&'a HeaderValue>,
    pub(super) deadline: Option<&'a HeaderValue>,
    pub(super) priority: Option<&'a HeaderValue>,
    pub(super) explain: Option<&'a HeaderValue>,
    pub(super) tag: Option<&'a HeaderValue>,
    /// The last line of `x-forwarded-for`: every proxy adds to its end.
    pub(super) forwarded_for: Option<&'a HeaderValue>,
    /// Headers a backend may see.
    forward: Vec<(&'static str, Bytes)>,
}

impl<'a> Said<'a> {
    /// Reads a head; `forward` lists what a backend may see, lower-case.
    pub(crate) fn read(headers: &'a HeaderMap, forward: &[&'static str]) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "authorization" => &mut said.authorization,
                "x-api-key" => &mut said.keys[0],
                "api-key" => &mut said.keys[1],
                "x-goog-api-key" => &mut said.keys[2],
                "content-length" => &mut said.content_length,
                "x-request-id" => &mut said.request_id,
                "x-session-id" => &mut said.session_id,
                "x-tenant-id" => &mut said.tenant_id,
                "x-sluice-deadline-ms" => &mut said.deadline,
                "x-sluice-priority" => &mut said.priority,
                "x-sluice-explain" => &mut said.explain,
                "x-sluice-tag" => &mut said.tag,
                "x-forwarded-for" => {
                    said.forwarded_for = Some(value);
                    continue;
                }
                other => {
                    let listed = forward.iter().find(|listed| **listed == other);
                    let seen = |name: &str| said.forward.iter().any(|(seen, _)| *seen == name);
                    if let Some(name) = listed.filter(|name| !seen(name)) {
                        said.forward.push((*name, Bytes::copy_from_slice(value.as_bytes())));
                    }
                    continue;
                }
            };
            place.get_or_insert(value);
        }
        said
    }

    /// Where a request comes from that a peer has sent: from the peer, or where that is trusted, from the last address it
    /// names that is not trusted too.
    pub(super) fn origin(&self, peer: IpAddr, trusted: &[Network]) -> IpAddr {
        let trusts = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
        let named = self.forwarded_for.filter(|_| trusts(peer)).and_then(|value| value.to_str().ok());
        let mut origin = peer;
        for text in named.unwrap_or_default().rsplit(',') {
            // What cannot be read was not written by a proxy: whoever stands behind it is unknown.
            let Ok(address) = text.trim().parse() else { break };
            origin = address;
            if !trusts(address) {
                break;
            }
        }
        origin
    }

    /// Takes out what a backend may see.
    pub(super) fn take_forward(&mut self) -> Arc<[(&'static str, Bytes)]> {
        // Nearly all calls have none of them, and these share one.
        static NONE: LazyLock<Arc<[(&'static str, Bytes)]>> = LazyLock::new(|| Arc::new([]));
        if self.forward.is_empty() { Arc::clone(&NONE) } else { std::mem::take(&mut self.forward).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trusted_peer_says_who_is_behind_it_and_nobody_else_does() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let check = |peer: &str, said: Option<&'static str>, expected: &str| {
            let mut headers = HeaderMap::new();
            headers.extend(
                said.map(|text| (http::HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static(text))),
            );
            let origin = Said::read(&headers, &[]).origin(peer.parse().unwrap(), &trusted);
            assert_eq!(origin, expected.parse::<IpAddr>().unwrap(), "{peer} {said:?}");
        };
        check("192.0.2.1", Some("198.51.100.7"), "192.0.2.1");
        check("10.0.0.1", None, "10.0.0.1");
        check("10.0.0.1", Some("203.0.113.9, 198.51.100.7"), "198.51.100.7");
        check("10.0.0.1", Some("198.51.100.7, 10.0.0.2"), "198.51.100.7");
        check("10.0.0.1", Some("10.0.0.3,10.0.0.2"), "10.0.0.3");
        check("10.0.0.1", Some("198.51.100.7, nonsense"), "10.0.0.1");
    }

    #[test]
    fn the_first_of_repeated_headers_counts_and_only_listed_ones_are_forwarded() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-request-id", "one"),
            ("x-request-id", "two"),
            ("api-key", "k"),
            ("traceparent", "00-a"),
            ("traceparent", "00-b"),
            ("cookie", "secret"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut said = Said::read(&headers, &["traceparent", "tracestate"]);
        assert_eq!(said.request_id.unwrap(), "one");
        assert_eq!(said.keys.map(|key| key.is_some()), [false, true, false]);
        assert_eq!(*said.take_forward(), [("traceparent", Bytes::from_static(b"00-a"))]);
        assert!(said.take_forward().is_empty());
    }
}
