//! A signed request counts once at all processes: the real binary, twice, and a real Redis that is well, hung, killed and
//! back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

use std::time::{Duration, Instant, SystemTime};

use access::credential::signature::{self, Request};
use tenancy::Pepper;
use testkit::{Answer, Detour, Plan, Redis, Script, Sluice, Upstream, Wire, completion, request_bytes};

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const PEPPER: &str = "a pepper for tests";
const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a call takes at most: an answer of Redis that is waited for, and a busy machine.
const QUICK: Duration = Duration::from_millis(400);

struct Nodes {
    redis: Redis,
    _backend: Upstream,
    all: Vec<Sluice>,
    key: String,
}

/// Two processes, and what they do while Redis does not answer.
async fn start(rule: &str) -> Nodes {
    let redis = Redis::start();
    let url = redis.url();
    start_at(redis, &url, rule).await
}

async fn start_at(redis: Redis, url: &str, rule: &str) -> Nodes {
    let backend = Upstream::start(Plan::made(|_| Script::json(200, completion("m", "hello"))));
    let launch = || Sluice::launch().env("SLUICE_KEY_PEPPER", PEPPER);
    let hash = launch().key("acme").hash;
    let config = format!(
        "auth: required
storage: {{ redis: \"{url}\"{rule} }}
tenants: [ {{ id: acme, keys: [ {{ name: k, hash: \"{hash}\", signed: true }} ] }} ]
models: [ {{ model_name: m, endpoint: \"{}\" }} ]
",
        backend.url()
    );
    let mut all = Vec::new();
    for _ in 0..2 {
        all.push(launch().config(config.clone()).start().await);
    }
    Nodes { redis, _backend: backend, all, key: hash.split('.').next().unwrap().to_owned() }
}

impl Nodes {
    /// A signed request, as it was taken down from the wire.
    fn signed(&self) -> Vec<u8> {
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let signed = signature::sign(&Request {
            method: "POST",
            url: &format!("http://gateway.test{CHAT}"),
            body: Some(BODY.as_bytes()),
            key_id: &self.key,
            secret: &Pepper::from_text(PEPPER).signing_secret(&self.key),
            created: i64::try_from(created).unwrap(),
            lifetime: 60,
            nonce: None,
        });
        let headers = signed.unwrap().headers;
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("host", "gateway.test"));
        request_bytes("POST", CHAT, &headers, BODY)
    }

    async fn send(&self, node: usize, request: &[u8]) -> Answer {
        let mut wire = Wire::connect(&self.all[node].url("")).await.unwrap();
        let since = Instant::now();
        wire.send(request.to_vec()).await.unwrap();
        let answer = wire.answer(SOON).await.unwrap();
        assert!(since.elapsed() < QUICK, "{:?}", since.elapsed());
        answer
    }

    /// Statuses of one request at the first process, and again at both.
    async fn thrice(&self) -> [u16; 3] {
        let request = self.signed();
        let mut statuses = [0; 3];
        for (status, node) in statuses.iter_mut().zip([0, 1, 0]) {
            *status = self.send(node, &request).await.status();
        }
        statuses
    }

    /// Until Redis is found again.
    async fn until_shared(&self) {
        let deadline = Instant::now() + SOON;
        while self.thrice().await != [200, 401, 401] {
            assert!(Instant::now() < deadline, "never shared");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn alone(&self, node: usize) -> f64 {
        self.all[node].metrics().await.value("sluice_nonces_alone_total", &[])
    }
}

#[tokio::test]
async fn a_signed_request_that_one_process_has_seen_is_refused_by_the_other() {
    let mut nodes = start("").await;
    let request = nodes.signed();
    assert_eq!(nodes.send(0, &request).await.status(), 200);
    let replayed = nodes.send(1, &request).await;
    let said = replayed.json()["error"]["message"].to_string();
    assert_eq!(replayed.status(), 401, "{said}");
    assert!(said.contains("used before"), "{said}");
    assert_eq!(nodes.send(0, &request).await.status(), 401);
    // Nor is it forgotten when the process is, as nonces in memory would be.
    let first = nodes.all.remove(0).restarted().await;
    nodes.all.insert(0, first);
    assert_eq!(nodes.send(0, &request).await.status(), 401);
    assert_eq!(nodes.thrice().await, [200, 401, 401], "another one is as good as ever");
    assert_eq!((nodes.alone(0).await, nodes.alone(1).await), (0.0, 0.0));
}

#[tokio::test]
async fn while_redis_is_hung_or_gone_each_process_knows_its_own_nonces_and_no_call_waits_for_long() {
    let mut nodes = start("").await;
    nodes.until_shared().await;
    nodes.redis.hang();
    for _ in 0..3 {
        assert_eq!(nodes.thrice().await, [200, 200, 401]);
    }
    assert!(nodes.alone(1).await >= 3.0);
    nodes.redis.go_on();
    nodes.until_shared().await;
    nodes.redis.kill();
    for _ in 0..3 {
        assert_eq!(nodes.thrice().await, [200, 200, 401]);
    }
    nodes.redis.restart();
    nodes.until_shared().await;
}

#[tokio::test]
async fn a_slow_redis_counts_nonces_all_the_same() {
    let redis = Redis::start();
    let detour = Detour::to(redis.port());
    let nodes = start_at(redis, &format!("redis://127.0.0.1:{}", detour.port()), "").await;
    nodes.until_shared().await;
    // Twenty milliseconds an answer, of the fifty that it may take.
    detour.delay(Duration::from_millis(10));
    let (mut slow, since) = (0, Instant::now());
    while slow < 5 {
        // A busy machine may add to it what makes it too late: then the process is on its own, and says so.
        let alone = nodes.alone(0).await + nodes.alone(1).await;
        let statuses = nodes.thrice().await;
        if nodes.alone(0).await + nodes.alone(1).await == alone {
            assert_eq!(statuses, [200, 401, 401]);
            slow += 1;
        }
        assert!(since.elapsed() < SOON, "never shared");
    }
}

#[tokio::test]
async fn where_the_config_wants_to_know_signed_requests_are_refused_while_redis_is_gone() {
    let mut nodes = start(", on_redis_loss: refuse").await;
    nodes.until_shared().await;
    nodes.redis.kill();
    let refused = nodes.send(0, &nodes.signed()).await;
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    assert_eq!(nodes.alone(0).await, 0.0);
    nodes.redis.restart();
    nodes.until_shared().await;
}

#[tokio::test]
async fn a_redis_that_is_gone_at_the_start_is_found_when_it_comes() {
    let mut redis = Redis::start();
    redis.kill();
    let url = redis.url();
    let mut nodes = start_at(redis, &url, "").await;
    assert_eq!(nodes.thrice().await, [200, 200, 401]);
    nodes.redis.restart();
    nodes.until_shared().await;
}
