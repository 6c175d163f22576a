//! What attackers show instead of a credential, sent to the real binary: none of it is let in, and what is like it in
//! all but the fault is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod issuer;
mod signatures;
mod tokens;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use issuer::{Issuer, Way, token};
use serde_json::json;
use signatures::{BODY, Signed, digest_of, parameters};
use tenancy::Pepper;
use testkit::{Answer, Plan, Script, Sluice, Upstream, Wire, completion};
use tokens::Maker;

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(10);
const PEPPER: &str = "a pepper for tests";

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

struct Stage {
    sluice: Sluice,
    backend: Upstream,
    ours: Issuer,
    others: Issuer,
    /// The ids of a key of each tenant, and of one that only signs.
    keys: [String; 3],
    /// The whole of the one that only signs.
    must_sign: String,
}

async fn stage() -> Stage {
    let (ours, others) = (Issuer::start(), Issuer::start());
    let backend = Upstream::start(Plan::made(|_| Script::json(200, completion("m", "hi"))));
    let launch = Sluice::launch().env("SLUICE_KEY_PEPPER", PEPPER);
    let keys = [launch.key("acme"), launch.key("lab"), launch.key("acme")];
    let config = format!(
        "auth: required
tenants:
  - {{ id: acme, jwt: {{ issuer: \"{}\", audience: sluice }}, keys: [ {{ name: a, hash: \"{}\" }}, {{ name: s, hash: \"{}\", signed: true }} ] }}
  - {{ id: lab, jwt: {{ issuer: \"{}\", audience: lab }}, keys: [ {{ name: a, hash: \"{}\" }} ] }}
models:
  - {{ model_name: m, endpoint: \"{}\" }}
",
        ours.name(),
        keys[0].hash,
        keys[2].hash,
        others.name(),
        keys[1].hash,
        backend.url()
    );
    let ids = keys.each_ref().map(|key| key.hash.split('.').next().unwrap().to_owned());
    let sluice = launch.config(config).start().await;
    let must_sign = keys[2].key.clone();
    Stage { sluice, backend, ours, others, keys: ids, must_sign }
}

impl Stage {
    async fn send(&self, bytes: &[u8]) -> Answer {
        let mut wire = Wire::connect(&self.sluice.url("")).await.unwrap();
        wire.exchange(bytes, SOON).await.unwrap()
    }

    async fn with(&self, headers: &[(&str, &str)]) -> Answer {
        let headers = [headers, &[("connection", "close")]].concat();
        self.send(&testkit::request_bytes("POST", CHAT, &headers, BODY)).await
    }

    async fn bearing(&self, token: &str) -> Answer {
        self.with(&[("authorization", &format!("Bearer {token}"))]).await
    }

    fn maker(&self) -> Maker<'_> {
        Maker { issuer: &self.ours, other: &self.others, now: now() }
    }

    fn secret(&self, key: usize) -> String {
        Pepper::from_text(PEPPER).signing_secret(&self.keys[key]).expose().to_owned()
    }

    /// A good signed request with a nonce of its own.
    fn signed(&self, nonce: &str) -> Signed {
        let now = now();
        Signed::post(&self.secret(0), parameters(&self.keys[0], nonce, now, now + 60))
    }
}

#[tokio::test]
async fn no_hostile_token_is_let_in_and_its_twin_is() {
    let stage = stage().await;
    let cases = stage.maker().all();
    assert!(cases.len() >= 100, "{}", cases.len());
    let mut served = 0;
    for case in &cases {
        let answer = stage.bearing(&case.bad).await;
        // A header may be too much for HTTP already.
        assert!(matches!(answer.status(), 400 | 401), "{}: {} {}", case.name, answer.status(), answer.text());
        assert_eq!(stage.backend.requests().len(), served, "{}: reached the backend", case.name);
        assert!(!answer.text().contains(&case.bad), "{}: repeated", case.name);
        let answer = stage.bearing(&case.good).await;
        assert_eq!(answer.status(), 200, "the twin of {}: {}", case.name, answer.text());
        served += 1;
    }
    println!("{} hostile tokens, 0 let in; {served} twins let in", cases.len());
}

#[tokio::test]
async fn a_token_of_every_algorithm_is_let_in_and_says_whose_call_it_is() {
    let stage = stage().await;
    let (maker, issuer) = (stage.maker(), &stage.ours);
    for (kid, algorithm, key) in [
        ("rsa", "RS256", &issuer.rsa),
        ("rsa", "RS384", &issuer.rsa),
        ("rsa", "RS512", &issuer.rsa),
        ("rsa", "PS256", &issuer.rsa),
        ("rsa", "PS384", &issuer.rsa),
        ("rsa", "PS512", &issuer.rsa),
        ("p256", "ES256", &issuer.p256),
        ("p384", "ES384", &issuer.p384),
        ("ed", "EdDSA", &issuer.ed),
        ("ed", "Ed25519", &issuer.ed),
    ] {
        let header = Maker::header(kid, algorithm).to_string();
        let good = token(&header, &maker.claims().to_string(), &Way::With(key, algorithm));
        let answer = stage.bearing(&good).await;
        assert_eq!(answer.status(), 200, "{algorithm}: {}", answer.text());
    }
    let typ = json!({ "alg": "EdDSA", "kid": "ed", "typ": "at+JWT" }).to_string();
    let mut claims = maker.claims();
    claims["aud"] = json!(["other", "sluice"]);
    claims["exp"] = json!(now() - 10);
    claims["iat"] = json!(now() - 100);
    let late = token(&typ, &claims.to_string(), &Way::With(&issuer.ed, "EdDSA"));
    assert_eq!(stage.bearing(&late).await.status(), 200, "within the leeway, one audience of several");
    let bearer = format!("Bearer {late}");
    assert_eq!(stage.with(&[("authorization", &bearer), ("x-tenant-id", "acme")]).await.status(), 200);
    assert_eq!(stage.with(&[("authorization", &bearer), ("x-tenant-id", "lab")]).await.status(), 403);
}

/// ECDSA lets anybody make a second signature of a first one. That makes no second claim: it is the same caller with the
/// same words, and as many signers give either of the two, refusing one would refuse honest tokens.
#[tokio::test]
async fn the_other_signature_of_a_good_token_is_the_same_token() {
    let stage = stage().await;
    let good = stage.maker().good();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature).unwrap();
    let order = *b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let left = i16::from(order[at]) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(left < 0);
        bytes[32 + at] = left.rem_euclid(256) as u8;
    }
    let other = format!("{signed}.{}", issuer::text(bytes));
    assert_ne!(other, good);
    assert_eq!(stage.bearing(&other).await.status(), 200);
    let twice = stage.sluice.log_lines();
    assert!(twice.iter().all(|line| line["tenant"] == "acme"));
}

#[tokio::test]
async fn a_refusal_says_what_to_mend_and_not_which_keys_there_are() {
    let stage = stage().await;
    let maker = stage.maker();
    let say = async |token: &str| {
        let answer = stage.bearing(token).await;
        let challenge = answer.header("www-authenticate").unwrap().to_owned();
        (answer.json()["error"]["message"].as_str().unwrap().to_owned(), challenge)
    };
    let sign = |kid: &str, change: fn(&mut serde_json::Value, i64)| {
        let mut claims = maker.claims();
        change(&mut claims, maker.now);
        token(&Maker::header(kid, "ES256").to_string(), &claims.to_string(), &Way::With(&stage.ours.p256, "ES256"))
    };
    let (expired, challenge) = say(&sign("p256", |claims, now| claims["exp"] = json!(now - 100))).await;
    assert!(expired.contains("expired"), "{expired}");
    assert!(
        challenge.starts_with("Bearer realm=\"sluice\", error=\"invalid_token\", error_description=\""),
        "{challenge}"
    );
    let (future, _) = say(&sign("p256", |claims, now| claims["iat"] = json!(now + 100))).await;
    assert!(future.contains("clock"), "{future}");
    let (audience, _) = say(&sign("p256", |claims, _| claims["aud"] = json!("x"))).await;
    assert!(audience.contains("another service"), "{audience}");
    let forged = |kid: &str| {
        let own = issuer::Key::p256();
        token(&Maker::header(kid, "ES256").to_string(), &maker.claims().to_string(), &Way::With(&own, "ES256"))
    };
    let (known, unknown) = (say(&forged("p256")).await, say(&forged("never-heard-of")).await);
    assert_eq!(known, unknown, "whether there is such a key is nobody's business");
    let bare = stage.with(&[]).await;
    assert_eq!((bare.status(), bare.header("www-authenticate")), (401, Some("Bearer realm=\"sluice\"")));
}

#[tokio::test]
async fn two_credentials_must_be_of_one_caller() {
    let stage = stage().await;
    let token = format!("Bearer {}", stage.maker().good());
    let launch = stage.sluice.launched();
    let stranger = launch.key("nobody").key;
    assert_eq!(stage.with(&[("authorization", &token), ("x-api-key", &stranger)]).await.status(), 401);
    let mut signed = stage.signed("two-credentials-1");
    signed.more.push(("authorization".into(), token.clone()));
    assert_eq!(stage.send(&signed.bytes()).await.status(), 200, "both are acme's");
    let now = now();
    let mut of_lab = Signed::post(&stage.secret(1), parameters(&stage.keys[1], "two-credentials-2", now, now + 60));
    assert_eq!(stage.send(&of_lab.bytes()).await.status(), 200);
    of_lab.parameters = parameters(&stage.keys[1], "two-credentials-3", now, now + 60);
    of_lab.more.push(("authorization".into(), token));
    assert_eq!(stage.send(&of_lab.bytes()).await.status(), 403, "one is acme's, the other lab's");
}

/// Bends one thing of a good request.
type Bend = fn(&mut Signed, &Stage);

const BENT: &[(&str, Bend)] = &[
    ("body swapped", |request, _| request.body = BODY.replace("hi", "ho")),
    ("body emptied", |request, _| request.body.clear()),
    ("body longer", |request, _| request.body.push(' ')),
    ("body and digest swapped", |request, _| {
        request.body = BODY.replace("hi", "ho");
        request.more[0].1 = digest_of(&request.body);
    }),
    ("digest not sent", |request, _| request.more.clear()),
    ("digest not covered", |request, _| request.uncover("content-digest")),
    ("digest neither covered nor sent", |request, _| {
        request.uncover("content-digest");
        request.more.clear();
    }),
    ("digest twice", |request, _| request.more.push(request.more[0].clone())),
    ("another digest first", |request, _| request.more.insert(0, ("content-digest".into(), digest_of("x")))),
    ("digest of another kind", |request, _| {
        let other = request.more[0].1.replace("sha-256", "md5");
        *request.value("content-digest") = other.clone();
        request.more[0].1 = other;
    }),
    ("digest too short", |request, _| {
        *request.value("content-digest") = "sha-256=:AAAA:".into();
        request.more[0].1 = "sha-256=:AAAA:".into();
    }),
    ("digest without colons", |request, _| {
        let other = request.more[0].1.replace(':', "");
        *request.value("content-digest") = other.clone();
        request.more[0].1 = other;
    }),
    ("method swapped", |request, _| *request.value("@method") = "PUT".into()),
    ("method in small letters", |request, _| *request.value("@method") = "post".into()),
    ("method not covered", |request, _| request.uncover("@method")),
    ("authority swapped", |request, _| request.host = "evil.example".into()),
    ("authority not covered", |request, _| request.uncover("@authority")),
    ("authority of another port", |request, _| request.host = "localhost:8081".into()),
    ("two hosts", |request, _| request.more.push(("host".into(), "evil.example".into()))),
    ("a user in the host", |request, _| request.host = "evil@localhost".into()),
    ("path swapped", |request, _| request.target = "/v1/completions".into()),
    ("path not covered", |request, _| request.uncover("@path")),
    ("query added", |request, _| request.target.push_str("?a=1")),
    ("query not covered", |request, _| request.uncover("@query")),
    ("query as nothing", |request, _| *request.value("@query") = String::new()),
    ("nothing covered", |request, _| request.covered.clear()),
    ("names in another order after signing", |request, _| {
        request.sent = |list| list.replace(r#""@method" "@authority""#, r#""@authority" "@method""#);
    }),
    ("a name twice", |request, _| request.covered.push(("@method".into(), "POST".into()))),
    ("a name in capitals", |request, _| {
        request.covered.push(("Content-Type".into(), "application/json".into()));
    }),
    ("a header that is not there", |request, _| request.covered.push(("x-none".into(), String::new()))),
    ("a header changed", |request, _| {
        request.covered.push(("x-sluice-tag".into(), "mine".into()));
        request.more.push(("x-sluice-tag".into(), "yours".into()));
    }),
    ("a header twice", |request, _| {
        request.covered.push(("x-sluice-tag".into(), "mine".into()));
        request.more.push(("x-sluice-tag".into(), "mine".into()));
        request.more.push(("x-sluice-tag".into(), "yours".into()));
    }),
    ("an unknown derived component", |request, _| request.covered.push(("@status".into(), "200".into()))),
    ("a part of a query", |request, _| {
        request.sent = |list| list.replace(r#""@query""#, r#""@query-param";name="a""#);
    }),
    ("a component of the request answered", |request, _| {
        request.sent = |list| list.replace(r#""@method""#, r#""@method";req"#);
    }),
    ("created in the future", |request, stage| {
        request.parameters = parameters(&stage.keys[0], "future-0001", now() + 120, now() + 180);
    }),
    ("expired", |request, stage| {
        request.parameters = parameters(&stage.keys[0], "expired-0001", now() - 60, now() - 1);
    }),
    ("good for too long", |request, stage| {
        request.parameters = parameters(&stage.keys[0], "too-long-0001", now(), now() + 3600);
    }),
    ("long ago and still good", |request, stage| {
        request.parameters = parameters(&stage.keys[0], "too-long-0002", now() - 86_400, now() + 60);
    }),
    ("created beyond all numbers", |request, stage| {
        request.parameters = parameters(&stage.keys[0], "beyond-0001", -999_999_999_999_999, 999_999_999_999_999);
    }),
    ("expiry put off after signing", |request, _| {
        request.sent = |list| list.replace(";nonce", "0;nonce");
    }),
    ("no created", |request, _| request.parameters = strip(&request.parameters, ";created=")),
    ("no expires", |request, _| request.parameters = strip(&request.parameters, ";expires=")),
    ("no nonce", |request, _| request.parameters = strip(&request.parameters, ";nonce=")),
    ("no keyid", |request, _| request.parameters = strip(&request.parameters, ";keyid=")),
    ("no alg", |request, _| request.parameters = strip(&request.parameters, ";alg=")),
    ("created as a text", |request, _| {
        request.parameters = request.parameters.replace(";created=", ";created=\"").replace(";expires", "\";expires");
    }),
    ("created twice", |request, _| request.parameters.push_str(";created=1")),
    ("another algorithm", |request, _| request.parameters = request.parameters.replace("hmac-sha256", "hmac-sha512")),
    ("a public-key algorithm", |request, _| request.parameters = request.parameters.replace("hmac-sha256", "ed25519")),
    ("no algorithm", |request, _| request.parameters = request.parameters.replace("hmac-sha256", "none")),
    ("a short nonce", |request, stage| {
        request.parameters = parameters(&stage.keys[0], "1234567", now(), now() + 60);
    }),
    ("an endless nonce", |request, stage| {
        request.parameters = parameters(&stage.keys[0], &"n".repeat(129), now(), now() + 60);
    }),
    ("another nonce after signing", |request, _| {
        request.sent = |list| list.replace(";nonce=\"", ";nonce=\"x");
    }),
    ("another tenant's key, own secret", |request, stage| {
        request.parameters = parameters(&stage.keys[1], "of-another-01", now(), now() + 60);
    }),
    ("own key, another tenant's secret", |request, stage| request.secret = stage.secret(1).into()),
    ("keyid swapped after signing", |request, stage| {
        let _ = stage;
        request.sent = |list| {
            let (before, rest) = list.split_once("keyid=\"").unwrap();
            let (_, after) = rest.split_once('"').unwrap();
            format!("{before}keyid=\"AAAAAAAA\"{after}")
        };
    }),
    ("an unknown key", |request, _| {
        request.parameters = parameters("unknown0", "unknown-0001", now(), now() + 60);
        request.secret = Pepper::from_text(PEPPER).signing_secret("unknown1").expose().into();
    }),
    ("an unknown key with the secret it would have", |request, _| {
        request.parameters = parameters("unknown0", "unknown-0002", now(), now() + 60);
        request.secret = Pepper::from_text(PEPPER).signing_secret("unknown0").expose().into();
    }),
    ("a key id that climbs", |request, _| {
        request.parameters = parameters("../../etc/passwd", "climbing-001", now(), now() + 60);
    }),
    ("an empty key id", |request, _| request.parameters = parameters("", "empty-key-01", now(), now() + 60)),
    ("the key's id as the secret", |request, stage| request.secret = stage.keys[0].clone().into()),
    ("an empty secret", |request, _| request.secret = Vec::new()),
    ("a signature of zeros", |request, _| request.tag = |tag| vec![0; tag.len()]),
    ("no signature's bytes", |request, _| request.tag = |_| Vec::new()),
    ("a signature cut off", |request, _| request.tag = |tag| tag[..16].to_vec()),
    ("a signature with more", |request, _| request.tag = |tag| [&tag[..], &[0]].concat()),
    ("a bit flipped", |request, _| {
        request.tag = |mut tag| {
            tag[31] ^= 1;
            tag
        };
    }),
    ("a parameter added after signing", |request, _| request.sent = |list| list + ";tag=\"x\""),
    ("the list twice", |request, _| request.sent = |list| format!("{list}, sluice={list}")),
    ("a second, empty list of the label", |request, _| request.sent = |list| format!("(), sluice={list}")),
    ("two foreign labels", |request, _| {
        request.label = "a".into();
        request.sent = |list| format!("{list}, b={list}");
    }),
    ("the list under another label", |request, _| request.sent = |list| format!("(), other={list}")),
    ("a field that goes on", |request, _| request.sent = |list| list + ","),
    ("a label in capitals", |request, _| request.label = "Sluice".into()),
    ("a field that is none", |request, _| request.sent = |_| "nonsense".into()),
    ("names that are no texts", |request, _| request.sent = |list| list.replace("\"@method\"", "@method")),
    ("another tenant in x-tenant-id", |request, _| request.more.push(("x-tenant-id".into(), "lab".into()))),
];

/// Leaves out one parameter.
fn strip(parameters: &str, name: &str) -> String {
    let (before, rest) = parameters.split_once(name).unwrap();
    let after = rest.find(';').map_or("", |at| &rest[at..]);
    format!("{before}{after}")
}

#[tokio::test]
async fn no_bent_signature_is_let_in_and_its_twin_is() {
    let stage = stage().await;
    for (i, (name, bend)) in BENT.iter().enumerate() {
        let mut request = stage.signed(&format!("nonce-of-bent-{i}"));
        bend(&mut request, &stage);
        let answer = stage.send(&request.bytes()).await;
        assert!(matches!(answer.status(), 400 | 401 | 403), "{name}: {} {}", answer.status(), answer.text());
        assert_eq!(stage.backend.requests().len(), i, "{name}: reached the backend");
        let twin = stage.signed(&format!("nonce-of-twin-{i}"));
        let answer = stage.send(&twin.bytes()).await;
        assert_eq!(answer.status(), 200, "the twin of {name}: {}", answer.text());
    }
    println!("{0} bent signatures, 0 let in; {0} twins let in", BENT.len());
}

#[tokio::test]
async fn a_signature_counts_once_even_if_it_comes_twice_at_once() {
    let stage = stage().await;
    let bytes = stage.signed("used-only-once").bytes();
    let answers = [stage.send(&bytes), stage.send(&bytes), stage.send(&bytes), stage.send(&bytes)];
    let [a, b, c, d] = answers;
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    let mut all = [a, b, c, d].map(|answer| answer.status());
    all.sort_unstable();
    assert_eq!(all, [200, 401, 401, 401]);
    assert_eq!(stage.backend.requests().len(), 1);
    let again = stage.send(&bytes).await;
    assert!(again.text().contains("used before"), "{}", again.text());
}

#[tokio::test]
async fn what_is_written_otherwise_but_means_the_same_is_let_in() {
    let stage = stage().await;
    let check = async |name: &str, request: Signed| {
        let answer = stage.send(&request.bytes()).await;
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    };
    let mut spaced = stage.signed("the-same-001");
    spaced.sent = |list| list.replace("\"@method\" ", "  \"@method\"   ").replace(";created", "; created");
    check("blanks in the list", spaced).await;
    let mut labelled = stage.signed("the-same-002");
    labelled.label = "sig1".into();
    check("another label, alone", labelled).await;
    let mut beside = stage.signed("the-same-003");
    beside.more.push(("signature-input".into(), "proxy=(\"@method\");created=1".into()));
    beside.more.push(("signature".into(), "proxy=:AAAA:".into()));
    check("a proxy's signature beside ours", beside).await;
    let mut capitals = stage.signed("the-same-004");
    capitals.host = "LOCALHOST:80".into();
    check("a host in capitals with the usual port", capitals).await;
    let mut listed = stage.signed("the-same-005");
    listed.covered.push(("x-sluice-tag".into(), "one".into()));
    listed.more.push(("X-Sluice-Tag".into(), "  one ".into()));
    check("a header with blanks around it", listed).await;
    let mut digests = stage.signed("the-same-006");
    let two = format!("sha-512=:AAAA:, {}", digest_of(BODY));
    *digests.value("content-digest") = two.clone();
    digests.more = vec![("content-digest".into(), "sha-512=:AAAA:".into()), ("content-digest".into(), digest_of(BODY))];
    check("two digests on two lines", digests).await;
    let mut get = stage.signed("the-same-007");
    get.uncover("content-digest");
    (get.method, get.target) = ("GET".into(), "/v1/models?".into());
    (get.body, get.more) = (String::new(), Vec::new());
    for (name, value) in [("@method", "GET"), ("@path", "/v1/models"), ("@query", "?")] {
        *get.value(name) = value.into();
    }
    check("no body, an empty query", get).await;
}

#[tokio::test]
async fn a_key_that_must_sign_is_not_let_in_without() {
    let stage = stage().await;
    let bearer = format!("Bearer {}", stage.must_sign);
    let answer = stage.with(&[("authorization", &bearer)]).await;
    assert_eq!(answer.status(), 401);
    assert!(answer.text().contains("must be signed"), "{}", answer.text());
    let now = now();
    let mut request = Signed::post(&stage.secret(2), parameters(&stage.keys[2], "must-sign-01", now, now + 60));
    assert_eq!(stage.send(&request.bytes()).await.status(), 200);
    request.parameters = parameters(&stage.keys[2], "must-sign-02", now, now + 60);
    request.more.push(("authorization".into(), bearer));
    assert_eq!(stage.send(&request.bytes()).await.status(), 200, "the key beside its signature");
}
