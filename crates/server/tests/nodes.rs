//! Machines that instances share: what they have is never given out twice, and always comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::time::Duration;

use callers::{HOLD, Like, NEVER, SOON, all_answered, idle, join, order, sample, send, waiting};
use testkit::{Outcome, Plan, Script, Sluice, Upstream, completion};

const A: Like<'_> = Like { model: "a", key: "", priority: "", body: "", headers: &[] };
const B: Like<'_> = Like { model: "b", ..A };

/// Two models on one node; `a` and `b` are further fields of the models, `needs` of their instances.
fn config(node: &str, upstream: &Upstream, models: &str, needs: &str) -> String {
    let model = |name: &str| {
        format!(
            "  - {{ model_name: {name}, {models}versions: [ {{ version: v, instances: [ {{ endpoint: \"{}/{name}\", node: n{needs} }} ] }} ] }}\n",
            upstream.url()
        )
    };
    format!("auth: none\nnodes: [ {{ name: n, {node} }} ]\nmodels:\n{}{}", model("a"), model("b"))
}

#[tokio::test]
async fn two_instances_that_need_the_same_gpu_never_run_at_once() {
    let quick = Plan::made(|request| {
        let user = request.json()["user"].as_str().unwrap().to_owned();
        Script::new().pause(Duration::from_millis(10)).then(Script::json(200, completion("m", &user)))
    });
    let upstream = Upstream::start(quick);
    let sluice = Sluice::start(config("gpu: 1", &upstream, "max_concurrency: 4, ", ", needs: { gpu: 1 }")).await;
    let mut calls = Vec::new();
    for at in 0..24 {
        calls.push(send(&sluice, &at.to_string(), if at % 2 == 0 { A } else { B }).await);
    }
    all_answered(&mut calls).await;
    let span = |model: &str| -> Vec<_> {
        let of = upstream.requests().into_iter().filter(|request| request.target.starts_with(&format!("/{model}/")));
        of.map(|request| match request.outcome {
            Outcome::Finished(at) => (request.arrived, at),
            other => panic!("{other:?}"),
        })
        .collect()
    };
    assert!(upstream.busy(0, SOON).await);
    let (a, b) = (span("a"), span("b"));
    assert_eq!((a.len(), b.len()), (12, 12));
    for (from, to) in &a {
        assert!(b.iter().all(|(start, end)| end < from || to < start), "both at once");
    }
    idle(&sluice).await;
}

