//! SIGTERM: what is inside may finish, for a while; then it is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::{Duration, Instant};

use testkit::{Script, Sluice, Upstream, Wire, completion, delta, get, request_bytes};

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(5);

async fn start(script: Script, shutdown: &str) -> (Upstream, Sluice) {
    let upstream = Upstream::start(script);
    let config = format!(
        "auth: none\nshutdown: {{ {shutdown} }}\nmodels:\n  - {{ model_name: m, endpoint: \"{}\" }}\n",
        upstream.url()
    );
    let sluice = Sluice::start(config).await;
    (upstream, sluice)
}

async fn call(sluice: &Sluice, stream: bool) -> Wire {
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[], format!(r#"{{"model":"m","messages":[],"stream":{stream}}}"#)))
        .await
        .unwrap();
    wire
}

#[tokio::test]
async fn a_stream_that_outlasts_the_grace_time_ends_with_an_error_event() {
    let (upstream, sluice) = start(Script::sse_head().event(delta("m", "a")).hang(), "grace_ms: 300").await;
    let mut wire = call(&sluice, true).await;
    assert!(upstream.hanging(1, SOON).await);
    sluice.signal("TERM");
    let answer = wire.answer(SOON).await.unwrap();
    let events = answer.events();
    let last = events.last().unwrap().json();
    assert_eq!(last["error"]["code"], "no_capacity", "{}", answer.text());
    assert!(answer.is_complete(), "the error event is followed by a proper end");
    assert_eq!(sluice.ended(SOON, Instant::now()).await.code(), Some(0));
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_time_gets_a_503() {
    let (upstream, sluice) = start(Script::new().hang(), "grace_ms: 300").await;
    let mut wire = call(&sluice, false).await;
    assert!(upstream.hanging(1, SOON).await);
    let asked = Instant::now();
    sluice.signal("TERM");
    let answer = wire.answer(SOON).await.unwrap();
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert!(upstream.abandoned(asked, SOON).await.is_some(), "the backend is told");
    assert_eq!(sluice.ended(SOON, Instant::now()).await.code(), Some(0));
}

#[tokio::test]
async fn a_call_inside_is_finished_and_its_line_is_in_the_log() {
    let (upstream, sluice) = start(
        Script::new().pause(Duration::from_millis(500)).then(Script::json(200, completion("m", "hi"))),
        "grace_ms: 5000",
    )
    .await;
    let mut wire = call(&sluice, false).await;
    assert!(upstream.arrived(1, SOON).await);
    sluice.signal("TERM");
    assert_eq!(wire.answer(SOON).await.unwrap().status(), 200);
    let exit = sluice.ended(SOON, Instant::now()).await;
    assert_eq!(exit.code(), Some(0));
    assert!(exit.stdout.contains("\"outcome\":\"answered\""), "{}", exit.stdout);
}

#[tokio::test]
async fn while_the_delay_lasts_calls_are_answered_and_ready_says_no() {
    let (_upstream, sluice) = start(Script::json(200, completion("m", "hi")), "delay_ms: 1500").await;
    sluice.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&sluice.url("/ready")).await.status(), 503);
    assert_eq!(get(&sluice.admin_url("/ready")).await.status(), 503);
    assert_eq!(call(&sluice, false).await.answer(SOON).await.unwrap().status(), 200);
}

#[tokio::test]
async fn asked_twice_nothing_is_waited_for() {
    let (upstream, sluice) = start(Script::sse_head().event(delta("m", "a")).hang(), "grace_ms: 60000").await;
    let _wire = call(&sluice, true).await;
    assert!(upstream.hanging(1, SOON).await);
    sluice.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    sluice.signal("TERM");
    assert_eq!(sluice.ended(SOON, Instant::now()).await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let (_upstream, sluice) = start(Script::json(200, completion("m", "hi")), "grace_ms: 20000").await;
    let silent = testkit::Wire::connect(&sluice.url("")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    sluice.signal("TERM");
    assert_eq!(sluice.ended(SOON, Instant::now()).await.code(), Some(0));
    drop(silent);
}
