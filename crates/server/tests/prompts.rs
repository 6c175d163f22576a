//! What prompts do beside being passed on: those that begin alike go to one instance, and large ones stall nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use callers::{CHAT, SOON, key, tenant};
use serde_json::json;
use testkit::{Answer, Plan, Script, Sluice, Upstream, Wire, completion, request_bytes};

/// Four instances behind `prefix_aware`, and two tenants.
fn config(upstreams: &[Upstream]) -> String {
    let instances: Vec<String> =
        upstreams.iter().map(|upstream| format!("{{ endpoint: \"{}\" }}", upstream.url())).collect();
    format!(
        "auth: required
tenants:
{}{}models:
  - model_name: m
    balance: prefix_aware
    versions: [ {{ version: v, instances: [ {} ] }} ]
",
        tenant("one", "", &["one"]),
        tenant("two", "", &["two"]),
        instances.join(", ")
    )
}

async fn ask(sluice: &Sluice, name: &str, messages: &serde_json::Value) -> Answer {
    let bearer = format!("Bearer {}", key(name));
    let body = json!({ "model": "m", "messages": messages }).to_string();
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    let headers = [("authorization", bearer.as_str()), ("x-sluice-explain", "true")];
    wire.send(request_bytes("POST", CHAT, &headers, body)).await.unwrap();
    let answer = wire.answer(SOON).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer
}

/// Where a call went and why.
fn place(answer: &Answer) -> (String, String) {
    let told: serde_json::Value = serde_json::from_str(answer.header("x-sluice-explain").unwrap()).unwrap();
    (answer.header("x-sluice-instance").unwrap().to_owned(), told["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_conversation_stays_where_its_beginning_was_read_and_tenants_do_not_see_each_others() {
    let upstreams: Vec<Upstream> = (0..4).map(|_| Upstream::start(Script::json(200, completion("m", "so")))).collect();
    let sluice = Sluice::start(config(&upstreams)).await;
    for talk in 0..6 {
        let mut messages = json!([{ "role": "system", "content": format!("{talk} {}", "You are kind. ".repeat(300)) }]);
        let (home, reason) = place(&ask(&sluice, "one", &messages).await);
        assert_eq!(reason, "least_work", "nobody has read it yet");
        for turn in 0..4 {
            messages.as_array_mut().unwrap().push(json!({ "role": "user", "content": format!("Question {turn}") }));
            assert_eq!(place(&ask(&sluice, "one", &messages).await), (home.clone(), "prefix".into()), "talk {talk}");
        }
        let (_, reason) = place(&ask(&sluice, "two", &messages).await);
        assert_eq!(reason, "least_work", "what another tenant has sent is not known to this one");
    }
    let used = upstreams.iter().filter(|upstream| !upstream.requests().is_empty()).count();
    assert_eq!(used, 4, "conversations are spread over all");
}

#[tokio::test]
async fn large_bodies_are_read_by_the_workers_and_small_ones_are_not() {
    let upstream = Upstream::start(Plan::made(|request| {
        let body = request.json();
        Script::json(200, completion("m", &body["messages"][0]["content"].as_str().unwrap().len().to_string()))
    }));
    let sluice =
        Sluice::start(format!("auth: none\nmodels: [ {{ model_name: m, endpoint: \"{}\" }} ]\n", upstream.url())).await;
    for (size, jobs) in [(1_000, 0.0), (200_000, 1.0), (3_000_000, 2.0)] {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "x".repeat(size) }] }).to_string();
        let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
        wire.send(request_bytes("POST", CHAT, &[], body)).await.unwrap();
        let answer = wire.answer(SOON).await.unwrap();
        assert_eq!((answer.status(), answer.text()), (200, completion("m", &size.to_string())));
        callers::sample(&sluice, "sluice_worker_jobs_total", &[], jobs).await;
    }
    // What is wrong in a large body is said as in a small one.
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    let body = format!(r#"{{"model":"m","messages":"{}"}}"#, "x".repeat(200_000));
    wire.send(request_bytes("POST", CHAT, &[], body)).await.unwrap();
    let answer = wire.answer(SOON).await.unwrap();
    assert_eq!((answer.status(), answer.json()["error"]["param"].as_str()), (400, Some("messages")));
}
