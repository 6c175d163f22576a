//! More calls than slots: they wait in line, for a bounded time, in a bounded number.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::{Duration, Instant};

use testkit::{Plan, Script, Sluice, Upstream, Wire, completion, request_bytes};

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(5);
/// For a call that was sent to be in the queue: nothing on the outside says so earlier.
const SETTLE: Duration = Duration::from_millis(150);
/// How long a held slot is held.
const HOLD: Duration = Duration::from_millis(600);

fn config(upstream: &Upstream, queue_max: u32) -> String {
    format!(
        "auth: none
scheduling: {{ queue_max: {queue_max} }}
models:
  - {{ model_name: m, endpoint: \"{}\", max_concurrency: 1, timeout_ms: 10000 }}
",
        upstream.url()
    )
}

/// Answers after a while, naming the call by its `user` field.
fn slow() -> Plan {
    Plan::made(|request| {
        let answer = completion("m", request.json()["user"].as_str().unwrap_or("nobody"));
        Script::new().pause(HOLD).then(Script::json(200, answer))
    })
}

async fn send(sluice: &Sluice, user: &str, headers: &[(&str, &str)]) -> Wire {
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    let body = format!(r#"{{"model":"m","messages":[],"user":"{user}"}}"#);
    wire.send(request_bytes("POST", CHAT, headers, body)).await.unwrap();
    wire
}

/// The first call is at the backend and holds the only slot.
async fn occupied(queue_max: u32) -> (Upstream, Sluice, Wire) {
    let upstream = Upstream::start(slow());
    let sluice = Sluice::start(config(&upstream, queue_max)).await;
    let holder = send(&sluice, "first", &[]).await;
    assert!(upstream.busy(1, SOON).await);
    (upstream, sluice, holder)
}

async fn code(wire: &mut Wire) -> (u16, String, Option<String>) {
    let answer = wire.answer(SOON).await.unwrap();
    let code = answer.json()["error"]["code"].as_str().unwrap_or("none").to_owned();
    (answer.status(), code, answer.header("retry-after").map(str::to_owned))
}

#[tokio::test]
async fn calls_beyond_the_slots_wait_and_are_answered_in_order() {
    let (upstream, sluice, mut first) = occupied(16).await;
    let mut second = send(&sluice, "second", &[]).await;
    tokio::time::sleep(SETTLE).await;
    let mut third = send(&sluice, "third", &[]).await;
    tokio::time::sleep(SETTLE).await;
    assert_eq!(upstream.requests().len(), 1, "one slot, one call at the backend");
    for (wire, name) in [(&mut first, "first"), (&mut second, "second"), (&mut third, "third")] {
        let answer = wire.answer(SOON).await.unwrap();
        assert_eq!((answer.status(), answer.text()), (200, completion("m", name)));
    }
    let users: Vec<String> = upstream.requests().iter().map(|request| request.json()["user"].to_string()).collect();
    assert_eq!(users, ["\"first\"", "\"second\"", "\"third\""]);
}

#[tokio::test]
async fn the_time_spent_waiting_is_told() {
    let (_upstream, sluice, mut first) = occupied(16).await;
    let mut second = send(&sluice, "second", &[]).await;
    let waited = |answer: &testkit::Answer| answer.header("x-sluice-queue-ms").unwrap().parse::<f64>().unwrap();
    assert!(waited(&first.answer(SOON).await.unwrap()) < 50.0);
    let waited = waited(&second.answer(SOON).await.unwrap());
    assert!((200.0..HOLD.as_secs_f64() * 1000.0 + 100.0).contains(&waited), "{waited} ms");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let (upstream, sluice, mut first) = occupied(1).await;
    let mut second = send(&sluice, "second", &[]).await;
    tokio::time::sleep(SETTLE).await;
    let since = Instant::now();
    let mut third = send(&sluice, "third", &[]).await;
    let (status, code, retry_after) = code(&mut third).await;
    assert!(since.elapsed() < SETTLE, "{:?}", since.elapsed());
    assert_eq!((status, code.as_str()), (503, "no_capacity"));
    let seconds: u32 = retry_after.expect("retry-after").parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.answer(SOON).await.unwrap().status(), 200, "who was in line is answered");
    }
    assert_eq!(upstream.requests().len(), 2, "the refused call never reached the backend");
}

#[tokio::test]
async fn a_call_that_waits_past_its_deadline_gets_a_408_and_leaves_the_line() {
    let (upstream, sluice, mut first) = occupied(1).await;
    let since = Instant::now();
    let mut hurried = send(&sluice, "hurried", &[("x-sluice-deadline-ms", "200")]).await;
    let (status, code, _) = code(&mut hurried).await;
    let took = since.elapsed();
    assert_eq!((status, code.as_str()), (408, "queue_timeout"));
    assert!(took >= Duration::from_millis(195) && took < Duration::from_millis(400), "{took:?}");
    // Its place in the queue of one is free again.
    let mut next = send(&sluice, "next", &[]).await;
    assert_eq!(first.answer(SOON).await.unwrap().status(), 200);
    assert_eq!(next.answer(SOON).await.unwrap().text(), completion("m", "next"));
    assert_eq!(upstream.requests().len(), 2, "the late call never reached the backend");
}

#[tokio::test]
async fn a_deadline_that_is_long_enough_changes_nothing() {
    let (_upstream, sluice, mut first) = occupied(1).await;
    let mut second = send(&sluice, "second", &[("x-sluice-deadline-ms", "4000")]).await;
    assert_eq!(first.answer(SOON).await.unwrap().status(), 200);
    assert_eq!(second.answer(SOON).await.unwrap().status(), 200);
}
