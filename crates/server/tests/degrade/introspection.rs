//! The server that is asked about opaque tokens: stopped, hung, slow, gone at the start.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Answer, Plan, Script, Sluice, Upstream, completion};

use super::QUICK;
use crate::money::{CHAT, chat, key};

/// How long it may take.
const WITHIN: Duration = Duration::from_millis(1_500);
/// How long its yes is believed.
const BELIEVED: Duration = Duration::from_millis(2_000);
/// Questions that are open at once at most.
const QUESTIONS: usize = 64;

struct Stage {
    server: Upstream,
    _backend: Upstream,
    sluice: Sluice,
}

/// Says yes to every token.
fn yes() -> Script {
    Script::json(200, json!({ "active": true, "sub": "alice", "aud": "sluice", "exp": 4_000_000_000_u64 }).to_string())
}

async fn stage(server: Upstream) -> Stage {
    let backend = Upstream::start(Plan::made(|_| Script::json(200, completion("m", "hi"))));
    let config = format!(
        "auth: required
introspection: {{ url: \"{0}/ask\", issuer: \"{0}\", client_id: us, client_secret: secret, timeout_ms: {1}, ttl_ms: {2} }}
tenants:
  - {{ id: acme, jwt: {{ issuer: \"{0}\", audience: sluice }} }}
  - {{ id: lab, keys: [ {{ name: l, key: \"{3}\" }} ] }}
models: [ {{ model_name: m, endpoint: \"{4}\" }} ]
",
        server.url(),
        WITHIN.as_millis(),
        BELIEVED.as_millis(),
        key("l"),
        backend.url()
    );
    Stage { server, sluice: Sluice::start(config).await, _backend: backend }
}

impl Stage {
    async fn with(&self, credential: &str) -> (Answer, Duration) {
        let since = Instant::now();
        let bearer = format!("Bearer {credential}");
        let answer = testkit::post(&self.sluice.url(CHAT), &[("authorization", &bearer)], chat("m", "")).await;
        (answer, since.elapsed())
    }

    async fn lets_in(&self, credential: &str) -> Duration {
        let (answer, took) = self.with(credential).await;
        assert_eq!(answer.status(), 200, "{credential}: {}", answer.text());
        took
    }

    async fn puts_off(&self, credential: &str) -> Duration {
        let (answer, took) = self.with(credential).await;
        assert_eq!(
            (answer.status(), answer.header("retry-after")),
            (503, Some("1")),
            "{credential}: {}",
            answer.text()
        );
        took
    }

    /// Other credentials never notice.
    async fn others_go_on(&self) {
        assert!(self.lets_in(&key("l")).await < QUICK);
    }
}

#[tokio::test]
async fn a_hung_introspection_server_holds_up_its_own_tokens_so_long_and_nobody_else() {
    let stage = stage(Upstream::start(yes())).await;
    stage.lets_in("known").await;
    stage.server.always(Script::new().hang());
    assert!(stage.lets_in("known").await < QUICK, "it said yes lately");
    let took = stage.puts_off("new").await;
    assert!(took >= WITHIN && took < WITHIN + QUICK, "{took:?}");
    stage.others_go_on().await;
    // As many as may wait do; further tokens are put off at once.
    let mut waiting = Vec::new();
    for nth in 0..QUESTIONS {
        let (url, bearer) = (stage.sluice.url(CHAT), format!("Bearer made-up-{nth}"));
        waiting.push(tokio::spawn(async move {
            testkit::post(&url, &[("authorization", &bearer)], chat("m", "")).await.status()
        }));
    }
    let deadline = Instant::now() + WITHIN;
    while stage.server.requests().len() < QUESTIONS + 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(stage.puts_off("one-more").await < QUICK / 2, "there is no place to wait");
    stage.others_go_on().await;
    for call in waiting {
        assert_eq!(call.await.unwrap(), 503);
    }
    tokio::time::sleep(BELIEVED).await;
    stage.puts_off("known").await;
    stage.server.always(yes());
    stage.lets_in("known").await;
    stage.lets_in("new").await;
}

#[tokio::test]
async fn a_slow_introspection_server_is_waited_for_once_a_token() {
    let late = WITHIN / 3;
    let stage = stage(Upstream::start(Plan::made(move |_| Script::new().pause(late).then(yes())))).await;
    let ((first, one), (second, other)) = tokio::join!(stage.with("t"), stage.with("t"));
    assert_eq!((first.status(), second.status()), (200, 200));
    assert!(one >= late && one < late + QUICK && other < late + QUICK, "{one:?} {other:?}");
    assert_eq!(stage.server.requests().len(), 1, "both waited for one answer");
    assert!(stage.lets_in("t").await < late, "it is remembered");
    stage.others_go_on().await;
}

#[tokio::test]
async fn an_introspection_server_that_is_gone_at_the_start_is_asked_when_it_is_back() {
    let stage = stage(Upstream::refusing(yes())).await;
    assert!(stage.puts_off("t").await < QUICK, "it is told at once");
    stage.others_go_on().await;
    stage.server.accept();
    stage.lets_in("t").await;
    stage.server.refuse();
    stage.server.die();
    assert!(stage.lets_in("t").await < QUICK, "it said yes lately");
    tokio::time::sleep(BELIEVED).await;
    stage.puts_off("t").await;
}
