use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::fetch::{Ask, Fault, Fetched, Fetching};
use kernel::settings::{Millis, Secret};
use serde_json::{Value, json};
use tenancy::{Declared, Pepper, TenantSettings};

use super::*;

const ISSUER: &str = "https://idp.example";

/// Answers what it was told to, by URL; everything else is unreachable.
#[derive(Default)]
struct Canned {
    answers: Mutex<HashMap<String, (u16, String)>>,
    asked: AtomicUsize,
    /// How long each answer takes.
    takes: Duration,
}

impl Canned {
    fn say(&self, url: &str, status: u16, body: &Value) {
        self.answers.lock().unwrap().insert(url.into(), (status, body.to_string()));
    }
}

impl Fetch for Canned {
    fn fetch(&self, ask: Ask) -> Fetching<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            let found = self.answers.lock().unwrap().get(&ask.url).cloned();
            let (status, body) = found.ok_or_else(|| Fault::Unreachable("refused".into()))?;
            Ok(Fetched { status, body: body.into() })
        })
    }
}

/// A door's desk, with all that stands on it.
struct Room {
    directory: Directory,
    credentials: Credentials,
    state: Arc<State>,
    fetch: Arc<Canned>,
    pair: Ed25519KeyPair,
}

impl Room {
    fn new(tenants: Value, introspection: Option<&IntrospectionSettings>, takes: Duration) -> Self {
        let tenants: Vec<TenantSettings> = serde_json::from_value(tenants).unwrap();
        let declared = Declared { tenants, ..Declared::default() };
        let directory = Directory::of(&declared, Pepper::from_text("p"));
        let (state, fetch) = (Arc::<State>::default(), Arc::new(Canned { takes, ..Canned::default() }));
        let driver: Arc<dyn Fetch> = fetch.clone();
        let peers = ["10.0.0.7".to_owned()];
        let credentials = Credentials::new(&IssuerSettings::default(), introspection, &peers, &state, &driver);
        let pair = Ed25519KeyPair::generate().unwrap();
        let url = format!("{ISSUER}/.well-known/openid-configuration");
        fetch.say(&url, 200, &json!({ "issuer": ISSUER, "jwks_uri": "https://idp.example/keys" }));
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x });
        fetch.say("https://idp.example/keys", 200, &json!({ "keys": [key] }));
        Self { directory, credentials, state, fetch, pair }
    }

    fn of(jwt: Value) -> Self {
        Self::new(json!([{ "id": "acme", "jwt": jwt, "keys": [{ "name": "k", "key": KEY }] }]), None, Duration::ZERO)
    }

    /// Looks after issuers until the test ends.
    fn keep(&self) {
        let (state, fetch) = (Arc::clone(&self.state), Arc::clone(&self.fetch));
        let trusted: Vec<Box<str>> = self.directory.identities().issuers().map(Into::into).collect();
        tokio::spawn(async move { state.look_after(fetch, IssuerSettings::default, move || trusted.clone()).await });
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": "k", "typ": "at+jwt" });
        let signed = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes())))
    }

    async fn identify(&self, request: http::request::Builder, peer: &Peer) -> Result<Identity> {
        let head = request.body(()).unwrap().into_parts().0;
        let said = Said::read(&head.headers, &[]);
        let desk = Desk { directory: &self.directory, credentials: &self.credentials, open: false };
        match identify(Shown::new(&head, &said, peer), desk) {
            Sought::Found(found) => found,
            Sought::Asking(asking) => asking.await,
        }
    }

    async fn bearing(&self, token: &str) -> Result<Identity> {
        self.identify(bearing(token), &Peer::default()).await
    }
}

const KEY: &str = "a-key-from-somewhere-else";

fn bearing(token: &str) -> http::request::Builder {
    http::Request::builder().uri("/").header("authorization", format!("Bearer {token}"))
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "sluice", "sub": "alice", "iat": seconds(), "exp": seconds() + 300 })
}

