//! Two Sluices on one PostgreSQL: what one is told the other knows, and neither needs the store to answer calls.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;

use std::time::{Duration, Instant};

use console::{Console, MODELS};
use serde_json::{Value, json};
use testkit::{Launch, Postgres, Sluice};

const REFRESH: Duration = Duration::from_millis(200);
/// Beside the refresh: for a busy machine to do it in.
const SLACK: Duration = Duration::from_secs(3);
const KEYS: &str = "/admin/v1/tenants/acme/keys";

fn launch(url: &str) -> Launch {
    let storage = format!("storage: {{ url: \"{url}\", refresh_ms: {}, timeout_ms: 1000 }}\n", REFRESH.as_millis());
    Sluice::launch().config(storage + MODELS).env("SLUICE_KEY_PEPPER", "shared-by-the-replicas")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// How long it takes until a key's calls are answered like this.
async fn until(console: &Console, key: &str, status: u16) -> Duration {
    let since = Instant::now();
    loop {
        let (found, message) = console.call(key).await;
        if found == status {
            return since.elapsed();
        }
        assert!(since.elapsed() < REFRESH + SLACK, "still {found}: {message}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_one_replica_is_told_the_other_knows_within_its_refresh() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let (one, other) = (Console(launch(&url).start().await), Console(launch(&url).start().await));
    one.made("POST", "/admin/v1/tenants", json!({ "id": "acme" })).await;
    let key = one.key("acme", json!({ "name": "ci" })).await;
    assert_eq!(one.call(text(&key, "key")).await.0, 200, "where it was made at once");
    until(&other, text(&key, "key"), 200).await;
    other.made("DELETE", &format!("{KEYS}/{}", text(&key, "id")), Value::Null).await;
    assert_eq!(other.call(text(&key, "key")).await.0, 401, "where it was revoked at once");
    until(&one, text(&key, "key"), 401).await;
    let banner = one.0.stderr();
    assert!(banner.contains("postgres://") && !banner.contains(Postgres::PASSWORD), "{banner}");
}

#[tokio::test]
async fn keys_go_on_without_the_store_and_changes_are_refused_plainly() {
    let mut postgres = Postgres::start();
    let url = postgres.database();
    let console = Console(launch(&url).start().await);
    console.made("POST", "/admin/v1/tenants", json!({ "id": "acme" })).await;
    let key = console.key("acme", json!({ "name": "ci" })).await;
    for (how, back) in [("stopped", true), ("hung", false)] {
        if back {
            postgres.stop()
        } else {
            postgres.hang()
        }
        for _ in 0..5 {
            let since = Instant::now();
            assert_eq!(console.call(text(&key, "key")).await.0, 200, "{how}");
            assert!(since.elapsed() < Duration::from_millis(900), "{how}: no call waits for the store");
        }
        let since = Instant::now();
        let (status, code, _, message) = console.refused("POST", KEYS, json!({ "name": how })).await;
        assert_eq!((status, code.as_str()), (503, "store_down"), "{how}: {message}");
        assert!(message.contains("nothing was changed") || message.contains("too slow"), "{message}");
        assert!(since.elapsed() < Duration::from_secs(12), "{how}");
        let complaint = console.complains(&["key", "create", "--tenant", "acme", "--name", how]);
        assert!(complaint.contains("store"), "{complaint}");
        if back {
            postgres.launch()
        } else {
            postgres.resume()
        }
        let since = Instant::now();
        while console.ask("POST", KEYS, json!({ "name": format!("after {how}") })).await.status() != 201 {
            assert!(since.elapsed() < Duration::from_secs(20), "it comes back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_start_without_the_store_knows_who_was_known_last() {
    let mut postgres = Postgres::start();
    let url = postgres.database();
    let mut console = Console(launch(&url).start().await);
    console.made("PUT", "/admin/v1/plans/gold", json!({ "rps": 1000 })).await;
    console.made("POST", "/admin/v1/tenants", json!({ "id": "acme", "plan": "gold" })).await;
    let key = console.key("acme", json!({ "name": "ci" })).await;
    let copy = console.0.launched().data_dir().join("known.jsonl");
    let since = Instant::now();
    while !std::fs::read_to_string(&copy).is_ok_and(|text| text.contains(text_of(&key))) {
        assert!(since.elapsed() < Duration::from_secs(30), "it is written every few seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&copy).unwrap().contains(text(&key, "key")), "hashes only");
    postgres.stop();
    console.0.kill();
    let console = Console(console.0.restarted().await);
    assert_eq!(console.call(text(&key, "key")).await.0, 200);
    assert_eq!(console.call("a-key-of-nobody-at-all").await.0, 401);
    postgres.launch();
    let since = Instant::now();
    while console.ask("POST", KEYS, json!({ "name": "later" })).await.status() != 201 {
        assert!(since.elapsed() < Duration::from_secs(20), "it comes back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(console.call(text(&key, "key")).await.0, 200);
}

fn text_of(key: &Value) -> &str {
    text(key, "id")
}

#[tokio::test]
async fn a_report_takes_the_time_that_it_may_and_nothing_else_does() {
    let postgres = Postgres::start();
    let console = Console(launch(&postgres.database()).start().await);
    console.made("POST", "/admin/v1/tenants", json!({ "id": "acme" })).await;
    console.got("/admin/v1/usage").await;
    postgres.hang();
    let since = Instant::now();
    let change = async {
        let (status, code, ..) = console.refused("POST", KEYS, json!({ "name": "late" })).await;
        assert_eq!((status, code.as_str()), (503, "store_down"));
        assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
        // Longer than anything but a report may take, and less than a report.
        tokio::time::sleep(Duration::from_secs(12).saturating_sub(since.elapsed())).await;
        postgres.resume();
    };
    let (usage, ()) = tokio::join!(console.ask("GET", "/admin/v1/usage", Value::Null), change);
    assert_eq!(usage.status(), 200, "{}", usage.text());
    assert!(since.elapsed() > Duration::from_secs(11), "it has waited: {:?}", since.elapsed());
}
