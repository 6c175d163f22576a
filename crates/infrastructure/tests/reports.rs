//! Reports over more tags than anybody looks at: what they take of memory, and of everybody else's time.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod places;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kernel::store::ledger::{Account, Dimension, Filter, SumPage};
use kernel::store::{Fault, Ledger, Registry};
use kernel::{TenantId, Timestamp};
use places::{open, settings};
use testkit::Postgres;

/// Bound: what reports may take of memory beside what there was, in KiB. Their rows are some hundred MiB.
const GROWTH: u64 = 100 << 10;
/// A tag for each call, as careless clients send them.
const TAGS: &str = "INSERT INTO sums (id, hour, tenant, key, model, tag, price, plan, currency, calls, estimated, input, \
    cached, cache_write, audio_input, output, reasoning, audio_output, images, gpu_millis, units, pico) \
    WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < 149999) \
    SELECT 'id' || n, 3600000 * (n % 600), 'acme', 'k' || (n % 3), 'model', 'request-0123456789-' || n, 'price', NULL, \
    'usd', 1, 0, 10, 0, 0, 0, 5, 0, 0, 0, 0, 0, 1000000 FROM counted";

/// What this process has of memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn by_tag(most: u32) -> SumPage {
    let filter = Filter { from: Some(Timestamp(0)), until: Some(Timestamp(3_600_000 * 600)), ..Filter::default() };
    SumPage { filter, by: vec![Dimension::Tag], after: None, most }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reports_over_150_000_tags_take_no_memory_for_them_and_budgets_are_told_meanwhile() {
    use sqlx::Connection;
    let home = tempfile::tempdir().unwrap();
    let store = open("sqlite:sluice.db", home.path()).await;
    let mut other =
        sqlx::AnyConnection::connect(&format!("sqlite://{}/sluice.db", home.path().display())).await.unwrap();
    sqlx::raw_sql(TAGS).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let before = resident();
    let (ended, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(before as usize)));
    let reports: Vec<_> = (0..10)
        .map(|_| {
            let (store, ended) = (Arc::clone(&store), Arc::clone(&ended));
            tokio::spawn(async move {
                let sums = store.sums_page(&by_tag(2)).await.unwrap();
                ended.fetch_add(1, Ordering::SeqCst);
                sums
            })
        })
        .collect();
    let watched = Arc::clone(&most);
    let watch = tokio::spawn(async move {
        loop {
            watched.fetch_max(resident() as usize, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // What the purse and the register ask: eight at once, so that they would stand in line.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    for _ in 0..8 {
        store.balances_of(&[Account::Tenant(TenantId::new("acme"))]).await.unwrap();
        store.snapshot(Some(1)).await.unwrap();
    }
    let (took, still) = (began.elapsed(), 10 - ended.load(Ordering::SeqCst));
    assert!(still > 2, "they took {took:?} while {still} reports were under way or waited");
    for report in reports {
        let sums = report.await.unwrap();
        let tags: Vec<_> = sums.iter().map(|sum| sum.of[0].as_deref().unwrap()).collect();
        assert_eq!(tags, ["request-0123456789-0", "request-0123456789-1"]);
    }
    watch.abort();
    let grown = most.load(Ordering::SeqCst) as u64 - before;
    assert!(grown < GROWTH, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_that_nobody_waits_for_any_more_hold_up_no_small_question() {
    use sqlx::Connection;
    let home = tempfile::tempdir().unwrap();
    let store = open("sqlite:sluice.db", home.path()).await;
    let mut other =
        sqlx::AnyConnection::connect(&format!("sqlite://{}/sluice.db", home.path().display())).await.unwrap();
    sqlx::raw_sql(TAGS).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let filter = Filter { tenants: vec![TenantId::new("acme")], ..Filter::default() };
    // By tag: it takes as long as adding up a tenant with many more rows.
    let sum = || store.sums(&filter, &[Dimension::Tag]);
    let began = Instant::now();
    // As long as the database takes before it has a first row to give.
    assert_eq!(store.sums_page(&by_tag(1)).await.unwrap().len(), 1);
    let whole = began.elapsed();
    for _ in 0..6 {
        assert!(tokio::time::timeout(Duration::from_millis(20), sum()).await.is_err(), "given up");
    }
    let began = Instant::now();
    store.balances_of(&[Account::Tenant(TenantId::new("acme"))]).await.unwrap();
    assert!(began.elapsed() < whole / 2, "{:?} of {whole:?}", began.elapsed());
}

#[tokio::test]
async fn a_report_that_finds_no_place_is_told_so_in_its_time_and_nothing_else_waits_for_one() {
    use sqlx::Connection;
    let postgres = Postgres::start();
    let url = postgres.database();
    let store = {
        let settings = infrastructure::store::StorageSettings {
            report_timeout_ms: kernel::settings::Millis(2_000),
            ..settings(&url)
        };
        infrastructure::store::Store::open(&settings, std::path::Path::new("/")).await.unwrap()
    };
    store.ready().await.unwrap();
    // What reports read is locked: those that have a place keep it for their time.
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE sums").execute(&mut other).await.unwrap();
    let report = || {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.sums_page(&by_tag(2)).await })
    };
    let reports: Vec<_> = (0..20).map(|_| report()).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    store.balances_of(&[Account::Tenant(TenantId::new("acme"))]).await.unwrap();
    store.snapshot(Some(1)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for report in reports {
        assert!(matches!(report.await.unwrap(), Err(Fault::Down(_))));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(store.sums_page(&by_tag(2)).await.unwrap(), [], "their places are free again");
}
