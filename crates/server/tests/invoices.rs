//! Usage, invoices and balances of a running Sluice, by the admin API and from the shell, on its real store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;

use std::sync::Arc;

use console::Console;
use infrastructure::store::{StorageSettings, Store};
use kernel::store::Ledger;
use kernel::store::ledger::{Batch, Charge, Ending, PostingId};
use kernel::{Currency, ModelName, Money, RequestId, TenantId, Timestamp, Tokens, Usage, Version};
use serde_json::{Value, json};
use tenancy::invoice::{Day, Month};

/// The month before this one, and this one.
fn months() -> (Month, Month) {
    let this = Day::of(Timestamp::now()).month();
    (this.before(), this)
}

/// The store of a running Sluice, opened by another process.
async fn store(console: &Console) -> Arc<Store> {
    Store::open(&StorageSettings::default(), &console.0.launched().data_dir()).await.unwrap()
}

fn charge(tenant: &str, at: Timestamp, price: &str, tag: Option<&str>, tokens: (u64, u64), amount: &str) -> Charge {
    Charge {
        id: PostingId::new(),
        at,
        request: RequestId::new("r"),
        tenant: TenantId::new(tenant),
        key: None,
        model: ModelName::new("m"),
        version: Version::new("v1"),
        operation: "chat",
        tag: tag.map(Into::into),
        usage: Usage { input: Tokens(tokens.0), output: Tokens(tokens.1), ..Usage::default() },
        gpu_millis: 0,
        ending: Ending::Complete,
        plan: None,
        price: Some(price.into()),
        currency: Currency::USD,
        amount: Money::parse(amount).unwrap(),
    }
}

async fn post(store: &Store, charges: Vec<Charge>) {
    let transfers = charges.iter().filter_map(Charge::transfer).collect();
    store.post(&Batch { charges, transfers }).await.unwrap();
}

/// A tenant with two calls in the month before this one, at 2 and 4 for a million tokens.
async fn with_calls(console: &Console) -> (Arc<Store>, String) {
    console.shows(&["tenant", "create", "acme"]);
    console.shows(&["tenant", "create", "lab"]);
    let price = json!({ "model": "m", "from": "2026-01-01", "input_per_1m_tokens": "2", "output_per_1m_tokens": "4" });
    let price = console.made("POST", "/admin/v1/prices", price).await["id"].as_str().unwrap().to_owned();
    let store = store(console).await;
    let at = |hours: i64| Timestamp(months().0.period().start().0 + hours * 3_600_000);
    let calls = vec![
        charge("acme", at(5), &price, Some("=SUM(A1)"), (1_000_001, 500), "2.002002"),
        charge("acme", at(29), &price, None, (10, 1_000_000), "4.00002"),
    ];
    post(&store, calls).await;
    (store, price)
}

