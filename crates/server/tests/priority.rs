//! How urgent a call is, who says so, and what that changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::time::Duration;

use callers::{HOLD, Like, all_answered, holding, join, order, send, tenant};
use testkit::{Sluice, Upstream, post};

/// One slot; `hasty` has a key that is urgent, `modest` a plan that clamps, `lazy` a plan that is low.
fn config(upstream: &Upstream, scheduling: &str) -> String {
    let url = upstream.url();
    let tenants = [
        tenant("acme", "", &["acme"]),
        tenant("modest", "plan: modest, ", &["modest"]),
        tenant("lazy", "plan: lazy, ", &["lazy"]),
    ];
    let hasty = callers::key("hasty");
    format!(
        "auth: none
scheduling: {{ {scheduling} }}
plans:
  - {{ name: modest, priority_max: normal }}
  - {{ name: lazy, priority: low }}
tenants:
{}  - {{ id: hasty, keys: [ {{ name: hasty, key: \"{hasty}\", priority: high }} ] }}
models:
  - {{ model_name: m, endpoint: \"{url}\", max_concurrency: 1 }}
  - {{ model_name: urgent, endpoint: \"{url}\", priority: high }}
",
        tenants.concat()
    )
}

async fn start(scheduling: &str) -> (Upstream, Sluice) {
    let upstream = Upstream::start(holding());
    let sluice = Sluice::start(config(&upstream, scheduling)).await;
    (upstream, sluice)
}

/// The class a call was logged under.
async fn class(sluice: &Sluice, like: Like<'_>) -> String {
    let id = format!("class-of-{}-{}-{}", like.key, like.priority, like.model);
    let headers = [("x-request-id", id.as_str())];
    send(sluice, "u", Like { headers: &headers, ..like }).await.answered().await;
    let found = || sluice.log_lines().into_iter().find(|line| line["id"] == id.as_str());
    assert!(testkit::eventually(callers::SOON, || found().is_some()).await, "no log line of {id}");
    found().and_then(|line| line["class"].as_str().map(str::to_owned)).unwrap_or_else(|| "none".into())
}

#[tokio::test]
async fn the_header_goes_before_the_key_before_the_model_before_the_plan_and_nobody_gets_more_than_the_plan_allows() {
    let (_upstream, sluice) = start("").await;
    let like = |key, priority, model| Like { key, priority, model, ..Like::default() };
    for (key, priority, model, expected) in [
        ("", "", "", "normal"),
        ("", "low", "", "low"),
        ("acme", "high", "", "high"),
        ("acme", "", "urgent", "high"),
        ("acme", "low", "urgent", "low"),
        ("hasty", "", "", "high"),
        ("hasty", "normal", "", "normal"),
        ("lazy", "", "", "low"),
        ("lazy", "high", "", "high"),
        ("lazy", "", "urgent", "high"),
        ("modest", "high", "", "normal"),
        ("modest", "", "urgent", "normal"),
        ("modest", "low", "", "low"),
    ] {
        let found = class(&sluice, like(key, priority, model)).await;
        assert_eq!(found, expected, "key {key:?}, header {priority:?}, model {model:?}");
    }
}

#[tokio::test]
async fn a_priority_that_is_none_is_refused_by_its_name() {
    let (upstream, sluice) = start("").await;
    for said in ["urgent", "", "HIGH!", "1"] {
        let body = r#"{"model":"m","messages":[]}"#;
        let answer = post(&sluice.url(callers::CHAT), &[("x-sluice-priority", said)], body).await;
        assert_eq!(answer.status(), 400, "{said:?}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "x-sluice-priority", "{said:?}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

/// Lets calls of these classes line up one after the other, then frees the slot. Gives the order they were served in,
/// as numbers of their places in line.
async fn served(scheduling: &str, classes: &[&str], pause: Duration) -> Vec<usize> {
    let (upstream, sluice) = start(scheduling).await;
    let holder = send(&sluice, HOLD, Like::default()).await;
    assert!(upstream.hanging(1, callers::SOON).await);
    let mut calls = Vec::new();
    for (at, priority) in classes.iter().enumerate() {
        calls.push(join(&sluice, &at.to_string(), Like { priority, ..Like::default() }, at).await);
    }
    tokio::time::sleep(pause).await;
    drop(holder);
    all_answered(&mut calls).await;
    callers::idle(&sluice).await;
    order(&upstream).into_iter().map(|user| user.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_high_call_overtakes_those_who_wait_and_equals_keep_their_order() {
    let order = served("", &["low", "normal", "low", "normal", "high", "high"], Duration::ZERO).await;
    assert_eq!(order, [4, 5, 1, 3, 0, 2]);
}

#[tokio::test]
async fn a_low_call_that_has_aged_goes_next_and_further_ones_every_eighth_time() {
    let classes = [&["low"; 3][..], &["high"; 20][..]].concat();
    let order = served("aging_ms: 50", &classes, Duration::from_millis(60)).await;
    let lows: Vec<usize> = order.iter().enumerate().filter(|(_, who)| **who < 3).map(|(turn, _)| turn).collect();
    assert_eq!(lows, [0, 8, 16], "{order:?}");
}

#[tokio::test]
async fn a_reserved_share_goes_to_its_class_whatever_waits_above() {
    let classes = [&["low"; 4][..], &["high"; 12][..]].concat();
    let order = served("reserved_percent: { low: 25 }", &classes, Duration::ZERO).await;
    let lows = order.iter().take(12).filter(|who| **who < 4).count();
    assert!((2..=3).contains(&lows), "a quarter of the turns: {order:?}");
}
