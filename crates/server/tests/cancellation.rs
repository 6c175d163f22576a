//! A client that goes away: the backend is told within 100 ms and the slot is free, wherever the call was.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::{Duration, Instant};

use testkit::{Script, Sluice, Upstream, Wire, completion, delta, eventually, post, request_bytes};

const CHAT: &str = "/v1/chat/completions";
const PLAIN: &str = r#"{"model":"m","messages":[]}"#;
const STREAMED: &str = r#"{"model":"m","messages":[],"stream":true}"#;
/// What is promised.
const PROMISED: Duration = Duration::from_millis(100);
/// Much less than any time-out that would free the slot in the end.
const AT_ONCE: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(5);
/// For what the backend has sent to be taken in by the gateway.
const SETTLE: Duration = Duration::from_millis(50);

/// How the client goes.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Close,
    Reset,
}

/// One slot, and one failure is enough to be down: a cancelled call must count as neither.
fn config(upstream: &Upstream) -> String {
    format!(
        "auth: none
models:
  - model_name: m
    endpoint: \"{}\"
    max_concurrency: 1
    health: {{ max_fails: 1, fail_timeout_ms: 60000, panic_percent: 0 }}
",
        upstream.url()
    )
}

/// Calls, waits until the backend is at the hang of `script`, leaves.
async fn check(name: &str, body: &str, script: Script, events: usize, leave: Leave) {
    let upstream = Upstream::start(Script::json(200, completion("m", "next")));
    upstream.next(script);
    let sluice = Sluice::start(config(&upstream)).await;

    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[], body)).await.unwrap();
    assert!(upstream.hanging(1, SOON).await, "{name}: the call did not reach the backend");
    if events > 0 {
        assert_eq!(wire.head(SOON).await.unwrap().status, 200, "{name}");
    }
    for _ in 0..events {
        wire.event(SOON).await.unwrap();
    }
    tokio::time::sleep(SETTLE).await;
    assert_eq!(upstream.in_flight(), 1, "{name}: given up before the client was gone");

    let since = Instant::now();
    match leave {
        Leave::Close => wire.close(),
        Leave::Reset => wire.reset(),
    }
    let took = upstream.abandoned(since, SOON).await;
    let took = took.unwrap_or_else(|| panic!("{name}, {leave:?}: the backend was never told"));
    assert!(took <= PROMISED, "{name}, {leave:?}: the backend was told after {took:?}");

    let since = Instant::now();
    let next = post(&sluice.url(CHAT), &[], PLAIN).await;
    assert_eq!((next.status(), next.text()), (200, completion("m", "next")), "{name}, {leave:?}");
    assert!(since.elapsed() <= AT_ONCE, "{name}, {leave:?}: the slot was free after {:?}", since.elapsed());

    let cancelled = || sluice.log_lines().iter().any(|line| line["status"] == 499);
    assert!(eventually(SOON, cancelled).await, "{name}, {leave:?}: no 499 in\n{}", sluice.stdout());
}

async fn check_both_ways(name: &str, body: &str, script: Script, events: usize) {
    for leave in [Leave::Close, Leave::Reset] {
        check(name, body, script.clone(), events, leave).await;
    }
}

const LENGTH: [(&str, &str); 2] = [("content-type", "application/json"), ("content-length", "1000")];

#[tokio::test]
async fn a_call_cancelled_before_the_head_frees_its_slot_and_tells_the_backend() {
    check_both_ways("plain, before the head", PLAIN, Script::new().hang(), 0).await;
}

#[tokio::test]
async fn a_call_cancelled_after_the_head_frees_its_slot_and_tells_the_backend() {
    check_both_ways("plain, after the head", PLAIN, Script::new().head(200, &LENGTH).hang(), 0).await;
}

#[tokio::test]
async fn a_call_cancelled_in_its_body_frees_its_slot_and_tells_the_backend() {
    let script = Script::new().head(200, &LENGTH).send("{\"id\":").hang();
    check_both_ways("plain, in the body", PLAIN, script, 0).await;
}

#[tokio::test]
async fn a_stream_cancelled_before_the_head_frees_its_slot_and_tells_the_backend() {
    check_both_ways("stream, before the head", STREAMED, Script::new().hang(), 0).await;
}

#[tokio::test]
async fn a_stream_cancelled_before_its_first_event_frees_its_slot_and_tells_the_backend() {
    check_both_ways("stream, after the head", STREAMED, Script::sse_head().hang(), 0).await;
}

#[tokio::test]
async fn a_stream_cancelled_in_the_middle_frees_its_slot_and_tells_the_backend() {
    let script = Script::sse_head().events([delta("m", "one"), delta("m", "two")]).hang();
    check_both_ways("stream, in the middle", STREAMED, script, 2).await;
}

#[tokio::test]
async fn a_stream_cancelled_while_events_flow_frees_its_slot_and_tells_the_backend() {
    let upstream = Upstream::start(Script::json(200, completion("m", "next")));
    let flowing = (0..1000)
        .fold(Script::sse_head(), |script, _| script.event(delta("m", "more")).pause(Duration::from_millis(10)));
    upstream.next(flowing);
    let sluice = Sluice::start(config(&upstream)).await;
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[], STREAMED)).await.unwrap();
    wire.head(SOON).await.unwrap();
    for _ in 0..5 {
        wire.event(SOON).await.unwrap();
    }
    let since = Instant::now();
    wire.close();
    let took = upstream.abandoned(since, SOON).await.expect("the backend is told");
    assert!(took <= PROMISED, "told after {took:?}");
    assert_eq!(post(&sluice.url(CHAT), &[], PLAIN).await.status(), 200);
}

#[tokio::test]
async fn a_call_cancelled_in_the_queue_never_reaches_the_backend() {
    let upstream = Upstream::start(Script::json(200, completion("m", "next")));
    upstream.next(Script::new().hang());
    let sluice = Sluice::start(config(&upstream)).await;
    let mut holder = Wire::connect(&sluice.url("")).await.unwrap();
    holder.send(request_bytes("POST", CHAT, &[], PLAIN)).await.unwrap();
    assert!(upstream.hanging(1, SOON).await);

    let mut waiter = Wire::connect(&sluice.url("")).await.unwrap();
    waiter.send(request_bytes("POST", CHAT, &[], PLAIN)).await.unwrap();
    tokio::time::sleep(SETTLE * 2).await;
    waiter.close();
    tokio::time::sleep(SETTLE * 2).await;
    holder.close();
    let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.requests().len(), 2, "the holder's and the last one");
}

#[tokio::test]
async fn a_client_that_leaves_others_waiting_hands_its_slot_to_the_next() {
    let upstream = Upstream::start(Script::json(200, completion("m", "next")));
    upstream.next(Script::new().hang());
    let sluice = Sluice::start(config(&upstream)).await;
    let mut holder = Wire::connect(&sluice.url("")).await.unwrap();
    holder.send(request_bytes("POST", CHAT, &[], PLAIN)).await.unwrap();
    assert!(upstream.hanging(1, SOON).await);
    let mut waiter = Wire::connect(&sluice.url("")).await.unwrap();
    waiter.send(request_bytes("POST", CHAT, &[], PLAIN)).await.unwrap();
    tokio::time::sleep(SETTLE * 2).await;
    assert_eq!(upstream.requests().len(), 1, "one slot, one call");
    let since = Instant::now();
    holder.close();
    assert_eq!(waiter.answer(SOON).await.unwrap().status(), 200);
    assert!(since.elapsed() <= AT_ONCE, "{:?}", since.elapsed());
}
