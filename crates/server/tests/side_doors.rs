//! No door beside the door: whatever endpoint is called, whoever may not call gets no answer and asks no backend, and
//! whoever may is charged on the model really called.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;
mod money;

use std::collections::BTreeSet;

use console::Console;
use money::{Shop, Told, key};
use serde_json::{Value, json};
use testkit::{Answer, Plan, Script, Sluice, Upstream, delta, request};

const TOLD: Told = Told { input: 7, cached: 0, output: 3, reasoning: 0 };

/// An endpoint that costs something.
struct Door {
    path: &'static str,
    body: fn(&str) -> String,
    /// What it is in the ledger.
    operation: &'static str,
    stream: bool,
}

/// All of them, each in every way it can be called.
const DOORS: [Door; 6] = [
    Door { path: "/v1/chat/completions", body: |model| money::chat(model, ""), operation: "chat", stream: false },
    Door {
        path: "/v1/chat/completions",
        body: |model| money::chat(model, r#","stream":true"#),
        operation: "chat",
        stream: true,
    },
    Door {
        path: "/v1/completions",
        body: |model| format!(r#"{{"model":"{model}","prompt":"hi"}}"#),
        operation: "completion",
        stream: false,
    },
    Door {
        path: "/v1/completions",
        body: |model| format!(r#"{{"model":"{model}","prompt":"hi","stream":true}}"#),
        operation: "completion",
        stream: true,
    },
    Door {
        path: "/v1/embeddings",
        body: |model| format!(r#"{{"model":"{model}","input":"hi"}}"#),
        operation: "embedding",
        stream: false,
    },
    Door { path: "/orders/7", body: |_| "x".to_owned(), operation: "service", stream: false },
];

/// The routes of the data plane, as they are written.
const ROUTES: &str = include_str!("../../access/src/door/route.rs");

fn backend() -> Plan {
    Plan::made(|request| {
        if request.target.starts_with("/orders") {
            return Script::json(200, "{}");
        }
        if request.target.contains("embeddings") {
            let usage = json!({ "prompt_tokens": 7, "total_tokens": 7 });
            let data = json!([{ "object": "embedding", "index": 0, "embedding": [0.5] }]);
            return Script::json(
                200,
                json!({ "object": "list", "data": data, "model": "m", "usage": usage }).to_string(),
            );
        }
        if request.json()["stream"] == true {
            return Script::sse_head().event(delta("m", "a")).event(TOLD.event()).done();
        }
        Script::json(200, TOLD.whole("hello"))
    })
}

/// Who may, and those who may not, with why.
const TENANTS: &str = "tenants:
  - { id: good, keys: [ { name: good, key: \"key-of-good-0123456789\" } ] }
  - { id: spent, plan: spent, keys: [ { name: spent, key: \"key-of-spent-0123456789\" } ] }
  - { id: keyspent, keys: [ { name: keyspent, key: \"key-of-keyspent-0123456789\", budgets: [ { limit: \"0\", per: month } ] } ] }
  - { id: unpaid, plan: unpaid, keys: [ { name: unpaid, key: \"key-of-unpaid-0123456789\" } ] }
  - { id: narrow, keys: [ { name: narrow, key: \"key-of-narrow-0123456789\", models: [ other ] } ] }
  - { id: outside, models: [ other ], keys: [ { name: outside, key: \"key-of-outside-0123456789\" } ] }
  - { id: used, limits: { rpm: 1 }, keys: [ { name: used, key: \"key-of-used-0123456789\" } ] }
  - { id: halted, suspended: true, keys: [ { name: halted, key: \"key-of-halted-0123456789\" } ] }
  - { id: reader, keys: [ { name: reader, key: \"key-of-reader-0123456789\", scopes: [ usage ] } ] }
  - { id: elsewhere, networks: [ 192.0.2.0/24 ], keys: [ { name: elsewhere, key: \"key-of-elsewhere-0123456789\" } ] }
";
const BARRED: [(&str, u16); 9] = [
    ("spent", 402),
    ("keyspent", 402),
    ("unpaid", 402),
    ("narrow", 403),
    ("outside", 403),
    ("used", 429),
    ("halted", 403),
    ("reader", 403),
    ("elsewhere", 403),
];

async fn open() -> Shop {
    let upstream = Upstream::start(backend());
    let url = upstream.url();
    let config = format!(
        "auth: required
{}plans:
  - {{ name: spent, budgets: [ {{ limit: \"0\", per: total }} ] }}
  - {{ name: unpaid, billing: {{ prepaid: true }} }}
{TENANTS}models:
  - {{ model_name: m, endpoint: \"{url}\" }}
  - {{ model_name: other, endpoint: \"{url}\" }}
  - {{ model_name: gpt-named, versions: [ {{ version: v9, upstream_model: m, instances: [ {{ endpoint: \"{url}\" }} ] }} ] }}
services: [ {{ name: orders, path: \"/orders/{{*rest}}\", upstream: [ \"{url}\" ] }} ]
",
        money::PRICES
    );
    Shop { upstream, console: Console(Sluice::start(config).await) }
}

async fn knock(shop: &Shop, name: &str, door: &Door, model: &str) -> Answer {
    shop.post(name, door.path, &[], &(door.body)(model)).await
}

#[test]
fn every_route_that_calls_a_model_is_walked_here() {
    let calls = ROUTES.lines().filter(|line| line.contains("=> (Target::Call("));
    let routes: BTreeSet<&str> = calls.map(|line| line.split('"').nth(1).unwrap()).collect();
    let walked: BTreeSet<&str> = DOORS.iter().map(|door| door.path).filter(|path| path.starts_with("/v1/")).collect();
    assert!(!routes.is_empty());
    assert_eq!(routes, walked);
}

#[tokio::test]
async fn who_may_not_call_gets_no_answer_at_any_door_and_asks_nobody() {
    let shop = open().await;
    // The one request a minute, at the one thing it may be had for.
    assert_eq!(shop.post("used", "/v1/embeddings", &[], r#"{"model":"other","input":"hi"}"#).await.status(), 200);
    let before = shop.upstream.requests().len();
    for door in &DOORS {
        for (name, status) in BARRED {
            let answer = knock(&shop, name, door, "m").await;
            assert_eq!(answer.status(), status, "{name} at {} ({}): {}", door.path, door.stream, answer.text());
        }
        for credential in [None, Some("Bearer key-of-nobody-0123456789")] {
            let headers: Vec<(&str, &str)> = credential.map(|bearer| ("authorization", bearer)).into_iter().collect();
            let answer = request("POST", &shop.sluice().url(door.path), &headers, (door.body)("m")).await.unwrap();
            assert_eq!(answer.status(), 401, "{credential:?} at {}", door.path);
        }
        // Other ways to show a key, and to write a path and a model, lead to the same door or to none.
        for header in ["x-api-key", "api-key", "x-goog-api-key"] {
            let spent = key("spent");
            let answer =
                request("POST", &shop.sluice().url(door.path), &[(header, &spent)], (door.body)("m")).await.unwrap();
            assert_eq!(answer.status(), 402, "{header} at {}", door.path);
        }
        for path in [format!("{}/", door.path), format!("/{}", door.path), door.path.to_uppercase()] {
            let answer = shop.post("spent", &path, &[], &(door.body)("m")).await;
            assert!(answer.status() >= 400, "{path}: {}", answer.text());
        }
        let answer = knock(&shop, "narrow", door, "M").await;
        assert!(answer.status() >= 400, "{}", answer.text());
    }
    assert_eq!(shop.upstream.requests().len(), before, "nobody was asked");
    for (name, _) in BARRED.iter().filter(|(name, _)| *name != "used") {
        assert_eq!(shop.charges(name).await, Vec::<Value>::new(), "{name}");
    }
}

#[tokio::test]
async fn each_door_charges_once_and_by_the_model_really_called() {
    let shop = open().await;
    for door in &DOORS {
        // The second is a name of its own for the first: it has a price of its own.
        for model in ["m", "gpt-named"] {
            let before = shop.charges("good").await.len();
            let answer = knock(&shop, "good", door, model).await;
            assert_eq!(answer.status(), 200, "{}: {}", door.path, answer.text());
            let charges = shop.charges("good").await;
            assert_eq!(charges.len(), before + 1, "{} ({})", door.path, door.stream);
            let charge = charges.iter().find(|charge| charge["request"] == answer.header("x-request-id").unwrap());
            let charge = charge.unwrap_or_else(|| panic!("{}: {charges:?}", door.path));
            let (called, amount, output) = match door.operation {
                "service" => ("service:orders", "0.5", 0),
                "embedding" => (model, "0.000014", 0),
                _ => (model, "0.000044", 3),
            };
            let said = ["operation", "model", "amount", "output_tokens", "ending", "estimated"];
            let expected =
                [json!(door.operation), json!(called), json!(amount), json!(output), json!("complete"), json!(false)];
            assert_eq!(said.map(|name| charge[name].clone()), expected, "{} ({})", door.path, door.stream);
            let version = if called == "gpt-named" { "v9" } else { "default" };
            assert_eq!(charge["version"], version);
        }
    }
}