#[tokio::test]
async fn a_token_waits_for_the_keys_of_its_issuer_and_the_next_one_does_not() {
    let room = Room::of(json!({ "issuer": ISSUER, "audience": "sluice" }));
    room.keep();
    let found = room.bearing(&room.token(&claims())).await.unwrap();
    assert_eq!((found.caller.tenant.as_str(), found.by), ("acme", Some(CredentialKind::Oauth2)));
    assert_eq!(found.caller.key.unwrap().as_str(), "user:alice");
    assert_eq!(room.fetch.asked.load(Ordering::Relaxed), 2, "discovery and keys");
    for _ in 0..3 {
        room.bearing(&room.token(&claims())).await.unwrap();
    }
    assert_eq!(room.fetch.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn keys_are_only_taken_from_where_the_issuer_itself_may_keep_them() {
    for metadata in [
        json!({ "issuer": "https://evil.example", "jwks_uri": "https://idp.example/keys" }),
        json!({ "issuer": "https://idp.example/", "jwks_uri": "https://idp.example/keys" }),
        json!({ "issuer": ISSUER, "jwks_uri": "http://idp.example/keys" }),
        json!({ "issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys" }),
        json!({ "issuer": ISSUER, "jwks_uri": "file:///etc/keys" }),
        json!({ "issuer": ISSUER }),
    ] {
        let room = Room::of(json!({ "issuer": ISSUER, "audience": "sluice" }));
        room.fetch.say(&format!("{ISSUER}/.well-known/openid-configuration"), 200, &metadata);
        room.keep();
        let refused = room.bearing(&room.token(&claims())).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{metadata}");
        assert_eq!(room.fetch.asked.load(Ordering::Relaxed), 1, "{metadata}: no keys were asked for");
    }
}

#[tokio::test]
async fn claims_say_whose_a_token_is_and_what_it_may() {
    let room = Room::new(
        json!([
            { "id": "acme", "jwt": { "issuer": ISSUER, "audience": "sluice", "tenant_claim": "org", "scope_claim": "scope", "scopes": { "chat": "inference" } } },
            { "id": "lab", "jwt": [{ "issuer": ISSUER, "audience": "sluice", "tenant_claim": "org" }, { "issuer": ISSUER, "audience": "lab", "clients": ["c"], "key_claim": "email" }] },
        ]),
        None,
        Duration::ZERO,
    );
    room.keep();
    let check = async |more: Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = room.bearing(&room.token(&claims)).await.ok()?;
        let key = found.caller.key.map(|key| key.as_str().to_owned()).unwrap_or_default();
        Some((found.caller.tenant.as_str().to_owned(), key, found.caller.terms.scopes.len()))
    };
    let some = |tenant: &str, key: &str, scopes| Some((tenant.to_owned(), key.to_owned(), scopes));
    assert_eq!(check(json!({ "org": "acme", "scope": "chat other" })).await, some("acme", "user:alice", 1));
    assert_eq!(check(json!({ "org": "acme", "scope": "admin" })).await, None, "a token that may not call");
    assert_eq!(check(json!({ "org": "lab" })).await, some("lab", "user:alice", 1));
    assert_eq!(check(json!({ "aud": "lab", "azp": "c", "email": "a@b" })).await, some("lab", "user:a@b", 1));
    assert_eq!(check(json!({ "aud": "lab", "client_id": "c" })).await, some("lab", "", 1));
    for more in [json!({}), json!({ "org": "other" }), json!({ "org": ["acme"] }), json!({ "aud": "lab", "azp": "d" })]
    {
        assert_eq!(check(more.clone()).await, None, "{more}");
    }
}

#[tokio::test]
async fn a_tenant_named_in_the_head_counts_alone_from_listed_peers_only() {
    let room = Room::of(json!({ "issuer": ISSUER, "audience": "sluice" }));
    let peer = |address: &str| Peer { address: Some(address.parse().unwrap()), ..Peer::default() };
    let named = |tenant: &str| http::Request::builder().uri("/").header("x-tenant-id", tenant);
    let found = room.identify(named("acme"), &peer("10.0.0.7")).await.unwrap();
    assert_eq!((found.caller.tenant.as_str(), found.by), ("acme", None));
    for (tenant, address) in [("acme", "10.0.0.8"), ("other", "10.0.0.7"), ("", "10.0.0.7")] {
        let refused = room.identify(named(tenant), &peer(address)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unauthenticated, "{tenant} {address}");
    }
    let refused = room.identify(named("acme").header("x-forwarded-for", "10.0.0.7"), &peer("10.0.0.8")).await;
    assert!(refused.is_err(), "it is the socket's address that counts");
    let both = bearing(KEY).header("x-tenant-id", "other");
    assert_eq!(room.identify(both, &peer("10.0.0.7")).await.unwrap_err().kind, ErrorKind::Forbidden);
}

fn asking(stale_ms: u64) -> IntrospectionSettings {
    IntrospectionSettings {
        url: "https://idp.example/introspect".into(),
        issuer: ISSUER.into(),
        client_id: "sluice".into(),
        client_secret: Secret::new("s"),
        without_audience: false,
        ttl_ms: Millis(50),
        negative_ttl_ms: Millis(50),
        timeout_ms: Millis(1000),
        stale_ms: Millis(stale_ms),
    }
}

fn opaque(stale_ms: u64) -> Room {
    let tenants = json!([{ "id": "acme", "jwt": { "issuer": ISSUER, "audience": "sluice" } }]);
    Room::new(tenants, Some(&asking(stale_ms)), Duration::from_millis(20))
}

#[tokio::test]
async fn what_a_server_says_about_a_token_must_be_a_whole_yes() {
    for (answer, expected) in [
        (json!({ "active": true, "aud": "sluice", "sub": "bob" }), 200),
        (json!({ "active": true, "aud": ["x", "sluice"], "iss": ISSUER, "exp": seconds() + 60 }), 200),
        (json!({ "active": false, "aud": "sluice" }), 401),
        (json!({ "active": "true", "aud": "sluice" }), 401),
        (json!({ "aud": "sluice" }), 401),
        (json!({ "active": true, "aud": "other" }), 401),
        (json!({ "active": true }), 401),
        (json!({ "active": true, "aud": "sluice", "iss": "https://evil.example" }), 401),
        (json!({ "active": true, "aud": "sluice", "exp": seconds() - 1 }), 401),
        (json!({ "active": true, "aud": "sluice", "exp": "never" }), 401),
        (json!({ "active": true, "aud": "sluice", "nbf": seconds() + 60 }), 401),
        (json!(["active"]), 503),
    ] {
        let room = opaque(0);
        room.fetch.say("https://idp.example/introspect", 200, &answer);
        let status = room.bearing("opaque-token").await.map_or_else(|error| wire::status::of(&error), |_| 200);
        assert_eq!(status, expected, "{answer}");
    }
    let room = opaque(0);
    room.fetch.say("https://idp.example/introspect", 500, &json!({ "active": true, "aud": "sluice" }));
    assert_eq!(room.bearing("opaque-token").await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn of_many_calls_with_one_token_one_asks_and_a_late_server_is_forgiven_only_as_configured() {
    for (stale_ms, later) in [(0, 503), (60_000, 200)] {
        let room = opaque(stale_ms);
        room.fetch.say("https://idp.example/introspect", 200, &json!({ "active": true, "aud": "sluice" }));
        let (a, b, c) = tokio::join!(room.bearing("t"), room.bearing("t"), room.bearing("t"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(room.fetch.asked.load(Ordering::Relaxed), 1);
        room.fetch.answers.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_millis(80)).await;
        let status = room.bearing("t").await.map_or_else(|error| wire::status::of(&error), |_| 200);
        assert_eq!((status, room.fetch.asked.load(Ordering::Relaxed)), (later, 2), "stale_ms {stale_ms}");
    }
}

#[tokio::test]
async fn who_asks_first_may_leave_and_the_others_get_their_answer() {
    let room = opaque(0);
    room.fetch.say("https://idp.example/introspect", 200, &json!({ "active": true, "aud": "sluice" }));
    let gone = tokio::time::timeout(Duration::from_millis(5), room.bearing("t")).await;
    assert!(gone.is_err());
    assert!(room.bearing("t").await.is_ok());
    assert_eq!(room.fetch.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn made_up_tokens_keep_only_so_many_questions_open() {
    let room = opaque(0);
    room.fetch.say("https://idp.example/introspect", 200, &json!({ "active": false }));
    let tokens: Vec<String> = (0..200).map(|i| format!("made-up-{i}")).collect();
    let mut calls = tokio::task::JoinSet::new();
    let room = Arc::new(room);
    for token in tokens {
        let room = Arc::clone(&room);
        calls.spawn(async move { room.bearing(&token).await.unwrap_err().kind });
    }
    let kinds = calls.join_all().await;
    let refused = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((refused(ErrorKind::Unauthenticated), refused(ErrorKind::Unavailable)), (64, 136));
    assert_eq!(room.fetch.asked.load(Ordering::Relaxed), 64);
}

/// RFC 9421 appendix B.2.5.
#[test]
fn the_vector_of_the_rfc_comes_out() {
    let secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    let head = http::Request::post("/foo?param=Value&Pet=dog")
        .header("host", "example.com")
        .header("date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .header("content-type", "application/json")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    let input = r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
    let tag = signature::tag_of(&head, true, input, &base64::engine::general_purpose::STANDARD.decode(secret).unwrap());
    assert_eq!(tag.unwrap(), "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
}

/// Prints nanoseconds: `cargo test --release -p access figures -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn figures() {
    const ROUNDS: u32 = 200_000;
    let room = Room::of(json!({ "issuer": ISSUER, "audience": "sluice" }));
    room.keep();
    let desk = Desk { directory: &room.directory, credentials: &room.credentials, open: false };
    let peer = Peer::default();
    let measure = |name: &str, request: http::request::Builder, after: &dyn Fn(Promise)| {
        let head = request.body(()).unwrap().into_parts().0;
        let said = Said::read(&head.headers, &[]);
        let shown = Shown::new(&head, &said, &peer);
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let since = Instant::now();
            for _ in 0..ROUNDS {
                match identify(black_box(shown), desk) {
                    Sought::Found(Ok(found)) => after(found.promise),
                    _ => panic!("{name}: not known at once"),
                }
            }
            best = best.min(since.elapsed() / ROUNDS);
        }
        println!("{name}: {} ns", best.as_nanos());
    };
    let token = room.token(&claims());
    room.bearing(&token).await.unwrap();
    println!("token: {} bytes", token.len());
    measure("API key", bearing(KEY), &|_| {});
    measure("JWT from memory", bearing(&token), &|_| {});
    // Each signature counts once: what is measured is all but the nonce's place in memory.
    let (body, id) = (Bytes::from(vec![b'x'; 1024]), room.directory.find(KEY).unwrap().key.clone().unwrap());
    let secret = room.directory.signing_secret(id.as_str()).unwrap();
    let made: Vec<_> = (0..20_000)
        .map(|i| {
            let nonce = format!("nonce-number-{i}");
            let signed = signature::sign(&signature::Request {
                method: "POST",
                url: "http://localhost/v1/chat/completions",
                body: Some(&body),
                key_id: id.as_str(),
                secret: &secret,
                created: seconds(),
                lifetime: 300,
                nonce: Some(&nonce),
            });
            let mut request = http::Request::post("/v1/chat/completions").header("host", "localhost");
            for (name, value) in signed.unwrap().headers {
                request = request.header(name, value);
            }
            request.body(()).unwrap().into_parts().0
        })
        .collect();
    let since = Instant::now();
    for head in &made {
        let said = Said::read(&head.headers, &[]);
        match identify(Shown::new(head, &said, &peer), desk) {
            Sought::Found(found) => verify_signature(found.unwrap().promise, &body).unwrap(),
            Sought::Asking(_) => panic!("nobody is to be asked"),
        }
    }
    println!(
        "signature of a 1 KiB body, digest and nonce included: {} ns",
        since.elapsed().as_nanos() / made.len() as u128
    );
}
