//! One limit for several processes: the real binary, four times, and a real Redis that is well, hung, killed and back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::time::{Duration, Instant};

use callers::{HOLD, Like, SOON, sample, send, tenant};
use testkit::{Detour, Redis, Sluice, Upstream};

const A: Like<'_> = Like { key: "a", priority: "", model: "", body: "", headers: &[] };
const NODES: usize = 4;
/// Each test loads the machine by itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// How often what a process has on lease is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A call that waits for nothing takes a millisecond or two; a busy machine is given more. Far below what Redis is given.
const QUICK: Duration = Duration::from_millis(200);

struct Nodes {
    redis: Redis,
    upstream: Upstream,
    all: Vec<Sluice>,
}

/// So many processes with one limit of one tenant.
async fn start(limits: &str, count: usize) -> Nodes {
    let redis = Redis::start();
    let url = redis.url();
    start_at(redis, &url, limits, count).await
}

/// The same, with a Redis that is reached at this URL.
async fn start_at(redis: Redis, url: &str, limits: &str, count: usize) -> Nodes {
    let upstream = Upstream::start(callers::holding());
    let config = format!(
        "auth: required
storage: {{ redis: \"{}\" }}
telemetry: {{ access_log: false }}
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\" }} ]
",
        url,
        tenant("acme", &format!("limits: {{ {limits} }}, "), &["a"]),
        upstream.url()
    );
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Sluice::start(config.clone()).await);
    }
    for node in &all {
        sample(node, "sluice_limit_shared", &[], 1.0).await;
        sample(node, "sluice_limit_nodes", &[], count as f64).await;
    }
    Nodes { redis, upstream, all }
}

/// What became of calls.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: u64,
    refused: u64,
    slowest: Duration,
}

/// Sends calls at a steady pace to one process for some time. Any answer but 200 and 429 is a failure of the test.
async fn load(node: &Sluice, per_second: u32, lasting: Duration) -> Tally {
    let (began, mut tally, mut sent) = (Instant::now(), Tally::default(), 0);
    let gap = Duration::from_secs(1) / per_second;
    let bearer = format!("Bearer {}", callers::key("a"));
    let body = r#"{"model":"m","user":"x","messages":[]}"#;
    let request = testkit::request_bytes("POST", callers::CHAT, &[("authorization", &bearer)], body);
    let mut wire = testkit::Wire::connect(&node.url("")).await.unwrap();
    while began.elapsed() < lasting {
        // Behind its pace it catches up: what is offered is what was meant.
        if let Some(early) = (gap * sent).checked_sub(began.elapsed()) {
            tokio::time::sleep(early).await;
        }
        sent += 1;
        let since = Instant::now();
        wire.send(request.clone()).await.unwrap();
        match wire.answer(SOON).await.unwrap().status() {
            200 => tally.passed += 1,
            429 => tally.refused += 1,
            other => panic!("{other}"),
        }
        tally.slowest = tally.slowest.max(since.elapsed());
    }
    tally
}

/// The most that was on lease while it was looked at, of all processes together.
async fn bound(nodes: &[Sluice], lasting: Duration) -> f64 {
    let (began, mut most) = (Instant::now(), 0.0f64);
    while began.elapsed() < lasting {
        let mut now = 0.0;
        for node in nodes {
            now += node.metrics().await.value("sluice_limit_lease_bound", &[("limit", "rps")]);
        }
        most = most.max(now);
        tokio::time::sleep(LOOK_EVERY).await;
    }
    most
}

/// Loads all processes alike.
async fn load_all(nodes: &[Sluice], per_second: u32, lasting: Duration) -> Vec<Tally> {
    let [one, two, three, four] = nodes else { panic!("four") };
    let load = |node| load(node, per_second, lasting);
    let (one, two, three, four) = tokio::join!(load(one), load(two), load(three), load(four));
    vec![one, two, three, four]
}

#[tokio::test]
async fn four_processes_let_through_what_one_would_with_few_questions_to_redis() {
    let _alone = ALONE.lock().await;
    let mut story = String::new();
    // A machine too busy to answer in time, or to offer more than the limit lets, shows only that nothing too much passes.
    for _ in 0..3 {
        let nodes = start("rps: 400", NODES).await;
        let asked = nodes.redis.calls("evalsha");
        let lasting = Duration::from_secs(10);
        let timed = async {
            let since = Instant::now();
            (load_all(&nodes.all, 150, lasting).await, since.elapsed().as_secs_f64())
        };
        let ((tallies, lasted), most) = tokio::join!(timed, bound(&nodes.all, lasting));
        let asked = (nodes.redis.calls("evalsha") - asked) as f64;
        let mut failures = 0.0;
        for node in &nodes.all {
            failures += node.metrics().await.value("sluice_limit_exchange_failures_total", &[]);
        }
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>() as f64;
        let (passed, refused) = (sum(|tally| tally.passed), sum(|tally| tally.refused));
        // A burst of one second's worth, and what comes back meanwhile.
        let limit = 400.0 * (1.0 + lasted);
        story = format!(
            "{passed} passed of {limit}, {refused} refused, {most} on lease, {asked} questions, {failures} failures"
        );
        println!("{story}");
        assert!(passed - limit <= most && passed - limit <= 0.005 * limit, "excess: {story}");
        if failures > 0.0 || passed + refused < limit + 400.0 {
            continue;
        }
        // What is on lease when the load ends is no refusal of anybody.
        let missing = limit - passed - most;
        assert!(missing <= 0.005 * limit, "refused though there was something left: {story}");
        // Where answers come late more is asked for.
        if asked <= 0.05 * (passed + refused) {
            return;
        }
    }
    panic!("too many questions to Redis, or the machine is too busy: {story}");
}

