//! Requests to plain services: which service a path belongs to, and what of the head goes on to it.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method};
use kernel::error::Kind;
use kernel::{Caller, Error, ModelName, Origin, Plain, Result};

/// The services of one config, by path.
#[derive(Debug, Default)]
pub struct Services(matchit::Router<Service>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name in the roster.
    pub model: ModelName,
    /// The methods that are passed on; empty: all.
    pub methods: Vec<Method>,
    /// Whether it may see the credential that its caller has shown.
    pub pass_credentials: bool,
}

/// Headers between two neighbours only (RFC 9110 §7.6.1), those that are made anew, and those that nobody but us may
/// say.
const NOT_PASSED: [HeaderName; 15] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("x-tenant-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Where credentials stand.
const CREDENTIALS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Paths that are Sluice's own, whatever comes behind them.
const OWN: [&str; 5] = ["/v1", "/v1beta", "/v2", "/health", "/ready"];

impl Services {
    /// Adds a service.
    ///
    /// # Errors
    /// A sentence that says what is wrong with its path.
    pub fn add(&mut self, path: &str, service: Service) -> std::result::Result<(), String> {
        if !path.starts_with('/') {
            return Err("must begin with /".into());
        }
        let own = |own: &&&str| path.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some(own) = OWN.iter().find(own) {
            return Err(format!("`{own}` is Sluice's own"));
        }
        self.0.insert(path, service).map_err(|fault| match fault {
            matchit::InsertError::Conflict { with } => format!("means the same as `{with}`, or a part of it"),
            _ => "is no path pattern: write it like /api/orders/{*rest} or /users/{id}".into(),
        })
    }

    /// The service of a path.
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<Result<&Service>> {
        let service = self.0.at(path).ok()?.value;
        if service.methods.is_empty() || service.methods.contains(method) {
            return Some(Ok(service));
        }
        let allowed = service.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let mut error =
            Error::new(Kind::WrongMethod, Origin::Caller, format!("{method} is not allowed here: use {allowed}."));
        error.cause = allowed.into();
        Some(Err(error))
    }
}

/// The head that goes on: as it came, without what is not the service's business, with who sent it.
pub(super) fn plain(head: &Parts, service: &Service, caller: &Caller, address: Option<IpAddr>) -> Plain {
    let named = neighbourly(&head.headers);
    let kept = |name: &&HeaderName| {
        !NOT_PASSED.contains(name)
            && !named.iter().any(|other| name.as_str().eq_ignore_ascii_case(other))
            && (service.pass_credentials || !CREDENTIALS.contains(name))
    };
    let copy = |text: &[u8]| Bytes::copy_from_slice(text);
    let passed = head.headers.iter().filter(|(name, _)| kept(name));
    let mut headers: Vec<(Bytes, Bytes)> =
        passed.map(|(name, value)| (copy(name.as_str().as_bytes()), copy(value.as_bytes()))).collect();
    let mut say = |name: &'static str, value: Bytes| headers.push((Bytes::from_static(name.as_bytes()), value));
    say("x-tenant-id", copy(caller.tenant.as_str().as_bytes()));
    if let Some(address) = address {
        say("x-forwarded-for", address.to_string().into());
    }
    let host = head.headers.get(HOST).map(|host| copy(host.as_bytes()));
    if let Some(host) = host.or_else(|| head.uri.authority().map(|authority| copy(authority.as_str().as_bytes()))) {
        say("x-forwarded-host", host);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    Plain {
        method: copy(head.method.as_str().as_bytes()),
        target: copy(target.as_bytes()),
        headers,
        repeatable: head.method.is_idempotent(),
    }
}

/// The names that `connection` lists.
fn neighbourly(headers: &HeaderMap) -> Vec<&str> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',').map(str::trim)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(methods: &[Method]) -> Service {
        Service { model: ModelName::new("service:x"), methods: methods.to_vec(), pass_credentials: false }
    }

    #[test]
    fn a_path_has_its_service_and_a_method_it_does_not_take_is_told() {
        let mut services = Services::default();
        services.add("/api/{*rest}", service(&[Method::GET])).unwrap();
        assert!(services.find(&Method::GET, "/api/a/b").unwrap().is_ok());
        assert_eq!(services.find(&Method::POST, "/api/a").unwrap().unwrap_err().cause, "GET");
        assert!(services.find(&Method::GET, "/other").is_none());
    }

    #[test]
    fn paths_that_are_ours_or_no_paths_are_refused() {
        let mut services = Services::default();
        services.add("/api/{id}", service(&[])).unwrap();
        for (path, words) in [
            ("api", "begin with /"),
            ("/v1/{*rest}", "Sluice's own"),
            ("/health", "Sluice's own"),
            ("/api/{other}", "means the same as `/api/{id}`"),
            ("/a/{", "is no path pattern"),
        ] {
            assert!(services.add(path, service(&[])).unwrap_err().contains(words), "{path}");
        }
        services.add("/v1things", service(&[])).unwrap();
    }

    #[test]
    fn credentials_and_what_is_between_neighbours_do_not_go_on() {
        let request = http::Request::post("http://shop.example/a?b=1")
            .header("host", "shop.example")
            .header("connection", "close, x-hop")
            .header("x-hop", "1")
            .header("authorization", "Bearer secret")
            .header("x-tenant-id", "somebody-else")
            .header("accept", "text/html")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let plain = plain(&head, &service(&[]), &Caller::anonymous(), "192.0.2.1".parse().ok());
        let shown: Vec<(&str, &str)> = plain
            .headers
            .iter()
            .map(|(name, value)| (std::str::from_utf8(name).unwrap(), std::str::from_utf8(value).unwrap()))
            .collect();
        let expected = [
            ("accept", "text/html"),
            ("x-tenant-id", "anonymous"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "shop.example"),
        ];
        assert_eq!(shown, expected);
        assert_eq!((plain.target.as_ref(), plain.repeatable), (&b"/a?b=1"[..], false));
    }
}
