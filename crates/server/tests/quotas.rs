//! How much tenants may have running at once, what they lend each other, and that all of it comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callers::{HOLD, Like, NEVER, SOON, idle, join, sample, send, tenant, waiting};
use testkit::{Plan, Script, Sluice, Upstream, completion, delta};

const OWNER: Like<'_> = Like { key: "owner", priority: "", model: "", body: "", headers: &[] };
const GUEST: Like<'_> = Like { key: "guest", ..OWNER };
const OTHER: Like<'_> = Like { key: "other", ..OWNER };

/// No limit but the quotas: `lines` are the lists under `scheduling`.
async fn start(lines: &str) -> (Upstream, Sluice) {
    let upstream = Upstream::start(callers::holding());
    let sluice = Sluice::start(config(&upstream, lines)).await;
    (upstream, sluice)
}

fn config(upstream: &Upstream, lines: &str) -> String {
    let tenants = ["owner", "guest", "other"].map(|id| tenant(id, "", &[id])).concat();
    format!(
        "auth: required
scheduling: {{ {lines} }}
tenants:
{tenants}models:
  - {{ model_name: m, endpoint: \"{0}\" }}
  - {{ model_name: narrow, endpoint: \"{0}/narrow\", max_concurrency: 1 }}
",
        upstream.url()
    )
}

const SHARED: &str = "cohorts: [ { name: c } ], quotas: [ { tenant: owner, cohort: c, concurrency: 1 }, { tenant: guest, cohort: c, concurrency: 1 } ]";

#[tokio::test]
async fn a_tenant_runs_no_more_at_once_than_its_quota_and_others_are_not_held_up() {
    let (upstream, sluice) = start("quotas: [ { tenant: owner, concurrency: 2 } ]").await;
    let first = send(&sluice, HOLD, OWNER).await;
    let second = send(&sluice, HOLD, OWNER).await;
    assert!(upstream.busy(2, SOON).await);
    let mut third = join(&sluice, "third", OWNER, 0).await;
    for _ in 0..3 {
        send(&sluice, "other", OTHER).await.answered().await;
    }
    waiting(&sluice, 1).await;
    sample(&sluice, "sluice_quota_used", &[("tenant", "owner"), ("resource", "concurrency")], 2.0).await;
    drop(first);
    third.answered().await;
    drop(second);
    idle(&sluice).await;
}

#[tokio::test]
async fn a_quota_of_a_class_leaves_the_other_classes_alone() {
    let (upstream, sluice) = start("quotas: [ { tenant: owner, class: low, concurrency: 1 } ]").await;
    let low = Like { priority: "low", ..OWNER };
    let holder = send(&sluice, HOLD, low).await;
    assert!(upstream.busy(1, SOON).await);
    let mut second = join(&sluice, "second", low, 0).await;
    send(&sluice, "normal", OWNER).await.answered().await;
    drop(holder);
    second.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn what_a_member_does_not_use_is_borrowed_and_seen_to_be() {
    let (upstream, sluice) = start(SHARED).await;
    let calls = (send(&sluice, HOLD, GUEST).await, send(&sluice, HOLD, GUEST).await);
    assert!(upstream.busy(2, SOON).await);
    let third = join(&sluice, HOLD, GUEST, 0).await;
    let guest = [("tenant", "guest"), ("class", "any"), ("cohort", "c"), ("resource", "concurrency")];
    for (name, value) in [("sluice_quota", 1.0), ("sluice_quota_used", 2.0), ("sluice_quota_borrowed", 1.0)] {
        sample(&sluice, name, &guest, value).await;
    }
    let page = callers::admin(&sluice, "/admin/v1/queues").await;
    let quotas = page["quotas"].as_array().unwrap();
    let guest = quotas.iter().find(|quota| quota["tenant"] == "guest").unwrap();
    assert_eq!(guest["concurrency"], serde_json::json!({ "nominal": 1, "used": 2, "borrowed": 1 }), "{page}");
    assert_eq!(guest["cohort"], "c");
    drop((calls, third));
    idle(&sluice).await;
}

#[tokio::test]
async fn an_owner_gets_its_own_back_at_once_from_who_borrowed_it_and_loses_nobody_an_answer() {
    let (upstream, sluice) = start(SHARED).await;
    upstream.next(Script::new().hang());
    upstream.next(Script::new().hang());
    let since = Instant::now();
    let mut kept = send(&sluice, "kept", GUEST).await;
    assert!(upstream.hanging(1, SOON).await);
    let mut borrowed = send(&sluice, "borrowed", GUEST).await;
    assert!(upstream.hanging(2, SOON).await);
    send(&sluice, "owner", OWNER).await.answered().await;
    assert!(upstream.abandoned(since, SOON).await.is_some());
    let answer = borrowed.answered().await;
    assert_eq!(answer.header("x-sluice-attempts"), Some("1"));
    assert!(kept.wire.answer(Duration::from_millis(1)).await.is_err(), "what the guest has of its own is left to it");
    drop(kept);
    idle(&sluice).await;
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_put_back_for_an_owner_who_waits_for_its_end() {
    let (upstream, sluice) = start(SHARED).await;
    let begun = || Script::sse_head().event(delta("m", "a")).hang();
    upstream.next(begun());
    upstream.next(begun());
    let stream = Like { body: r#","stream":true"#, ..GUEST };
    let mut streams = vec![send(&sluice, "one", stream).await, send(&sluice, "two", stream).await];
    for call in &mut streams {
        assert_eq!(call.wire.head(SOON).await.unwrap().status, 200);
        call.wire.event(SOON).await.unwrap();
    }
    let mut owner = join(&sluice, "owner", OWNER, 0).await;
    let mut greedy = join(&sluice, "greedy", GUEST, 1).await;
    assert!(upstream.abandoned(Instant::now(), NEVER).await.is_none());
    drop(streams.pop());
    owner.answered().await;
    drop(streams);
    greedy.answered().await;
    let after: Vec<String> = callers::order(&upstream).split_off(2);
    assert_eq!(after, ["owner", "greedy"], "the owner's wish goes before further borrowing");
    idle(&sluice).await;
}

#[tokio::test]
async fn a_call_that_gives_back_what_it_borrowed_is_not_refused_where_the_line_is_full() {
    let lines = format!("queue_max: 1, {SHARED}");
    let (upstream, sluice) = start(&lines).await;
    let narrow = Like { model: "narrow", ..GUEST };
    let own = send(&sluice, HOLD, GUEST).await;
    assert!(upstream.hanging(1, SOON).await);
    upstream.next(Script::new().hang());
    let mut borrowed = send(&sluice, "borrowed", narrow).await;
    assert!(upstream.hanging(2, SOON).await);
    let mut full = join(&sluice, "full", narrow, 0).await;
    send(&sluice, "owner", OWNER).await.answered().await;
    borrowed.answered().await;
    full.answered().await;
    drop(own);
    idle(&sluice).await;
}

#[tokio::test]
async fn tokens_in_flight_hold_calls_back_and_one_beyond_the_quota_is_refused_at_once() {
    let (upstream, sluice) = start("quotas: [ { tenant: owner, tokens_in_flight: 100 } ]").await;
    let of = |tokens: &'static str| Like { body: tokens, ..OWNER };
    let refused_at_once = async |what: &str| {
        let since = Instant::now();
        let (status, code, message, _) = send(&sluice, "huge", of(r#","max_tokens":300"#)).await.refused().await;
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{what}: {message}");
        assert!(message.contains("at most 100 tokens in flight"), "{what}: {message}");
        assert!(since.elapsed() < SOON / 2, "{what}");
    };
    refused_at_once("with nothing running").await;
    let holder = send(&sluice, HOLD, of(r#","max_tokens":60"#)).await;
    assert!(upstream.hanging(1, SOON).await);
    let mut second = join(&sluice, "second", of(r#","max_tokens":60"#), 0).await;
    refused_at_once("while others wait").await;
    drop(holder);
    second.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn all_is_given_back_however_calls_end() {
    let lines = format!(
        "cohorts: [ {{ name: c, concurrency: 1 }} ], quotas: [ {{ tenant: owner, cohort: c, concurrency: 2, tokens_in_flight: 400 }}, {} ]",
        "{ tenant: guest, cohort: c, concurrency: 1 }"
    );
    let (upstream, sluice) = start(&lines).await;
    let rounds = AtomicUsize::new(0);
    upstream.always(Plan::made(move |request| match rounds.fetch_add(1, Ordering::Relaxed) % 8 {
        _ if request.json()["user"] == HOLD => Script::new().hang(),
        6 => Script::json(500, "{}"),
        7 => Script::new().close(),
        _ => Script::new().pause(Duration::from_millis(3)).then(Script::json(200, completion("m", "quick"))),
    }));
    let tokens = r#","max_tokens":50"#;
    let mut calls = Vec::new();
    for round in 0..40 {
        let like = if round % 2 == 0 { OWNER } else { GUEST };
        let user = if round % 3 == 0 { HOLD } else { "quick" };
        let priority = ["low", "normal", "high"][round % 3];
        calls.push(send(&sluice, user, Like { priority, body: tokens, ..like }).await);
        if calls.len() > 6 {
            let leaver = calls.remove(round % 5);
            if round % 2 == 0 { leaver.wire.reset() } else { drop(leaver) }
        }
    }
    drop(calls);
    idle(&sluice).await;
    upstream.always(callers::holding());
    send(&sluice, "after", Like { body: tokens, ..OWNER }).await.answered().await;
    send(&sluice, "after", Like { body: tokens, ..GUEST }).await.answered().await;
}

#[tokio::test]
async fn a_reload_takes_nothing_back_and_lends_nothing_twice() {
    let (upstream, sluice) = start("quotas: [ { tenant: owner, concurrency: 2 } ]").await;
    let calls = (send(&sluice, HOLD, OWNER).await, send(&sluice, HOLD, OWNER).await);
    assert!(upstream.busy(2, SOON).await);
    callers::reload(&sluice, &config(&upstream, "quotas: [ { tenant: owner, concurrency: 1 } ]")).await;
    sample(&sluice, "sluice_quota", &[("tenant", "owner")], 1.0).await;
    sample(&sluice, "sluice_quota_used", &[("tenant", "owner")], 2.0).await;
    let mut third = join(&sluice, "third", OWNER, 0).await;
    drop(calls.0);
    sample(&sluice, "sluice_quota_used", &[("tenant", "owner")], 1.0).await;
    tokio::time::sleep(NEVER).await;
    waiting(&sluice, 1).await;
    callers::reload(&sluice, &config(&upstream, "quotas: [ { tenant: owner, concurrency: 2 } ]")).await;
    third.answered().await;
    drop(calls.1);
    idle(&sluice).await;
}

#[tokio::test]
async fn one_who_waits_for_its_own_quota_makes_no_other_call_look_late() {
    let upstream = Upstream::start(callers::holding());
    let tenants = ["owner", "other"].map(|id| tenant(id, "", &[id])).concat();
    let sluice = Sluice::start(format!(
        "auth: required
scheduling: {{ quotas: [ {{ tenant: owner, concurrency: 1 }} ] }}
tenants:
{tenants}models: [ {{ model_name: m, endpoint: \"{}\", max_concurrency: 2 }} ]
",
        upstream.url()
    ))
    .await;
    // Turns enough for a pace to be known.
    let holders = (send(&sluice, HOLD, OTHER).await, send(&sluice, HOLD, OTHER).await);
    assert!(upstream.hanging(2, SOON).await);
    let mut calls = Vec::new();
    for at in 0..12 {
        calls.push(join(&sluice, "paced", OTHER, at).await);
    }
    drop(holders);
    callers::all_answered(&mut calls).await;
    let holder = send(&sluice, HOLD, OWNER).await;
    assert!(upstream.hanging(1, SOON).await);
    let mut parked = join(&sluice, "parked", OWNER, 0).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    // A slot is free all the time.
    let hurried = Like { headers: &[("x-sluice-deadline-ms", "500")], ..OTHER };
    send(&sluice, "hurried", hurried).await.answered().await;
    drop(holder);
    parked.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_call_that_waits_too_long_for_its_tenants_quota_is_told_that_it_was_the_quota() {
    let (upstream, sluice) = start("quotas: [ { tenant: owner, concurrency: 1 } ]").await;
    let holder = send(&sluice, HOLD, OWNER).await;
    assert!(upstream.hanging(1, SOON).await);
    let hurried = Like { headers: &[("x-sluice-deadline-ms", "100")], ..OWNER };
    let (status, code, message, _) = send(&sluice, "hurried", hurried).await.refused().await;
    assert_eq!((status, code.as_str()), (408, "queue_timeout"));
    assert!(message.contains("quota") && !message.contains("slots"), "{message}");
    drop(holder);
    idle(&sluice).await;
}

#[tokio::test]
async fn a_quota_that_is_taken_off_and_put_back_still_counts_the_calls_that_run() {
    let quota = "quotas: [ { tenant: owner, concurrency: 1 } ]";
    let (upstream, sluice) = start(quota).await;
    let first = send(&sluice, HOLD, OWNER).await;
    assert!(upstream.hanging(1, SOON).await);
    callers::reload(&sluice, &config(&upstream, "")).await;
    callers::reload(&sluice, &config(&upstream, quota)).await;
    sample(&sluice, "sluice_quota_used", &[("tenant", "owner")], 1.0).await;
    let mut second = join(&sluice, "second", OWNER, 0).await;
    drop(first);
    second.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_call_thought_to_be_larger_than_its_quota_is_not_told_that_it_was_the_quota_when_it_was_not() {
    // A call without `max_tokens` is thought to take 640 tokens and more: here all of the quota, which is free.
    let (upstream, sluice) = start("quotas: [ { tenant: owner, tokens_in_flight: 300 } ]").await;
    let holder = send(&sluice, HOLD, Like { model: "narrow", ..OTHER }).await;
    assert!(upstream.busy(1, SOON).await);
    let late = Like { model: "narrow", headers: &[("x-sluice-deadline-ms", "200")], ..OWNER };
    let (status, code, message, _) = send(&sluice, "late", late).await.refused().await;
    assert_eq!((status, code.as_str()), (408, "queue_timeout"));
    assert!(message.starts_with("All slots of this model were busy"), "{message}");
    drop(holder);
    idle(&sluice).await;
}
