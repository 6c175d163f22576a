//! A line that has grown long: who may still join it, who leaves it, and what those who wait are told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::time::{Duration, Instant};

use callers::{HOLD, Like, SOON, all_answered, idle, join, order, sample, send, tenant, waiting};
use testkit::{Plan, Script, Sluice, Upstream, completion};

const FLOOD: Like<'_> = Like { key: "flood", priority: "", model: "", body: "", headers: &[] };
const QUIET: Like<'_> = Like { key: "quiet", ..FLOOD };

/// One slot, held by a call of `flood`.
async fn held(scheduling: &str) -> (Upstream, Sluice, callers::Sent) {
    let upstream = Upstream::start(callers::holding());
    let sluice = Sluice::start(format!(
        "auth: required
scheduling: {{ {scheduling} }}
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\", max_concurrency: 1 }} ]
",
        ["flood", "quiet"].map(|id| tenant(id, "", &[id])).concat(),
        upstream.url()
    ))
    .await;
    let holder = send(&sluice, HOLD, FLOOD).await;
    assert!(upstream.hanging(1, SOON).await);
    (upstream, sluice, holder)
}

fn seconds(answer: &testkit::Answer) -> u64 {
    answer.header("retry-after").expect("retry-after").parse().expect("whole seconds")
}

#[tokio::test]
async fn a_full_line_loses_the_newest_of_whoever_flooded_it() {
    let (upstream, sluice, holder) = held("queue_max: 3").await;
    let mut flood = Vec::new();
    for at in 0..3 {
        flood.push(join(&sluice, &at.to_string(), FLOOD, at).await);
    }
    let mut quiet = send(&sluice, "quiet", QUIET).await;
    let (status, code, message, answer) = flood.pop().unwrap().refused().await;
    assert_eq!((status, code.as_str()), (503, "no_capacity"), "{message}");
    assert!(message.contains("took this one's place"), "{message}");
    assert!(seconds(&answer) >= 1);
    let (status, _, message, _) = send(&sluice, "more", FLOOD).await.refused().await;
    assert_eq!(status, 503, "{message}");
    assert!(message.contains("its queue is full"), "{message}");
    drop(holder);
    quiet.answered().await;
    all_answered(&mut flood).await;
    assert_eq!(order(&upstream).len(), 3);
    for (name, count) in [("sluice_queue_pushed_out_total", 1.0), ("sluice_queue_shed_total", 1.0)] {
        sample(&sluice, name, &[("class", "normal")], count).await;
    }
    idle(&sluice).await;
}

