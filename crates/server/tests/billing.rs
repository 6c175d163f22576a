//! Money from the call to the invoice, through the real binary: what is charged, what is refused, what is remembered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;
mod money;

use std::time::{Duration, Instant};

use infrastructure::store::{StorageSettings, Store};
use kernel::store::Ledger;
use kernel::store::ledger::{Batch, Charge, Filter, PostingId};
use kernel::{TenantId, Timestamp};
use money::{CHAT, SOON, Shop, Told, chat, settled, spent, tenant};
use serde_json::{Value, json};
use tenancy::invoice::Day;
use testkit::{Plan, Script, Sluice, Upstream, delta};

const TOLD: Told = Told { input: 1000, cached: 400, output: 50, reasoning: 20 };
/// 600 at 2, 400 at 1, 30 at 10 and 20 at 20 millionths.
const COST: &str = "0.0023";
const STREAM: &str = r#","stream":true"#;
/// Nobody is charged by the token for a call at a fixed price of a hundredth.
const PER_CALL: &str = "billing: { per_call: \"0.01\" }";

/// One plan with these fields, and one tenant on it with the keys `a` and `b`.
fn plan(fields: &str) -> String {
    format!("plans: [ {{ name: p, {fields} }} ]\ntenants:\n{}", tenant("acme", "p", &["a", "b"]))
}

/// A backend that takes a while, so that calls are under way at once.
fn slow() -> Plan {
    Plan::made(|_| Script::new().pause(Duration::from_millis(300)).then(Script::json(200, TOLD.whole("hello"))))
}

async fn metric(shop: &Shop, name: &str) -> f64 {
    shop.sluice().metrics().await.value(name, &[])
}