#[tokio::test]
async fn below_its_limit_nobody_is_refused_wherever_its_calls_come_in() {
    let _alone = ALONE.lock().await;
    let nodes = start("rps: 400", NODES).await;
    // All to one process, then all to another: what others may hold on lease is not missed.
    for node in &nodes.all[..2] {
        let tally = load(node, 250, Duration::from_secs(3)).await;
        assert_eq!(tally.refused, 0, "{tally:?}");
    }
    assert!(nodes.upstream.requests().len() > 1000);
}

#[tokio::test]
async fn calls_at_once_are_counted_over_all_processes() {
    let _alone = ALONE.lock().await;
    let nodes = start("concurrency: 8", 2).await;
    let mut held = Vec::new();
    for count in 1..=8 {
        let deadline = Instant::now() + SOON;
        // The last places may lie with the other process: a client that is refused comes back, and gets in.
        loop {
            let call = send(&nodes.all[count % 2], HOLD, A).await;
            if nodes.upstream.busy(count, Duration::from_millis(300)).await {
                held.push(call);
                break;
            }
            assert!(Instant::now() < deadline, "{count}");
        }
    }
    let deadline = Instant::now() + SOON;
    for node in &nodes.all {
        // What it was trusted with before it is told that there is nothing left: for a second at most.
        while send(node, "x", A).await.answer().await.status() != 429 {
            assert!(Instant::now() < deadline, "more than eight");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    held.truncate(4);
    let deadline = Instant::now() + SOON;
    for node in &nodes.all {
        while send(node, "x", A).await.answer().await.status() != 200 {
            assert!(Instant::now() < deadline, "places were never given back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn redis_hung_and_killed_under_load_costs_no_call_an_error_or_time_and_each_keeps_to_its_share() {
    let _alone = ALONE.lock().await;
    let mut nodes = start("rps: 400", NODES).await;
    load_all(&nodes.all, 150, Duration::from_secs(2)).await;
    for fault in ["hung", "killed"] {
        match fault {
            "hung" => nodes.redis.hang(),
            _ => nodes.redis.kill(),
        }
        let since = Instant::now();
        let tallies = load_all(&nodes.all, 150, Duration::from_secs(3)).await;
        let limit = 400.0 * (1.0 + since.elapsed().as_secs_f64());
        let passed = tallies.iter().map(|tally| tally.passed).sum::<u64>() as f64;
        assert!(passed <= limit && passed >= 350.0 * 3.0, "{fault}: {passed} passed of {limit}");
        assert!(tallies.iter().all(|tally| tally.slowest < QUICK), "{fault}: {tallies:?}");
        for node in &nodes.all {
            sample(node, "sluice_limit_shared", &[], 0.0).await;
        }
        match fault {
            "hung" => nodes.redis.go_on(),
            _ => nodes.redis.restart(),
        }
        for node in &nodes.all {
            sample(node, "sluice_limit_shared", &[], 1.0).await;
            sample(node, "sluice_limit_nodes", &[], 4.0).await;
        }
        let since = Instant::now();
        let tallies = load_all(&nodes.all, 150, Duration::from_secs(3)).await;
        let limit = 400.0 * (1.0 + since.elapsed().as_secs_f64());
        let passed = tallies.iter().map(|tally| tally.passed).sum::<u64>() as f64;
        assert!(passed <= 1.005 * limit, "{fault}, and back: {passed} passed of {limit}");
    }
}

#[tokio::test]
async fn a_slow_redis_shares_limits_all_the_same_and_no_call_waits_for_it() {
    let _alone = ALONE.lock().await;
    let redis = Redis::start();
    let detour = Detour::to(redis.port());
    let url = format!("redis://127.0.0.1:{}", detour.port());
    let nodes = start_at(redis, &url, "rps: 200", 2).await;
    // Twenty milliseconds an exchange, of the fifty that it may take.
    detour.delay(Duration::from_millis(10));
    let lasting = Duration::from_secs(3);
    let timed = async {
        let since = Instant::now();
        let tallies = tokio::join!(load(&nodes.all[0], 300, lasting), load(&nodes.all[1], 30, lasting));
        ([tallies.0, tallies.1], since.elapsed().as_secs_f64())
    };
    let ((tallies, lasted), most) = tokio::join!(timed, bound(&nodes.all, lasting));
    let (passed, limit) = (tallies.iter().map(|tally| tally.passed).sum::<u64>() as f64, 200.0 * (1.0 + lasted));
    assert!(passed <= limit + most, "{passed} passed of {limit}, {most} on lease");
    // By itself the first would keep to its half.
    assert!(passed >= 0.9 * limit - most, "{passed} passed of {limit}, {most} on lease");
    assert!(tallies.iter().all(|tally| tally.slowest < QUICK), "{tallies:?}");
    for node in &nodes.all {
        sample(node, "sluice_limit_shared", &[], 1.0).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_told_without_its_password_and_nobody_is_refused_for_it() {
    let upstream = Upstream::start(callers::holding());
    let config = format!(
        "auth: required
storage: {{ redis: \"redis://:canary-password@127.0.0.1:{}\" }}
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\" }} ]
",
        testkit::free_port(),
        tenant("acme", "limits: { rps: 50 }, ", &["a"]),
        upstream.url()
    );
    let sluice = Sluice::start(config).await;
    for _ in 0..20 {
        send(&sluice, "x", A).await.answered().await;
    }
    sample(&sluice, "sluice_limit_shared", &[], 0.0).await;
    assert!(sluice.stderr().contains("limits cannot be shared"));
    let said = sluice.stdout() + &sluice.stderr();
    assert!(!said.contains("canary-password"));
}
