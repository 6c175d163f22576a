//! Calls that give their slot up for more urgent ones, and whose clients notice nothing but time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::time::{Duration, Instant};

use callers::{Like, NEVER, SOON, join, order, send, tenant, waiting};
use testkit::{Script, Sluice, Upstream, completion, delta};

const LOW: Like<'_> = Like { priority: "low", key: "", model: "", body: "", headers: &[] };
const HIGH: Like<'_> = Like { priority: "high", ..LOW };
const LOW_STREAM: Like<'_> = Like { body: r#","stream":true"#, ..LOW };

/// One slot, and the first call to the backend does as `first` says.
async fn start(scheduling: &str, first: Script) -> (Upstream, Sluice) {
    let upstream = Upstream::start(callers::holding());
    upstream.next(first);
    let sluice = Sluice::start(format!(
        "auth: none
scheduling: {{ {scheduling} }}
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\", max_concurrency: 1 }} ]
",
        tenant("acme", "", &["acme"]),
        upstream.url()
    ))
    .await;
    (upstream, sluice)
}

#[tokio::test]
async fn a_high_call_takes_the_slot_of_a_low_one_whose_client_is_answered_all_the_same() {
    let (upstream, sluice) = start("", Script::new().hang()).await;
    let since = Instant::now();
    let mut low = send(&sluice, "low", LOW).await;
    assert!(upstream.hanging(1, SOON).await);
    send(&sluice, "high", HIGH).await.answered().await;
    assert!(upstream.abandoned(since, SOON).await.is_some(), "the low call is cancelled at the backend");
    let answer = low.answered().await;
    assert_eq!(answer.header("x-sluice-attempts"), Some("1"), "being put back is no failed attempt");
    assert_eq!(order(&upstream), ["low", "high", "low"]);
    callers::sample(&sluice, "sluice_preemptions_total", &[("class", "low")], 1.0).await;
    callers::idle(&sluice).await;
}

#[tokio::test]
async fn a_low_stream_of_which_nothing_came_yet_is_put_back_and_then_sent_whole() {
    let (upstream, sluice) = start("", Script::sse_head().hang()).await;
    upstream.next(Script::json(200, completion("m", "high")));
    upstream.next(Script::sse([delta("m", "a"), delta("m", "b")]));
    let mut low = send(&sluice, "low", LOW_STREAM).await;
    assert!(upstream.hanging(1, SOON).await);
    send(&sluice, "high", HIGH).await.answered().await;
    let answer = low.answer().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let events: Vec<String> = answer.events().iter().map(|event| event.data.clone()).collect();
    assert_eq!(events, [delta("m", "a"), delta("m", "b"), "[DONE]".into()]);
    assert_eq!(order(&upstream), ["low", "high", "low"]);
}

#[tokio::test]
async fn a_low_stream_that_has_begun_is_never_put_back() {
    let (upstream, sluice) = start("", Script::sse_head().event(delta("m", "a")).hang()).await;
    let since = Instant::now();
    let mut low = send(&sluice, "low", LOW_STREAM).await;
    assert_eq!(low.wire.head(SOON).await.unwrap().status, 200);
    low.wire.event(SOON).await.unwrap();
    let mut high = join(&sluice, "high", HIGH, 0).await;
    assert!(upstream.abandoned(since, NEVER).await.is_none(), "it goes on");
    waiting(&sluice, 1).await;
    drop(low);
    high.answered().await;
    callers::idle(&sluice).await;
}

#[tokio::test]
async fn neither_normal_nor_high_calls_are_put_back_for_a_high_one() {
    for priority in ["normal", "high"] {
        let (upstream, sluice) = start("", Script::new().hang()).await;
        let holder = send(&sluice, "first", Like { priority, ..LOW }).await;
        assert!(upstream.hanging(1, SOON).await);
        let mut high = join(&sluice, "high", HIGH, 0).await;
        assert!(upstream.abandoned(Instant::now(), NEVER).await.is_none(), "{priority}");
        drop(holder);
        high.answered().await;
    }
}

#[tokio::test]
async fn without_preemption_a_high_call_waits_for_the_slot() {
    let (upstream, sluice) = start("preemption: false", Script::new().hang()).await;
    let low = send(&sluice, "low", LOW).await;
    assert!(upstream.hanging(1, SOON).await);
    let mut high = join(&sluice, "high", HIGH, 0).await;
    assert!(upstream.abandoned(Instant::now(), NEVER).await.is_none());
    drop(low);
    high.answered().await;
}

#[tokio::test]
async fn a_call_is_put_back_no_more_often_than_allowed() {
    let (upstream, sluice) = start("preemptions_max: 1", Script::new().hang()).await;
    let mut low = send(&sluice, "low", LOW).await;
    assert!(upstream.hanging(1, SOON).await);
    upstream.next(Script::json(200, completion("m", "high")));
    upstream.next(Script::new().pause(Duration::from_millis(400)).then(Script::json(200, completion("m", "low"))));
    send(&sluice, "high", HIGH).await.answered().await;
    assert!(upstream.arrived(3, SOON).await, "it is back at the backend");
    let mut second = send(&sluice, "second", HIGH).await;
    low.answered().await;
    second.answered().await;
    assert_eq!(order(&upstream), ["low", "high", "low", "second"]);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_call_is_put_back_leaves_nothing_behind() {
    let (upstream, sluice) = start("", Script::new().hang()).await;
    upstream.next(Script::new().hang());
    let low = send(&sluice, "low", LOW).await;
    assert!(upstream.hanging(1, SOON).await);
    let high = send(&sluice, "high", HIGH).await;
    assert!(upstream.arrived(2, SOON).await);
    waiting(&sluice, 1).await;
    drop((low, high));
    callers::idle(&sluice).await;
    send(&sluice, "next", LOW).await.answered().await;
}

#[tokio::test]
async fn a_call_that_is_put_back_keeps_its_place_though_its_tenant_may_have_no_more_waiting() {
    let (upstream, sluice) = start("tenant_queue_max: 1", Script::new().hang()).await;
    let low = Like { key: "acme", ..LOW };
    let mut first = send(&sluice, "first", low).await;
    assert!(upstream.hanging(1, SOON).await);
    let mut second = join(&sluice, "second", low, 0).await;
    send(&sluice, "high", HIGH).await.answered().await;
    first.answered().await;
    second.answered().await;
    assert_eq!(order(&upstream), ["first", "high", "first", "second"], "back to where it stood");
}