#[tokio::test]
async fn a_call_whole_or_streamed_is_one_charge_in_usage_and_on_an_invoice_that_is_re_rated_to_the_same() {
    let shop = Shop::open(
        TOLD.plan(),
        &format!("tenants:\n  - {{ id: acme, keys: [ {{ name: a, key: \"{}\" }} ] }}\n", money::key("a")),
    )
    .await;
    let tag = [("x-sluice-tag", "night")];
    let mut ids = Vec::new();
    for more in ["", STREAM, r#","stream":true,"stream_options":{"include_usage":true}"#] {
        let answer = shop.post("a", CHAT, &tag, &chat("m", more)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let cost = if more.is_empty() { Some("0.0023 usd") } else { None };
        assert_eq!(answer.header("x-sluice-cost"), cost, "what a stream costs is not known at its head");
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    let charges = shop.charges("acme").await;
    let found: Vec<&str> = charges.iter().map(|charge| charge["request"].as_str().unwrap()).collect();
    assert_eq!(found, ids);
    for charge in &charges {
        let tokens =
            ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"].map(|name| &charge[name]);
        assert_eq!(tokens, [&json!(1000), &json!(400), &json!(50), &json!(20)], "{charge}");
        let said = ["amount", "currency", "ending", "estimated", "model", "tag"].map(|name| &charge[name]);
        let expected = [json!(COST), json!("usd"), json!("complete"), json!(false), json!("m"), json!("night")];
        assert_eq!(said, expected.each_ref(), "{charge}");
    }
    let consumed = |rows: &Value| ["calls", "input_tokens", "output_tokens", "cost"].map(|name| rows[0][name].clone());
    let expected = [json!(3), json!(3000), json!(150), json!("0.0069")];
    assert_eq!(consumed(&shop.console.got("/admin/v1/usage?by=tag&tenant=acme").await["rows"]), expected);
    assert_eq!(consumed(&shop.console.json(&["usage", "--tenant", "acme", "--by", "model"])), expected);
    invoiced(&shop).await;
}

/// The same charges a month ago, whose invoice can be issued.
async fn invoiced(shop: &Shop) {
    let store = Store::open(&StorageSettings::default(), &shop.sluice().launched().data_dir()).await.unwrap();
    let filter = Filter { tenant: Some(TenantId::new("acme")), ..Filter::default() };
    let month = Day::of(Timestamp::now()).month().before();
    let earlier =
        |charge: Charge| Charge { id: PostingId::new(), at: Timestamp(month.period().start().0 + 7), ..charge };
    let charges: Vec<Charge> = store.charges(&filter, None, 100).await.unwrap().into_iter().map(earlier).collect();
    let transfers = charges.iter().filter_map(Charge::transfer).collect();
    store.post(&Batch { charges, transfers }).await.unwrap();
    let issued = shop.console.json(&["invoice", "issue", "--tenant", "acme", "--month", &month.to_string()]);
    assert_eq!(issued[0]["exact"], json!("0.0069"));
    let line = |class: &str| {
        let lines = issued[0]["lines"].as_array().unwrap();
        let found =
            lines.iter().find(|line| line["class"] == class).unwrap_or_else(|| panic!("no {class} in {lines:?}"));
        found["quantity"].clone()
    };
    assert_eq!(["input", "cached", "output", "reasoning"].map(line), [json!(1800), json!(1200), json!(90), json!(60)]);
    let told = shop.console.shows(&["invoice", "verify", "acme-0001"]);
    assert!(told.contains("acme-0001 agrees") && told.contains("re-rated from 3 charges"), "{told}");
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn sound_and_images_are_charged_in_their_own_class_and_in_no_other() {
    let shop = Shop::open(
        Plan::made(|request| {
            let parts = json!({ "cached_tokens": 20, "audio_tokens": 40, "image_tokens": 10 });
            let usage = match request.json()["newer"].as_bool() {
                Some(true) => json!({ "input_tokens": 100, "input_tokens_details": parts, "output_tokens": 50,
                    "output_tokens_details": { "audio_tokens": 30 }, "generated_images": 2 }),
                _ => json!({ "prompt_tokens": 100, "prompt_tokens_details": parts, "completion_tokens": 50,
                    "completion_tokens_details": { "audio_tokens": 30 }, "generated_images": 2 }),
            };
            Script::json(200, json!({ "choices": [], "usage": usage }).to_string())
        }),
        &format!("tenants:\n  - {{ id: acme, keys: [ {{ name: a, key: \"{}\" }} ] }}\n", money::key("a")),
    )
    .await;
    for more in ["", r#","newer":true"#] {
        // 40 at 2, 20 at 1, 40 at 30; 20 at 10, 30 at 60 millionths; two images at a hundredth.
        let answer = shop.post("a", CHAT, &[], &chat("loud", more)).await;
        assert_eq!(answer.header("x-sluice-cost"), Some("0.0233 usd"), "{}", answer.text());
    }
    for charge in shop.charges("acme").await {
        let found = ["input_tokens", "audio_input_tokens", "audio_output_tokens", "images"].map(|name| &charge[name]);
        assert_eq!(found, [&json!(100), &json!(40), &json!(30), &json!(2)], "{charge}");
        assert_eq!(charge["amount"], "0.0233");
    }
}

#[tokio::test]
async fn of_fifty_calls_at_once_on_a_budget_for_ten_exactly_ten_pass() {
    let sections = plan(&format!("{PER_CALL}, budgets: [ {{ limit: \"0.1\", per: month }} ]"));
    let shop = Shop::open(slow(), &sections).await;
    assert_eq!(shop.passed("a", 50).await, 10);
    assert_eq!(shop.upstream.requests().len(), 10, "who is refused asks nobody");
    assert_eq!(shop.charges("acme").await.len(), 10);
    let usage = shop.console.got("/admin/v1/usage?tenant=acme&by=tenant").await;
    assert_eq!(usage["rows"][0]["cost"], json!("0.1"));
    let refused = shop.call("b", "").await;
    spent(&refused);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("tenant `acme`, 0.1 usd a month, is spent") && message.contains("starts anew at"),
        "{message}"
    );
    assert_eq!(metric(&shop, "sluice_budget_refused_total").await, 41.0);
}

#[tokio::test]
async fn what_is_left_of_budgets_can_be_seen_by_the_api_and_in_the_shell() {
    let budgets = "budgets: [ { limit: \"0.1\", per: month }, { limit: \"1\", per: day, hard: false, scope: key, models: [\"m\"] } ]";
    let shop = Shop::open(slow(), &plan(&format!("{PER_CALL}, {budgets}"))).await;
    let seen = async || shop.console.got("/admin/v1/tenants/acme/budgets").await["budgets"].as_array().unwrap().clone();
    let money = |of: &Value| ["limit", "spent", "reserved", "left"].map(|name| of[name].as_str().unwrap().to_owned());
    let before = seen().await;
    assert_eq!(before.len(), 3, "before anybody called: {before:?}");
    assert_eq!(money(&before[0]), ["0.1", "0", "0", "0.1"]);
    assert_eq!(before[0]["known"], json!(true), "the ledger was asked");
    assert_eq!(shop.call("a", "").await.status(), 200);
    settled(shop.sluice()).await;
    let mut under_way = shop.sent("a", CHAT, &[], &chat("m", "")).await;
    assert!(shop.upstream.busy(1, SOON).await);
    let now = seen().await;
    assert_eq!(money(&now[0]), ["0.1", "0.01", "0.01", "0.08"]);
    let told = ["scope", "keys", "models", "per", "hard", "currency"].map(|name| now[0][name].clone());
    assert_eq!(told, [json!("tenant"), json!([]), json!([]), json!("month"), json!(true), json!("usd")]);
    assert!(now[0]["renews"].as_str().unwrap().ends_with("-01T00:00:00Z"), "{}", now[0]);
    let of_keys: Vec<_> = now[1..].iter().map(|of| (of["scope"].clone(), of["hard"].clone(), money(of))).collect();
    let of_key = |spent: [&str; 4]| (json!("key"), json!(false), spent.map(str::to_owned));
    assert!(of_keys.contains(&of_key(["1", "0.01", "0.01", "0.98"])), "{of_keys:?}");
    assert!(of_keys.contains(&of_key(["1", "0", "0", "1"])), "{of_keys:?}");
    assert_eq!(under_way.answer(SOON).await.unwrap().status(), 200);
    settled(shop.sluice()).await;
    let shown = shop.console.json(&["balance", "budgets", "acme"]);
    assert_eq!(money(&shown["budgets"][0]), ["0.1", "0.02", "0", "0.08"]);
}

#[tokio::test]
async fn a_budget_holds_for_models_priced_by_images_or_gpu_time_alone() {
    let images = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"generated_images":1}}"#;
    let upstream = Upstream::start(Plan::made(move |_| Script::json(200, images)));
    let tenants = [("painter", "p"), ("runner", "none")].map(|(id, plan)| tenant(id, plan, &[id])).concat();
    let sluice = Sluice::start(format!(
        "plans:
  - {{ name: p, budgets: [ {{ limit: \"2\", per: day }} ] }}
  - {{ name: none, budgets: [ {{ limit: \"0\", per: day }} ] }}
tenants:
{tenants}prices:
  - {{ model: paint, from: \"2026-01-01\", per_image: \"0.5\" }}
  - {{ model: run, from: \"2026-01-01\", per_gpu_second: \"0.5\" }}
nodes: [ {{ name: n, gpu: 1 }} ]
models:
  - {{ model_name: paint, endpoint: \"{0}\" }}
  - {{ model_name: run, versions: [ {{ version: v, instances: [ {{ endpoint: \"{0}\", node: n, needs: {{ gpu: 1 }} }} ] }} ] }}
",
        upstream.url()
    ))
    .await;
    let shop = Shop { upstream, console: console::Console(sluice) };
    let passed = async |name: &str, model: &str, more: &str| {
        let mut passed = 0;
        for _ in 0..10 {
            let answer = shop.post(name, CHAT, &[], &chat(model, more)).await;
            passed += usize::from(answer.status() == 200);
            if answer.status() != 200 {
                spent(&answer);
            }
        }
        passed
    };
    assert_eq!(passed("painter", "paint", "").await, 4);
    assert_eq!(passed("painter", "paint", r#","stream":true"#).await, 0);
    let asked = shop.upstream.requests().len();
    assert_eq!(passed("runner", "run", r#","stream":true"#).await, 0);
    assert_eq!(passed("runner", "run", "").await + passed("runner", "paint", r#","max_tokens":0"#).await, 0);
    assert_eq!(shop.upstream.requests().len(), asked, "nothing runs");
}

#[tokio::test]
async fn a_stream_is_cut_off_before_the_first_token_that_cannot_be_paid_for() {
    let script = (0..2000).fold(Script::sse_head(), |script, _| script.event(delta("m", " hello")));
    let shop = Shop::open(script.hang(), &plan("budgets: [ { limit: \"0.004\", per: total } ]")).await;
    let since = Instant::now();
    let answer = shop.call("a", STREAM).await;
    let events = answer.events();
    let (last, pieces) = events.split_last().unwrap();
    let error: Value = serde_json::from_str(&last.data).unwrap();
    assert_eq!((answer.status(), &error["error"]["code"]), (200, &json!("budget_exceeded")), "{error}");
    assert!(shop.upstream.abandoned(since, SOON).await.is_some(), "the backend is told");
    let charges = shop.charges("acme").await;
    assert_eq!((charges.len(), &charges[0]["ending"]), (1, &json!("cut_off")));
    let handed_on = pieces.iter().filter(|event| event.data.contains("hello")).count();
    assert_eq!(charges[0]["output_tokens"], json!(handed_on), "what was handed on, and nothing else");
    let amount: f64 = charges[0]["amount"].as_str().unwrap().parse().unwrap();
    assert!(amount <= 0.004 && amount > 0.004 - 0.000_012, "up to its last token, and no further: {amount}");
    spent(&shop.call("a", STREAM).await);
    assert_eq!(metric(&shop, "sluice_budget_cut_off_total").await, 1.0);
}

#[tokio::test]
async fn a_soft_budget_tells_once_and_refuses_nobody() {
    let sections = plan(&format!("{PER_CALL}, budgets: [ {{ limit: \"0.02\", per: day, hard: false }} ]"));
    let shop = Shop::open(TOLD.plan(), &sections).await;
    for _ in 0..5 {
        assert_eq!(shop.call("a", "").await.status(), 200);
    }
    assert_eq!(shop.charges("acme").await.len(), 5);
    assert_eq!(metric(&shop, "sluice_budget_soft_spent_total").await, 1.0);
}

#[tokio::test]
async fn without_a_balance_nobody_gets_in_and_what_is_paid_in_is_what_can_be_spent() {
    let shop = Shop::open(TOLD.plan(), &plan("billing: { per_call: \"0.01\", prepaid: true }")).await;
    assert_eq!(shop.passed("a", 5).await, 0, "nothing was ever paid in");
    shop.console.shows(&["balance", "top-up", "acme", "0.03", "--key", "one"]);
    let deadline = Instant::now() + SOON;
    while shop.call("a", "").await.status() != 200 {
        assert!(Instant::now() < deadline, "what was paid in is never seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shop.passed("b", 20).await, 2);
    assert_eq!(shop.charges("acme").await.len(), 3);
    assert_eq!(shop.console.json(&["balance", "show", "acme"])["balance"], json!("0"));
}

#[tokio::test]
async fn a_budget_of_keys_holds_each_key_and_one_of_some_models_only_those() {
    let budgets =
        "budgets: [ { limit: \"0.02\", per: month, scope: key }, { limit: \"0.01\", per: month, models: [ free ] } ]";
    let shop = Shop::open(TOLD.plan(), &plan(&format!("{PER_CALL}, {budgets}"))).await;
    assert_eq!(shop.post("a", CHAT, &[], &chat("free", "")).await.status(), 200);
    spent(&shop.post("b", CHAT, &[], &chat("free", "")).await);
    assert_eq!(shop.passed("a", 5).await, 1, "the call to the other model counted");
    assert_eq!(shop.passed("b", 5).await, 2);
    let refused = shop.call("a", "").await.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(refused.contains("of this API key"), "{refused}");
    assert_eq!(shop.charges("acme").await.len(), 4);
}

#[tokio::test]
async fn what_was_spent_is_known_after_a_kill_from_the_first_call_on() {
    for billing in ["per_call: \"0.01\"", "per_call: \"0.01\", prepaid: true"] {
        let sections = plan(&format!("billing: {{ {billing} }}, budgets: [ {{ limit: \"0.03\", per: month }} ]"));
        let shop = Shop::open(TOLD.plan(), &sections).await;
        if billing.contains("prepaid") {
            shop.console.shows(&["balance", "top-up", "acme", "0.02", "--key", "one"]);
        } else {
            assert_eq!(shop.passed("a", 2).await, 2);
        }
        let shop = shop.restarted().await;
        let expected = if billing.contains("prepaid") { 2 } else { 1 };
        assert_eq!(shop.passed("a", 20).await, expected, "{billing}");
    }
}

#[tokio::test]
async fn who_fails_costs_nothing_and_a_second_try_is_charged_once() {
    let (bad, good) = (Upstream::start(Script::json(500, "{}")), Upstream::start(TOLD.plan()));
    let instances = [&bad, &good].map(|upstream| format!("{{ endpoint: \"{}\" }}", upstream.url())).join(", ");
    let config = format!(
        "{}{}models:
  - {{ model_name: m, versions: [ {{ version: v1, instances: [ {instances} ] }} ], health: {{ max_fails: 0 }} }}
  - {{ model_name: broken, endpoint: \"{}\" }}
",
        money::PRICES,
        plan("models: [ m, broken ]"),
        bad.url()
    );
    let shop = Shop { upstream: good, console: console::Console(Sluice::start(config).await) };
    for _ in 0..4 {
        assert_eq!(shop.call("a", "").await.status(), 200);
        assert_eq!(shop.call("a", STREAM).await.status(), 200);
    }
    assert!(!bad.requests().is_empty(), "some were tried there first");
    assert!(shop.post("a", CHAT, &[], &chat("broken", "")).await.status() >= 500);
    let charges = shop.charges("acme").await;
    assert_eq!(charges.len(), 8);
    assert!(charges.iter().all(|charge| charge["amount"] == COST), "{charges:?}");
}

#[tokio::test]
async fn a_plain_service_is_charged_by_the_call_and_held_to_budgets() {
    let backend = Upstream::start(Script::json(200, "{}"));
    let services = format!(
        "services: [ {{ name: orders, path: \"/orders/{{*rest}}\", upstream: [ \"{}\" ] }} ]\n{}",
        backend.url(),
        plan("budgets: [ { limit: \"1\", per: month } ]")
    );
    let shop = Shop::open(TOLD.plan(), &services).await;
    backend.next(Script::json(404, "{}"));
    assert_eq!(shop.post("a", "/orders/1", &[], "x").await.status(), 404, "which costs nothing");
    for _ in 0..2 {
        assert_eq!(shop.post("a", "/orders/1", &[], "x").await.status(), 200);
    }
    spent(&shop.post("a", "/orders/1", &[], "x").await);
    assert_eq!(backend.requests().len(), 3);
    let charges = shop.charges("acme").await;
    assert_eq!(charges.len(), 2);
    for charge in charges {
        let said = ["model", "amount", "input_tokens", "output_tokens", "estimated"].map(|name| charge[name].clone());
        assert_eq!(said, [json!("service:orders"), json!("0.5"), json!(0), json!(0), json!(false)]);
    }
}

#[tokio::test]
async fn a_chain_without_quota_refuses_nobody_and_charges_everybody() {
    let chain = "middleware: [ access_log, authenticate, verify_signature ]\n";
    let sections = format!(
        "{chain}{}",
        plan("billing: { per_call: \"0.01\", prepaid: true }, budgets: [ { limit: \"0.01\", per: total } ]")
    );
    let shop = Shop::open(TOLD.plan(), &sections).await;
    assert_eq!(shop.passed("a", 10).await, 10);
    assert_eq!(shop.charges("acme").await.len(), 10);
    assert_eq!(shop.console.json(&["balance", "show", "acme"])["balance"], json!("-0.1"));
}

#[tokio::test]
async fn tokens_beyond_those_a_month_includes_are_spent_at_once_and_charged_by_the_invoice() {
    let told = Told { input: 50, output: 10, ..Told::default() };
    let open = async |included: u64| {
        let monthly = format!("monthly: {{ fee: \"10\", included_tokens: {included}, overage_per_1k_tokens: \"1\" }}");
        let budget = "budgets: [ { limit: \"0.2\", per: month } ]";
        Shop::open(told.plan(), &plan(&format!("billing: {{ {monthly} }}, {budget}"))).await
    };
    let month = Day::of(Timestamp::now()).month().to_string();
    for (included, calls) in [(0, 3), (1_000_000, 8)] {
        let shop = open(included).await;
        for nth in 0..calls {
            let answer = shop.call("a", "").await;
            assert_eq!(answer.status(), 200, "{nth}: {}", answer.text());
        }
        if included == 0 {
            // A fiftieth is left, which does not pay for its prompt and a few words.
            spent(&shop.call("a", "").await);
        }
        let charges = shop.charges("acme").await;
        assert_eq!(charges.len(), calls);
        assert!(charges.iter().all(|charge| charge["amount"] == "0"));
        let draft = shop.console.json(&["invoice", "draft", "--tenant", "acme", "--month", &month]);
        let lines = draft["lines"].as_array().unwrap();
        let overage = lines.iter().find(|line| line["kind"] == "overage");
        let paid = overage.map(|line| (line["quantity"].clone(), line["amount"].clone()));
        assert_eq!(paid, (included == 0).then(|| (json!(180), json!("0.18"))), "{draft}");
    }
}
