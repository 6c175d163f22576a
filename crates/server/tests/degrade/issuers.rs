//! An issuer of tokens: hung, slow, gone.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use testkit::{Answer, Plan, Script, Sluice, Upstream, completion};

use super::QUICK;
use crate::issuer::{Issuer, Key, Way, token};
use crate::money::{CHAT, SOON, chat, key};

/// How long a call waits for keys at most.
const WAIT_MAX: Duration = Duration::from_secs(5);

struct Stage {
    issuer: Issuer,
    _backend: Upstream,
    sluice: Sluice,
}

async fn stage(issuer: Issuer) -> Stage {
    let backend = Upstream::start(Plan::made(|_| Script::json(200, completion("m", "hi"))));
    let config = format!(
        "auth: required
tenants:
  - {{ id: acme, jwt: {{ issuer: \"{}\", audience: sluice }} }}
  - {{ id: lab, keys: [ {{ name: l, key: \"{}\" }} ] }}
models: [ {{ model_name: m, endpoint: \"{}\" }} ]
",
        issuer.name(),
        key("l"),
        backend.url()
    );
    Stage { issuer, sluice: Sluice::start(config).await, _backend: backend }
}

impl Stage {
    /// A token of the key that the issuer calls `kid`; each is another one.
    fn token(&self, kid: &str, nth: u32) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": self.issuer.name(), "aud": "sluice", "sub": "alice", "jti": nth.to_string(), "iat": now, "exp": now + 300,
        });
        let (header, new) = (json!({ "alg": "ES256", "typ": "JWT", "kid": kid }), Key::p256());
        let key = if kid == "p256" { &self.issuer.p256 } else { &new };
        token(&header.to_string(), &claims.to_string(), &Way::With(key, "ES256"))
    }

    async fn with(&self, credential: &str) -> (Answer, Duration) {
        let since = Instant::now();
        let bearer = format!("Bearer {credential}");
        let answer = testkit::post(&self.sluice.url(CHAT), &[("authorization", &bearer)], chat("m", "")).await;
        (answer, since.elapsed())
    }

    async fn others_go_on(&self) {
        let (answer, took) = self.with(&key("l")).await;
        assert!(answer.status() == 200 && took < QUICK, "{took:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_hung_issuer_stops_nobody_whose_key_is_known() {
    let stage = stage(Issuer::start()).await;
    let (answer, _) = stage.with(&stage.token("p256", 0)).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    stage.issuer.server.on_probe(Script::new().hang());
    for nth in 1..4 {
        let (answer, took) = stage.with(&stage.token("p256", nth)).await;
        assert!(answer.status() == 200 && took < QUICK, "{took:?}: {}", answer.text());
    }
    // Keys that are new since are not to be had.
    let new = stage.token("new", 0);
    let ((answer, took), ()) = tokio::join!(stage.with(&new), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.others_go_on().await;
        let (known, waited) = stage.with(&stage.token("p256", 9)).await;
        assert!(known.status() == 200 && waited < QUICK, "{waited:?}");
    });
    assert!(answer.status() == 401 && took < WAIT_MAX + QUICK, "{took:?}: {}", answer.text());
}

#[tokio::test]
async fn an_issuer_that_hangs_from_the_start_has_its_tokens_put_off_and_nobody_elses() {
    let issuer = Issuer::start();
    issuer.server.on_probe(Script::new().hang());
    let stage = stage(issuer).await;
    stage.others_go_on().await;
    let token = stage.token("p256", 0);
    let (answer, took) = stage.with(&token).await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    assert!(took < WAIT_MAX + QUICK, "{took:?}");
    stage.issuer.answers(Duration::ZERO);
    let deadline = Instant::now() + SOON;
    while stage.with(&token).await.0.status() != 200 {
        assert!(Instant::now() < deadline, "it is asked again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_slow_issuer_is_waited_for_by_the_first_call() {
    let issuer = Issuer::start();
    issuer.answers(Duration::from_millis(700));
    let stage = stage(issuer).await;
    let (first, took) = stage.with(&stage.token("p256", 0)).await;
    assert!(first.status() == 200 && took < WAIT_MAX, "{took:?}: {}", first.text());
    let (second, took) = stage.with(&stage.token("p256", 1)).await;
    assert!(second.status() == 200 && took < QUICK, "{took:?}");
    stage.others_go_on().await;
}