#[tokio::test]
async fn an_instance_that_never_rests_does_not_keep_its_neighbour_from_the_node_for_ever() {
    let quick = Plan::made(|request| {
        let user = request.json()["user"].as_str().unwrap().to_owned();
        Script::new().pause(Duration::from_millis(20)).then(Script::json(200, completion("m", &user)))
    });
    let upstream = Upstream::start(quick);
    let text = config("gpu: 1", &upstream, "max_concurrency: 4, ", ", needs: { gpu: 1 }");
    let sluice = Sluice::start(format!("scheduling: {{ aging_ms: 100 }}\n{text}")).await;
    let mut calls: Vec<_> = Vec::new();
    for at in 0..4 {
        calls.push(send(&sluice, &at.to_string(), A).await);
    }
    assert!(upstream.arrived(1, SOON).await);
    let mut other = send(&sluice, "other", B).await;
    // There is always one more for `a` before the last has ended.
    let mut at = 4;
    while !order(&upstream).contains(&"other".to_owned()) {
        calls.remove(0).answered().await;
        calls.push(send(&sluice, &at.to_string(), A).await);
        at += 1;
        assert!(at < 400, "`a` was served 400 times and `b` never");
    }
    other.answered().await;
    all_answered(&mut calls).await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_node_runs_no_more_calls_than_it_has_for_them_over_all_its_instances() {
    let upstream = Upstream::start(callers::holding());
    let sluice = Sluice::start(config("cpu: 2.5", &upstream, "call_needs: { cpu: 1 }, ", "")).await;
    let holders = (send(&sluice, HOLD, A).await, send(&sluice, HOLD, B).await);
    assert!(upstream.busy(2, SOON).await);
    let mut third = join(&sluice, "third", A, 0).await;
    sample(&sluice, "sluice_node_resources_used", &[("node", "n"), ("resource", "cpu")], 2.0).await;
    tokio::time::sleep(NEVER).await;
    waiting(&sluice, 1).await;
    // What a call of another model gives back is handed on.
    drop(holders.1);
    third.answered().await;
    drop(holders.0);
    idle(&sluice).await;
}

#[tokio::test]
async fn a_node_that_shrinks_takes_nothing_back_and_gives_out_nothing_before_enough_has_returned() {
    let upstream = Upstream::start(callers::holding());
    let with = |gpu: u32| config(&format!("gpu: {gpu}"), &upstream, "call_needs: { gpu: 1 }, ", "");
    let sluice = Sluice::start(with(2)).await;
    let holders = (send(&sluice, HOLD, A).await, send(&sluice, HOLD, A).await);
    assert!(upstream.busy(2, SOON).await);
    callers::reload(&sluice, &with(1)).await;
    sample(&sluice, "sluice_node_resources", &[("node", "n")], 1.0).await;
    sample(&sluice, "sluice_node_resources_used", &[("node", "n")], 2.0).await;
    let mut third = join(&sluice, "third", B, 0).await;
    drop(holders.0);
    sample(&sluice, "sluice_node_resources_used", &[("node", "n")], 1.0).await;
    tokio::time::sleep(NEVER).await;
    waiting(&sluice, 1).await;
    drop(holders.1);
    third.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn what_a_call_held_comes_back_when_its_client_leaves_and_when_its_backend_is_killed() {
    let upstream = Upstream::start(callers::holding());
    let sluice =
        Sluice::start(config("gpu: 1, cpu: 4", &upstream, "call_needs: { cpu: 1 }, ", ", needs: { gpu: 1 }")).await;
    for killed in [false, true] {
        let mut holder = send(&sluice, HOLD, A).await;
        assert!(upstream.busy(1, SOON).await);
        sample(&sluice, "sluice_node_resources_used", &[("resource", "gpu")], 1.0).await;
        if killed {
            upstream.die();
            let (status, ..) = holder.refused().await;
            assert!((502..=503).contains(&status), "{status}");
            upstream.accept();
        } else {
            drop(holder);
        }
        idle(&sluice).await;
    }
}

/// One instance with a cache of a thousand tokens, and calls that take a part of it.
async fn cache() -> (Upstream, Sluice) {
    let upstream = Upstream::start(callers::holding());
    let sluice = Sluice::start(format!(
        "auth: none\nmodels: [ {{ model_name: m, endpoint: \"{}\", kv_tokens: 1000 }} ]\n",
        upstream.url()
    ))
    .await;
    (upstream, sluice)
}

/// A prompt of so many words, six bytes each.
fn long(words: usize) -> String {
    format!(r#","tools":[{{"type":"function","function":{{"name":"f","description":"{}"}}}}]"#, "lorem ".repeat(words))
}

/// 24 KB are no fewer than 1,500 tokens, whatever the language.
const TOO_LONG: usize = 4_000;
/// 6 KB are thought to be 1,500 tokens, and may be 375.
const LONG: usize = 1_000;

#[tokio::test]
async fn a_call_that_is_only_thought_to_be_too_large_takes_the_whole_cache() {
    let (upstream, sluice) = cache().await;
    let long = long(LONG);
    let holder = send(&sluice, HOLD, Like { body: r#","max_tokens":10"#, ..Like::default() }).await;
    assert!(upstream.busy(1, SOON).await);
    let mut large = join(&sluice, "large", Like { body: &long, ..Like::default() }, 0).await;
    drop(holder);
    large.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_call_too_large_for_every_cache_is_refused_at_once_also_while_others_wait() {
    let (upstream, sluice) = cache().await;
    let long = long(TOO_LONG);
    let huge = Like { body: &long, ..Like::default() };
    let refused = async |what: &str| {
        let (status, code, message, _) = send(&sluice, "huge", huge).await.refused().await;
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{what}: {message}");
        assert!(message.contains("room for 1000 tokens"), "{what}: {message}");
    };
    refused("with an empty cache").await;
    let holder = send(&sluice, HOLD, Like { body: r#","max_tokens":600"#, ..Like::default() }).await;
    assert!(upstream.busy(1, SOON).await);
    refused("with half a cache").await;
    let mut second = join(&sluice, "second", Like { body: r#","max_tokens":600"#, ..Like::default() }, 0).await;
    refused("while others wait").await;
    drop(holder);
    second.answered().await;
    idle(&sluice).await;
}

#[tokio::test]
async fn a_large_call_waits_for_room_and_small_ones_do_not_take_it_for_ever() {
    let (upstream, sluice) = cache().await;
    let of = |body: &'static str| Like { body, ..Like::default() };
    let first = send(&sluice, HOLD, of(r#","max_tokens":300"#)).await;
    let second = send(&sluice, HOLD, of(r#","max_tokens":300"#)).await;
    assert!(upstream.busy(2, SOON).await);
    let mut large = join(&sluice, "large", of(r#","max_tokens":600"#), 0).await;
    let mut small = Vec::new();
    for at in 0..5 {
        small.push(join(&sluice, "small", of(r#","max_tokens":150"#), at + 1).await);
    }
    drop(first);
    large.answered().await;
    all_answered(&mut small).await;
    drop(second);
    assert_eq!(order(&upstream)[0], "large");
    idle(&sluice).await;
}

#[tokio::test]
async fn a_call_too_large_for_one_version_goes_to_another_that_has_room() {
    let upstream = Upstream::start(callers::holding());
    let version = |name: &str, tokens: u32| {
        format!(
            "{{ version: {name}, instances: [ {{ endpoint: \"{}/{name}\", kv_tokens: {tokens} }} ] }}",
            upstream.url()
        )
    };
    let sluice = Sluice::start(format!(
        "auth: none\nmodels: [ {{ model_name: m, versions: [ {}, {} ] }} ]\n",
        version("small", 1_000),
        version("large", 100_000)
    ))
    .await;
    let long = long(TOO_LONG);
    for _ in 0..12 {
        send(&sluice, "long", Like { body: &long, ..Like::default() }).await.answered().await;
    }
    assert!(upstream.requests().iter().all(|request| request.target.starts_with("/large/")));
}