#[tokio::test]
async fn in_a_full_line_of_low_calls_a_more_urgent_one_finds_a_place_and_a_low_one_does_not() {
    let (_upstream, sluice, holder) = held("queue_max: 2").await;
    let low = Like { priority: "low", ..FLOOD };
    let mut first = join(&sluice, "first", low, 0).await;
    let mut second = join(&sluice, "second", low, 1).await;
    let mut high = send(&sluice, "high", Like { priority: "high", ..FLOOD }).await;
    assert_eq!(second.refused().await.0, 503);
    assert_eq!(send(&sluice, "third", low).await.refused().await.0, 503);
    drop(holder);
    high.answered().await;
    first.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_tenant_with_too_much_waiting_gets_a_429_and_others_may_still_wait() {
    let (_upstream, sluice, holder) = held("tenant_queue_max: 2").await;
    let mut calls = vec![join(&sluice, "a", FLOOD, 0).await, join(&sluice, "b", FLOOD, 1).await];
    let (status, code, message, answer) = send(&sluice, "c", FLOOD).await.refused().await;
    assert_eq!((status, code.as_str()), (429, "rate_limit_exceeded"), "{message}");
    assert!((1..=60).contains(&seconds(&answer)), "{}", seconds(&answer));
    calls.push(join(&sluice, "quiet", QUIET, 2).await);
    drop(holder);
    all_answered(&mut calls).await;
    idle(&sluice).await;
}

#[tokio::test]
async fn bodies_that_wait_hold_no_more_than_they_may_together_and_per_tenant() {
    let body = format!(r#","metadata":{{"padding":"{}"}}"#, "x".repeat(3000));
    let large = |key| Like { key, body: &body, ..FLOOD };
    let (_upstream, sluice, holder) = held("queue_bytes_max: 8KiB, tenant_queue_bytes_max: 7KiB").await;
    let mut calls = vec![join(&sluice, "a", large("flood"), 0).await, join(&sluice, "b", large("flood"), 1).await];
    assert_eq!(send(&sluice, "c", large("flood")).await.refused().await.0, 429, "7 KiB of its own");
    let held = sluice.metrics().await.value("sluice_queue_waiting_bytes", &[]);
    assert!((6_000.0..8_000.0).contains(&held), "{held}");
    calls.push(send(&sluice, "quiet", large("quiet")).await);
    assert_eq!(calls.remove(1).refused().await.0, 503, "pushed out: the flood holds most of the 8 KiB");
    drop(holder);
    all_answered(&mut calls).await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_client_that_leaves_the_line_is_gone_at_once() {
    let (upstream, sluice, holder) = held("queue_max: 10").await;
    let mut calls = Vec::new();
    for at in 0..10 {
        calls.push(join(&sluice, "w", FLOOD, at).await);
    }
    let last = calls.pop().unwrap();
    calls.pop().unwrap().wire.reset();
    drop(calls);
    waiting(&sluice, 1).await;
    assert_eq!(upstream.requests().len(), 1, "none of them came to the backend");
    drop((last, holder));
    idle(&sluice).await;
}

/// Once the pace is known: where a newcomer stands and how long that will take is told, who comes too late for its
/// deadline is refused at once, and who finds the line full is told to stay away for as long as it takes.
#[tokio::test]
async fn the_longer_the_line_the_longer_its_waits_are_thought_to_be() {
    const PACE: Duration = Duration::from_millis(80);
    let (upstream, sluice, holder) = held("queue_max: 40, preemption: false").await;
    let paced = || {
        Plan::made(|request| {
            let user = request.json()["user"].as_str().unwrap_or_default().to_owned();
            Script::new().pause(PACE).then(Script::json(200, completion("m", &user)))
        })
    };
    let mut calls = Vec::new();
    for at in 0..40 {
        calls.push(join(&sluice, &at.to_string(), FLOOD, at).await);
    }
    let before = seconds(&send(&sluice, "x", FLOOD).await.refused().await.3);
    assert_eq!(before, 1, "nothing is known yet");
    upstream.always(paced());
    drop(holder);
    // A dozen turns, and their places are taken again.
    for call in calls.drain(..12) {
        let mut call = call;
        let answer = call.answered().await;
        let position: usize = answer.header("x-sluice-queue-position").unwrap().parse().unwrap();
        assert_eq!(position, call.user.parse::<usize>().unwrap() + 1);
        assert_eq!(answer.header("x-sluice-queue-estimate-ms"), None, "nothing was known when it joined");
    }
    upstream.always(callers::holding());
    let stopper = Like { priority: "high", ..FLOOD };
    let stopper = send(&sluice, HOLD, stopper).await;
    assert!(upstream.hanging(1, SOON).await);
    let line = sluice.metrics().await.value("sluice_queue_waiting", &[]) as usize;
    let since = Instant::now();
    let hurried = Like { headers: &[("x-sluice-deadline-ms", "500")], ..FLOOD };
    let (status, code, message, answer) = send(&sluice, "hurried", hurried).await.refused().await;
    assert_eq!((status, code.as_str()), (503, "no_capacity"), "{message}");
    assert!(message.contains("too long"), "{message}");
    assert!(since.elapsed() < Duration::from_millis(500), "before its deadline: {:?}", since.elapsed());
    assert!(seconds(&answer) >= 2);
    let mut patient = join(&sluice, "patient", FLOOD, line).await;
    let mut urgent = join(&sluice, "urgent", Like { priority: "high", ..FLOOD }, line + 1).await;
    drop(stopper);
    let told = |answer: &testkit::Answer, name: &str| answer.header(name).unwrap().parse::<usize>().unwrap();
    let answer = urgent.answered().await;
    assert_eq!(told(&answer, "x-sluice-queue-position"), 1);
    let short = told(&answer, "x-sluice-queue-estimate-ms");
    let answer = patient.answered().await;
    assert_eq!(told(&answer, "x-sluice-queue-position"), line + 1);
    let long = told(&answer, "x-sluice-queue-estimate-ms");
    assert!(long > 1_000 && long > 5 * short, "{long} ms behind {line}, {short} ms behind nobody");
    all_answered(&mut calls).await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_call_that_may_only_go_elsewhere_after_a_failure_holds_nobody_up_who_may_go_anywhere() {
    let (one, two) = (Upstream::start(callers::holding()), Upstream::start(callers::holding()));
    let sluice = Sluice::start(format!(
        "auth: none
models:
  - model_name: m
    balance: round_robin
    max_concurrency: 1
    health: {{ max_fails: 0, breaker: {{ failure_percent: 0 }} }}
    versions: [ {{ version: v, instances: [ {{ endpoint: \"{}\" }}, {{ endpoint: \"{}\" }} ] }} ]
",
        one.url(),
        two.url()
    ))
    .await;
    let holder = send(&sluice, HOLD, Like::default()).await;
    assert!(testkit::eventually(SOON, || one.in_flight() + two.in_flight() == 1).await);
    let free = if one.in_flight() == 0 { &one } else { &two };
    free.next(Script::json(500, "{}"));
    let mut failed = join(&sluice, "failed", Like::default(), 0).await;
    // It waits for the instance that is busy; the other one is free for everybody else.
    let mut other = send(&sluice, "other", Like::default()).await;
    other.answered().await;
    drop(holder);
    failed.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn calls_that_came_before_a_reload_and_wait_for_the_old_backend_hold_nobody_up_who_came_after() {
    let (old, new) = (Upstream::start(callers::holding()), Upstream::start(callers::holding()));
    let with = |upstream: &Upstream| {
        format!("auth: none\nmodels: [ {{ model_name: m, endpoint: \"{}\", max_concurrency: 1 }} ]\n", upstream.url())
    };
    let sluice = Sluice::start(with(&old)).await;
    let holder = send(&sluice, HOLD, Like::default()).await;
    assert!(old.hanging(1, SOON).await);
    let mut before = vec![join(&sluice, "a", Like::default(), 0).await, join(&sluice, "b", Like::default(), 1).await];
    callers::reload(&sluice, &with(&new)).await;
    send(&sluice, "after", Like::default()).await.answered().await;
    waiting(&sluice, 2).await;
    drop(holder);
    all_answered(&mut before).await;
    assert_eq!((order(&old), order(&new)), (vec!["a".into(), "b".into()], vec!["after".into()]));
    idle(&sluice).await;
}
