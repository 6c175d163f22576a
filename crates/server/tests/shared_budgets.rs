//! One budget for several processes: the real binary, four times, and a real Redis that is well, and killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::time::Duration;

use callers::{Like, sample, send, tenant};
use testkit::{Plan, Redis, Script, Sluice, Upstream, completion};

const A: Like<'_> = Like { key: "a", priority: "", model: "", body: "", headers: &[] };
const NODES: usize = 4;

struct Nodes {
    redis: Redis,
    upstream: Upstream,
    all: Vec<Sluice>,
}

/// Four processes, each with a ledger of its own, and one tenant with this budget, at a hundredth a call. The backend takes a
/// while, so that calls are under way at once.
async fn start(budget: &str) -> Nodes {
    let redis = Redis::start();
    let slow =
        Plan::made(|_| Script::new().pause(Duration::from_millis(200)).then(Script::json(200, completion("m", "x"))));
    let upstream = Upstream::start(slow);
    let config = format!(
        "auth: required
storage: {{ redis: \"{}\" }}
plans: [ {{ name: p, billing: {{ per_call: \"0.01\" }}, budgets: [ {{ limit: \"{budget}\", per: total }} ] }} ]
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\" }} ]
",
        redis.url(),
        tenant("acme", "plan: p, ", &["a"]),
        upstream.url()
    );
    let mut all = Vec::new();
    for _ in 0..NODES {
        all.push(Sluice::start(config.clone()).await);
    }
    for node in &all {
        sample(node, "sluice_budget_shared", &[], 1.0).await;
        sample(node, "sluice_limit_nodes", &[], NODES as f64).await;
    }
    Nodes { redis, upstream, all }
}

/// So many calls at once, one process after the other; gives how many passed. Each other is told that the budget is spent.
async fn passed(nodes: &[Sluice], calls: usize) -> usize {
    let mut sent = Vec::new();
    for nth in 0..calls {
        sent.push(send(&nodes[nth % nodes.len()], "x", A).await);
    }
    let mut passed = 0;
    for call in &mut sent {
        let answer = call.answer().await;
        match answer.status() {
            200 => passed += 1,
            402 => assert_eq!(answer.json()["error"]["code"], "budget_exceeded"),
            other => panic!("{other}: {}", answer.text()),
        }
    }
    passed
}

#[tokio::test]
async fn of_fifty_calls_at_four_processes_on_a_budget_for_ten_exactly_ten_pass() {
    let nodes = start("0.1").await;
    assert_eq!(passed(&nodes.all, 50).await, 10);
    assert_eq!(nodes.upstream.requests().len(), 10, "who is refused asks nobody");
    assert_eq!(passed(&nodes.all, 8).await, 0, "and nothing comes back");
    let answer = send(&nodes.all[3], "x", A).await.answer().await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("0.1 usd in all, is spent: 0.1 usd are spent"), "by all of them: {message}");
}

#[tokio::test]
async fn without_redis_each_process_keeps_to_its_part_of_what_remains_and_nobody_waits() {
    let mut nodes = start("0.12").await;
    nodes.redis.kill();
    for node in &nodes.all {
        sample(node, "sluice_budget_shared", &[], 0.0).await;
    }
    assert_eq!(passed(&nodes.all, 48).await, 12, "three at each");
    nodes.redis.restart();
    for node in &nodes.all {
        sample(node, "sluice_budget_shared", &[], 1.0).await;
    }
    assert_eq!(passed(&nodes.all, 8).await, 0, "what was spent meanwhile is told");
}