#[tokio::test]
async fn what_was_consumed_is_told_by_whatever_is_asked_for() {
    let console = Console::start("").await;
    with_calls(&console).await;
    let month = months().0.to_string();
    let rows = console.json(&["usage", "--tenant", "acme", "--month", &month]);
    assert_eq!(rows[0]["model"], json!("m"));
    assert_eq!(
        (&rows[0]["calls"], &rows[0]["input_tokens"], &rows[0]["cost"]),
        (&json!(2), &json!(1_000_011), &json!("6.002022"))
    );
    let days = console.json(&["usage", "--by", "tenant,day", "--month", &month]);
    assert_eq!((days.as_array().unwrap().len(), &days[0]["day"]), (2, &json!(format!("{month}-01"))));
    let csv = console.shows(&["usage", "--by", "tag", "--month", &month, "--csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("tag,calls,") && lines.len() == 3, "{csv}");
    assert!(csv.contains("\r\n'=SUM(A1),1,"), "no formula: {csv}");
    let page = console.got(&format!("/admin/v1/usage?by=day&month={month}&limit=1")).await;
    let next = page["next"].as_str().unwrap();
    let page = console.got(&format!("/admin/v1/usage?by=day&month={month}&limit=1&after={next}")).await;
    assert_eq!((&page["rows"][0]["day"], &page["next"]), (&json!(format!("{month}-02")), &Value::Null));
    assert!(console.shows(&["usage", "--month", &month]).starts_with("MODEL"));
    assert!(console.complains(&["usage", "--by", "colour"]).contains("Cannot split by `colour`"));
}

#[tokio::test]
async fn an_invoice_is_issued_once_shown_in_every_form_and_re_rated() {
    let console = Console::start("").await;
    let (store, price) = with_calls(&console).await;
    let (last, this) = months();
    let last = last.to_string();
    let draft = console.json(&["invoice", "draft", "--tenant", "acme", "--month", &last]);
    assert_eq!((&draft["id"], &draft["total"], &draft["exact"]), (&Value::Null, &json!("6"), &json!("6.002022")));
    let issued = console.json(&["invoice", "issue", "--month", &last]);
    assert_eq!((issued.as_array().unwrap().len(), &issued[0]["id"]), (1, &json!("acme-0001")), "lab owes nothing");
    assert_eq!(console.json(&["invoice", "issue", "--month", &last]), issued, "once");
    assert!(console.complains(&["invoice", "issue", "--month", &this.to_string()]).contains("not over yet"));
    let balance = console.json(&["balance", "show", "acme"]);
    assert_eq!(balance["balance"], json!("-6"), "the account says what the invoice does");
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());

    let table = console.shows(&["invoice", "show", "acme-0001"]);
    assert!(table.starts_with("LINE") && table.contains("total 6 usd (6.002022 before rounding)"), "{table}");
    assert!(console.shows(&["invoice", "show", "acme-0001", "--csv"]).starts_with("invoice,tenant,"));
    let page = console.shows(&["invoice", "show", "acme-0001", "--html", "--lang", "zh"]);
    assert!(page.starts_with("<!doctype html>") && page.contains("账单"), "{page}");
    let output = issued[0]["lines"].as_array().unwrap().iter().find(|line| line["class"] == json!("output")).unwrap();
    let line = output["line"].to_string();
    let charges = console.json(&["invoice", "charges", "acme-0001", &line]);
    assert_eq!(charges.as_array().unwrap().len(), 2);
    assert!(
        console
            .shows(&["invoice", "verify", "acme-0001"])
            .contains("acme-0001 agrees: 2 lines, re-rated from 2 charges")
    );
    assert!(console.shows(&["invoice", "list", "--tenant", "acme"]).contains("acme-0001"));

    // One that became known late, and one that was rated wrong.
    let at = Timestamp(months().0.period().start().0 + 7);
    post(&store, vec![charge("acme", at, &price, None, (0, 250_000), "1")]).await;
    assert!(console.shows(&["invoice", "verify", "acme-0001"]).contains("1 charges became known after it was issued"));
    let draft = console.json(&["invoice", "draft", "--tenant", "acme", "--month", &this.to_string()]);
    let late = &draft["lines"][0];
    assert_eq!(
        (&late["earlier"], &late["quantity"], &late["amount"]),
        (&json!("acme-0001"), &json!(250_000), &json!("1"))
    );
    let wrong = charge("acme", at, &price, None, (0, 250_000), "1.000000000001");
    let id = wrong.id.to_string();
    post(&store, vec![wrong]).await;
    let output = console.shell(&["invoice", "verify", "acme-0001"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && told.contains(&id) && told.contains("1.000000000001"), "{told}");
}

#[tokio::test]
async fn fees_are_by_the_day_from_the_day_of_the_subscription_on() {
    let console = Console::start("").await;
    let monthly = json!({ "fee": "300", "included_tokens": 1000, "overage_per_1k_tokens": "0.5" });
    console.made("PUT", "/admin/v1/plans/pro", json!({ "billing": { "monthly": monthly } })).await;
    console.shows(&["tenant", "create", "acme", "--plan", "pro"]);
    let draft = console.json(&["invoice", "draft", "--tenant", "acme", "--month", &months().1.to_string()]);
    let fee = &draft["lines"][0];
    let today = Day::of(Timestamp::now());
    let left = months().1.period().days().filter(|day| *day >= today).count() as u64;
    assert_eq!((&fee["kind"], &fee["quantity"], &fee["unit_price"]), (&json!("fee"), &json!(left), &json!("300")));
    assert_eq!(draft["lines"][1]["kind"], json!("included"));
    assert!(
        console.shows(&["invoice", "draft", "--tenant", "acme", "--month", &months().1.to_string()]).contains("draft")
    );
}

#[tokio::test]
async fn money_moves_once_for_each_key_and_back_once() {
    let console = Console::start("").await;
    console.shows(&["tenant", "create", "acme"]);
    let path = "/admin/v1/tenants/acme/top-ups";
    let paid = json!({ "amount": "100", "idempotency_key": "bank-1", "note": "wire" });
    let first = console.ask("POST", path, paid.clone()).await;
    let again = console.ask("POST", path, paid).await;
    assert_eq!((first.status(), again.status(), first.json()["id"].clone()), (201, 200, again.json()["id"].clone()));
    let other = json!({ "amount": "101", "idempotency_key": "bank-1" });
    assert_eq!(console.refused("POST", path, other).await.0, 409, "the key of another payment");
    console.shows(&["balance", "grant", "acme", "7.5", "--key", "sorry-1"]);
    assert_eq!(console.json(&["balance", "show", "acme"])["balance"], json!("107.5"));
    let id = first.json()["id"].as_str().unwrap().to_owned();
    console.shows(&["balance", "reverse", "acme", &id, "--note", "bounced"]);
    console.shows(&["balance", "reverse", "acme", &id]);
    assert_eq!(console.json(&["balance", "show", "acme"])["balance"], json!("7.5"), "back once");
    let moved = console.json(&["balance", "transfers", "acme"]);
    assert_eq!(moved.as_array().unwrap().len(), 3);
    for (amount, field) in [("0", "amount"), ("0.001", "decimals"), ("x", "decimal number")] {
        let told = console.complains(&["balance", "top-up", "acme", amount, "--key", "k"]);
        assert!(told.contains(field), "{amount}: {told}");
    }
    assert_eq!(
        console
            .refused("POST", "/admin/v1/tenants/nobody/grants", json!({ "amount": "1", "idempotency_key": "k" }))
            .await
            .0,
        404
    );
    let reversed = moved[2]["id"].as_str().unwrap();
    assert!(console.complains(&["balance", "reverse", "acme", reversed]).contains("takes another one back"));
    console.shows(&["tenant", "create", "lab"]);
    assert!(console.complains(&["balance", "reverse", "lab", &id]).contains("no such transfer"), "it is another's");
}

#[tokio::test]
async fn a_tenant_reads_its_own_invoices_and_no_others() {
    let console = Console::start("").await;
    with_calls(&console).await;
    console.json(&["invoice", "issue", "--tenant", "acme", "--month", &months().0.to_string()]);
    let key = |made: Value| made["key"].as_str().unwrap().to_owned();
    let own = key(console.key("acme", json!({ "name": "reader", "scopes": ["usage"] })).await);
    let other = key(console.key("lab", json!({ "name": "admin", "scopes": ["admin"] })).await);
    let path = "/admin/v1/tenants/acme/invoices/acme-0001";
    assert_eq!(console.send("GET", path, Some(&own), "").await.status(), 200);
    assert_eq!(console.send("GET", path, Some(&other), "").await.status(), 404);
    // Another's invoice under its own name.
    let path = "/admin/v1/tenants/lab/invoices/acme-0001";
    assert_eq!(console.send("GET", path, Some(&other), "").await.status(), 404);
    assert_eq!(console.send("POST", &format!("{path}/verify"), Some(&other), "").await.status(), 404);
    let path = "/admin/v1/tenants/lab/charges?invoice=acme-0001&line=1";
    assert_eq!(console.send("GET", path, Some(&other), "").await.status(), 404);
    assert_eq!(console.send("POST", "/admin/v1/tenants/acme/invoices", Some(&own), "{}").await.status(), 403);
}
