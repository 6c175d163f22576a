//! What `docs/degrade.md` says of what Sluice leans on being away: the real binary, beside real services that are locked,
//! full, slow, hung or gone. What callers see while they are, and that nothing is lost when they are back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

#[path = "../console/mod.rs"]
mod console;
mod disk;
mod introspection;
#[path = "../hostile_credentials/issuer.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod issuer;
mod issuers;
#[path = "../money/mod.rs"]
mod money;
mod postgres;
mod sqlite;

use std::path::Path;
use std::time::{Duration, Instant};

use money::{PRICES, SOON, Shop, Told, tenant};
use serde_json::{Value, json};
use testkit::Upstream;

const TOLD: Told = Told { input: 1000, cached: 0, output: 50, reasoning: 0 };
/// A call that waits for nothing takes a few milliseconds; a busy machine is given more. Below what any store is given.
const QUICK: Duration = Duration::from_millis(700);
/// How long a store may take here.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Between two calls.
const GAP: Duration = Duration::from_millis(10);
const KEYS: &str = "/admin/v1/tenants/acme/keys";
/// Calls that the budget of `lab` is for.
const TEN: usize = 10;

/// `acme` pays by the token and has no limit, `lab` has a budget for ten calls.
fn sections(storage: &str) -> String {
    let plans = "plans: [ { name: p }, { name: ten, billing: { per_call: \"0.01\" }, budgets: [ { limit: \"0.10\", per: total } ] } ]";
    let tenants = [tenant("acme", "p", &["a"]), tenant("lab", "ten", &["l"])].concat();
    format!("storage: {{ {storage}timeout_ms: {} }}\n{plans}\ntenants:\n{tenants}", TIMEOUT.as_millis())
}

/// The config of a shop with a free model beside, as [`money::config`] makes it.
fn config(upstream: &Upstream, storage: &str) -> String {
    assert!(PRICES.contains("model: m,") && !PRICES.contains("model: free"));
    money::config(upstream, &sections(storage))
}

/// Calls one after the other while a fault lasts: each is answered, and none waits. Gives how many.
async fn calls(shop: &Shop, lasting: Duration) -> usize {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < lasting {
        let since = Instant::now();
        let answer = shop.call("a", "").await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert!(since.elapsed() < QUICK, "a call waited {:?}", since.elapsed());
        count += 1;
        tokio::time::sleep(GAP).await;
    }
    count
}

/// A change is refused plainly, and in time.
async fn changes_are_refused(shop: &Shop, name: &str) {
    let since = Instant::now();
    let (status, code, _, message) = shop.console.refused("POST", KEYS, json!({ "name": name })).await;
    assert_eq!((status, code.as_str()), (503, "store_down"), "{message}");
    assert!(since.elapsed() < 3 * TIMEOUT, "{:?}", since.elapsed());
    let names = |keys: &Value| keys["keys"].as_array().map_or(0, Vec::len);
    assert!(names(&shop.console.ask("GET", KEYS, Value::Null).await.json()) <= 1, "nothing is half done");
}

/// Once the store is back a change is made.
async fn changes_are_made(shop: &Shop, name: &str) {
    let deadline = Instant::now() + SOON;
    while shop.console.ask("POST", KEYS, json!({ "name": name })).await.status() != 201 {
        assert!(Instant::now() < deadline, "it comes back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long the oldest charge has waited to be posted.
async fn oldest(shop: &Shop) -> f64 {
    shop.sluice().metrics().await.value("sluice_ledger_oldest_seconds", &[])
}

/// Everything is posted, each call once.
async fn posted(shop: &Shop, tenant: &str, count: usize) {
    let charges = shop.charges(tenant).await;
    let mut ids: Vec<_> = charges.iter().map(|charge| charge["request"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((charges.len(), ids.len()), (count, count), "each once");
    assert_eq!(shop.sluice().metrics().await.value("sluice_ledger_rejected_total", &[]), 0.0);
}

fn url(path: &Path) -> String {
    format!("url: \"sqlite:{}\", ", path.display())
}
