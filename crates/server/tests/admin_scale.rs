//! A hundred thousand tenants with three keys each: how long a start takes, how much memory, how long a look-up.
//!
//! Figures of a release build, so it is not run with the others:
//! `SLUICE_BIN=target/release/sluice cargo test --release -p server --test admin_scale -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;

use std::time::{Duration, Instant};

use console::{Console, MODELS};
use infrastructure::store::{StorageSettings, Store};
use kernel::store::Registry;
use kernel::store::registry::{KeyRow, Seed, Source, TenantRow};
use kernel::{KeyId, TenantId, Timestamp};
use serde_json::Value;
use tenancy::{NewKey, Pepper};
use testkit::Sluice;

const TENANTS: usize = 100_000;
const KEYS_EACH: usize = 3;
const START_WITHIN: Duration = Duration::from_secs(2);
const RSS_MAX_KIB: u64 = 150 << 10;

#[tokio::test]
#[ignore = "figures of a release build"]
async fn a_hundred_thousand_tenants_start_within_two_seconds_and_fit_into_150_mib() {
    let launch = Sluice::launch().config(MODELS);
    let data = launch.data_dir();
    let pepper = Pepper::load(&data).unwrap();
    let mut seed = Seed::default();
    let mut some = Vec::new();
    let now = Timestamp::now();
    for nth in 0..TENANTS {
        let tenant = TenantId::new(format!("tenant-{nth:06}"));
        for key in 0..KEYS_EACH {
            let made = NewKey::generate(&pepper).unwrap();
            if nth % 10_000 == 0 {
                some.push(made.key.expose().to_owned());
            }
            seed.keys.push(KeyRow {
                id: KeyId::new(made.id.as_str()),
                tenant: tenant.clone(),
                source: Source::Api,
                name: format!("key-{key}"),
                hash: unhex(made.hash.split_once('.').unwrap().1),
                terms: "{}".into(),
                created: now,
                expires: None,
                revoked: None,
                replaces: None,
                used: None,
            });
        }
        seed.tenants.push(TenantRow {
            id: tenant,
            source: Source::Api,
            plan: None,
            suspended: false,
            terms: format!("{{\"limits\":{{\"rps\":{}}}}}", 1000 + nth % 50),
            created: now,
            updated: now,
        });
    }
    let store = Store::open(&StorageSettings::default(), &data).await.unwrap();
    store.seed(seed).await.unwrap();
    store.close().await;
    drop(store);

    let since = Instant::now();
    let console = Console(launch.start().await);
    while console.0.metrics().await.value("sluice_keys", &[]) < (TENANTS * KEYS_EACH) as f64 {
        assert!(since.elapsed() < Duration::from_secs(60), "{}", console.0.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = since.elapsed();
    let at_start = console.0.rss_kib();
    for key in &some {
        assert_eq!(console.call(key).await.0, 200);
    }
    let since = Instant::now();
    console.key("tenant-000000", serde_json::json!({ "name": "one-more" })).await;
    let changed = since.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let later = console.0.rss_kib();
    let metrics = console.0.metrics().await;
    let peak = std::fs::read_to_string(format!("/proc/{}/status", console.0.pid())).unwrap();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
    println!(
        "{TENANTS} tenants, {} keys: ready after {started:?}, RSS {} MiB, a change in force after {changed:?}, RSS then {} MiB, {peak}",
        metrics.value("sluice_keys", &[]),
        at_start >> 10,
        later >> 10,
    );
    assert!(started <= START_WITHIN, "{started:?}");
    assert!(at_start.max(later) <= RSS_MAX_KIB, "{at_start} KiB, {later} KiB");
    assert_eq!(console.got("/admin/v1/tenants/tenant-099999/keys").await["keys"].as_array().map_or(0, Vec::len), 3);
    let _: Value = console.got("/admin/v1/tenants?limit=1000").await;
}

fn unhex(digits: &str) -> [u8; 32] {
    let byte = |nth: usize| u8::from_str_radix(&digits[2 * nth..2 * nth + 2], 16).unwrap();
    std::array::from_fn(byte)
}
