//! PostgreSQL: stopped, hung, slow; what is billed meanwhile, and what can be asked about it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Detour, Postgres, Sluice, Upstream};

use super::{KEYS, TEN, TOLD, calls, changes_are_made, changes_are_refused, config, oldest, posted};
use crate::console::Console;
use crate::money::{CHAT, Shop, chat, settled};

/// How long it is away.
const LASTS: Duration = Duration::from_secs(2);
/// What is written: the store's second and the register's two. A process takes a moment besides.
const START_WITHIN: Duration = Duration::from_millis(3_800);
/// What is written: three seconds for what is not posted, and one for the last words. A process takes a moment besides.
const STOP_WITHIN: Duration = Duration::from_millis(5_300);

async fn open(url: &str) -> Shop {
    within(url, super::TIMEOUT).await
}

/// One whose store may take so long.
async fn within(url: &str, timeout: Duration) -> Shop {
    let upstream = Upstream::start(TOLD.plan());
    let text = config(&upstream, &format!("url: \"{url}\", "));
    let (default, wanted) = (super::TIMEOUT.as_millis(), timeout.as_millis());
    let text = text.replace(&format!("timeout_ms: {default}"), &format!("timeout_ms: {wanted}"));
    let launch = Sluice::launch().config(text).env("SLUICE_KEY_PEPPER", "of the tests");
    Shop { upstream, console: Console(launch.start().await) }
}

/// A database reached by a detour.
fn around(postgres: &Postgres) -> (Detour, String) {
    let (detour, url) = (Detour::to(postgres.port()), postgres.database());
    let url = url.replace(&format!(":{}/", postgres.port()), &format!(":{}/", detour.port()));
    (detour, url)
}

/// What reads the ledger is refused plainly while it is away.
async fn reports_are_refused(shop: &Shop) {
    for path in [
        "/admin/v1/usage?by=model&tenant=acme",
        "/admin/v1/tenants/acme/charges",
        "/admin/v1/tenants/acme/balance",
        "/admin/v1/tenants/acme/draft",
        "/admin/v1/tenants/acme/invoices",
    ] {
        let answer = shop.console.ask("GET", path, Value::Null).await;
        assert_eq!(
            (answer.status(), &answer.json()["error"]["code"]),
            (503, &"store_down".into()),
            "{path}: {}",
            answer.text()
        );
    }
    let complaint = shop.console.complains(&["usage", "--tenant", "acme"]);
    assert!(complaint.contains("store"), "{complaint}");
}

/// Calls on the invoice of this month, as it stands.
async fn invoiced(shop: &Shop) -> usize {
    let draft = shop.console.got("/admin/v1/tenants/acme/draft").await;
    let calls = draft["usage"].as_array().unwrap().iter().map(|consumed| consumed["calls"].as_u64().unwrap());
    usize::try_from(calls.sum::<u64>()).unwrap()
}

#[tokio::test]
async fn budgets_are_held_to_and_late_charges_are_on_the_next_invoice_when_postgres_was_stopped() {
    let mut postgres = Postgres::start();
    let shop = open(&postgres.database()).await;
    assert_eq!(shop.passed("l", 3).await, 3);
    let before = calls(&shop, Duration::from_millis(200)).await;
    settled(shop.sluice()).await;
    postgres.stop();
    let made = before + calls(&shop, LASTS).await;
    assert_eq!(shop.passed("l", TEN).await, TEN - 3, "what is known here is held to");
    changes_are_refused(&shop, "meanwhile").await;
    reports_are_refused(&shop).await;
    assert!(oldest(&shop).await >= 1.0, "the alarm goes off");
    postgres.launch();
    changes_are_made(&shop, "later").await;
    posted(&shop, "acme", made).await;
    posted(&shop, "lab", TEN).await;
    assert_eq!(invoiced(&shop).await, made);
    assert_eq!(shop.passed("l", 1).await, 0, "and it stays spent");
}

/// What becomes of calls at a start without the store: of who has no limit, of who has, and of what costs nothing.
async fn strangers(on_store_loss: &str) -> [(u16, Option<String>); 3] {
    let upstream = Upstream::start(TOLD.plan());
    let url = format!("postgres://app:secret@127.0.0.1:{}/none", testkit::free_port());
    let text = config(&upstream, &format!("url: \"{url}\", on_store_loss: {on_store_loss}, "));
    let launch = Sluice::launch().config(text).env("SLUICE_KEY_PEPPER", "of the tests");
    let since = Instant::now();
    let shop = Shop { upstream, console: Console(launch.start().await) };
    assert!(since.elapsed() < START_WITHIN, "{:?}", since.elapsed());
    let mut found = Vec::new();
    for (name, model) in [("a", "m"), ("l", "m"), ("a", "free")] {
        let answer = shop.post(name, CHAT, &[], &chat(model, "")).await;
        found.push((answer.status(), answer.header("retry-after").map(str::to_owned)));
    }
    assert_eq!(shop.sluice().metrics().await.value("sluice_register_known", &[]), 0.0, "the alarm goes off");
    found.try_into().unwrap()
}

#[tokio::test]
async fn who_is_not_known_to_have_money_is_let_in_or_put_off_as_configured_at_a_start_without_postgres() {
    assert_eq!(strangers("allow").await, [(200, None), (200, None), (200, None)]);
    assert_eq!(strangers("refuse").await, [(200, None), (503, Some("1".to_owned())), (200, None)]);
}

#[tokio::test]
async fn a_slow_postgres_is_seen_and_posted_to_later() {
    let postgres = Postgres::start();
    let (detour, url) = around(&postgres);
    // A batch is some twenty exchanges.
    let shop = within(&url, Duration::from_millis(2_500)).await;
    detour.delay(Duration::from_millis(30));
    let made = calls(&shop, LASTS).await;
    changes_are_made(&shop, "slowly").await;
    posted(&shop, "acme", made).await;
    assert_eq!(invoiced(&shop).await, made);
    // Slower than it may be, it counts as hung.
    detour.delay(Duration::from_secs(3));
    let more = calls(&shop, LASTS).await;
    let since = Instant::now();
    let (status, code, _, message) = shop.console.refused("POST", KEYS, json!({ "name": "too slow" })).await;
    assert_eq!((status, code.as_str()), (503, "store_down"), "{message}");
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    detour.delay(Duration::ZERO);
    posted(&shop, "acme", made + more).await;
}

#[tokio::test]
async fn a_hung_postgres_holds_up_neither_a_start_nor_a_call_nor_a_stop() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let mut shop = open(&url).await;
    let mut made = calls(&shop, Duration::from_millis(200)).await;
    settled(shop.sluice()).await;
    postgres.hang();
    made += calls(&shop, LASTS).await;
    let launch = shop.console.0.relaunched();
    let since = Instant::now();
    shop.console = Console(launch.start().await);
    println!("the start took {:?}", since.elapsed());
    assert!(since.elapsed() < START_WITHIN, "the start took {:?}", since.elapsed());
    // The first call of a tenant waits a second for what it has spent.
    assert_eq!(shop.post("a", CHAT, &[], &chat("m", "")).await.status(), 200);
    made += 1 + calls(&shop, Duration::from_millis(500)).await;
    let Shop { upstream, console } = shop;
    let (launch, took) = console.0.stopped_to_be_started().await;
    assert!(took < STOP_WITHIN, "the stop took {took:?}");
    println!("the stop took {took:?}");
    postgres.resume();
    let shop = Shop { upstream, console: Console(launch.start().await) };
    posted(&shop, "acme", made).await;
}
