//! Who shares what with whom, when several tenants want the same slot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use callers::{HOLD, Like, join, order, send, tenant};
use serde_json::json;
use testkit::{Plan, Script, Sluice, Upstream};

/// One slot. `gold` has twice the share of `basic`; calls of `long` write a lot, all others little.
fn config(upstream: &Upstream, fairness: &str) -> String {
    let tenants = [
        tenant("flood", "", &["flood"]),
        tenant("quiet", "", &["quiet"]),
        tenant("two", "", &["two-a", "two-b"]),
        tenant("gold", "plan: gold, ", &["gold"]),
        tenant("basic", "plan: basic, ", &["basic"]),
    ];
    format!(
        "auth: required
scheduling: {{ fairness: {fairness} }}
plans: [ {{ name: gold, weight: 2 }}, {{ name: basic, weight: 1 }} ]
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\", max_concurrency: 1 }} ]
",
        tenants.concat(),
        upstream.url()
    )
}

/// Answers calls whose user begins with `long` with a thousand tokens, others with ten.
fn answers() -> Plan {
    Plan::made(|request| match request.json()["user"].as_str().unwrap_or_default() {
        HOLD => Script::new().hang(),
        user => {
            let tokens = if user.starts_with("long") { 1_000 } else { 10 };
            let mut answer: serde_json::Value = serde_json::from_str(&testkit::completion("m", user)).unwrap();
            answer["usage"] = json!({ "prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10 });
            Script::json(200, answer.to_string())
        }
    })
}

/// Lets these calls (key, user) line up one after the other behind one of `flood`, then frees the slot. Gives the users
/// in the order they were served.
async fn served(fairness: &str, calls: &[(&str, &str)]) -> Vec<String> {
    let upstream = Upstream::start(answers());
    let sluice = Sluice::start(config(&upstream, fairness)).await;
    let holder = send(&sluice, HOLD, Like { key: "flood", ..Like::default() }).await;
    assert!(upstream.hanging(1, callers::SOON).await);
    let mut sent = Vec::new();
    for (at, (key, user)) in calls.iter().enumerate() {
        sent.push(join(&sluice, user, Like { key, ..Like::default() }, at).await);
    }
    drop(holder);
    for call in &mut sent {
        assert_eq!(call.answer().await.status(), 200);
    }
    callers::idle(&sluice).await;
    order(&upstream)
}

fn count(order: &[String], user: &str) -> usize {
    order.iter().filter(|found| *found == user).count()
}

#[tokio::test]
async fn a_flooding_tenant_does_not_make_a_quiet_one_wait_for_its_flood() {
    let calls = [vec![("flood", "flood"); 20], vec![("quiet", "quiet")]].concat();
    let order = served("token", &calls).await;
    assert_eq!(order[0], "quiet", "after the call that was running, and no other: {order:?}");
}

#[tokio::test]
async fn two_keys_do_not_double_a_tenants_share_and_share_it_between_them() {
    let calls = [vec![("two-a", "a"); 8], vec![("two-b", "b"); 8], vec![("quiet", "quiet"); 8]].concat();
    let order = served("token", &calls).await;
    let first = &order[..12];
    let (a, b, quiet) = (count(first, "a"), count(first, "b"), count(first, "quiet"));
    assert!((5..=7).contains(&quiet), "half of the turns: {order:?}");
    assert!(a.abs_diff(b) <= 1, "the keys share theirs: {order:?}");
}

#[tokio::test]
async fn tenants_share_by_the_weight_of_their_plan() {
    let calls = [vec![("basic", "basic"); 12], vec![("gold", "gold"); 12]].concat();
    let order = served("token", &calls).await;
    let gold = count(&order[..15], "gold");
    assert!((9..=11).contains(&gold), "two thirds of the turns: {order:?}");
}

#[tokio::test]
async fn under_token_fairness_whoever_writes_much_gets_fewer_turns() {
    let calls = [vec![("flood", "long"); 10], vec![("quiet", "short"); 10]].concat();
    let order = served("token", &calls).await;
    assert!(count(&order[..12], "short") >= 9, "{order:?}");
}

#[tokio::test]
async fn under_request_fairness_turns_alternate_whatever_is_written() {
    let calls = [vec![("flood", "long"); 10], vec![("quiet", "short"); 10]].concat();
    let order = served("request", &calls).await;
    let short = count(&order[..12], "short");
    assert!((5..=7).contains(&short), "{order:?}");
}

#[tokio::test]
async fn without_fairness_calls_are_served_as_they_came() {
    let names: Vec<String> = (0..12).map(|at| at.to_string()).collect();
    let keys = ["flood", "flood", "flood", "quiet", "two-a", "gold"];
    let calls: Vec<(&str, &str)> = names.iter().enumerate().map(|(at, name)| (keys[at % 6], name.as_str())).collect();
    assert_eq!(served("none", &calls).await, names);
}
