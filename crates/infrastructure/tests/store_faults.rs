//! The store while its PostgreSQL is stopped, hangs, is killed or has not started yet.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod places;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use infrastructure::store::Store;
use kernel::store::ledger::{Batch, Charge, Dimension, Filter};
use kernel::store::{Fault, Ledger, Registry};
use places::{TIMEOUT, open};
use testkit::Postgres;
use testkit::contract::{charge, tenant};
use tokio::time::sleep;

/// What a time-out may be late by on a busy test machine.
const LATE: Duration = Duration::from_millis(1_500);

fn batch(charges: Vec<Charge>) -> Batch {
    let transfers = charges.iter().filter_map(Charge::transfer).collect();
    Batch { charges, transfers }
}

/// The fault is `Down`, shows no password, and came in time.
fn assert_down<T: std::fmt::Debug>(outcome: &Result<T, Fault>, since: Instant) {
    let took = since.elapsed();
    assert!(took < TIMEOUT.duration() + LATE, "took {took:?}");
    let Err(Fault::Down(why)) = outcome else { panic!("{outcome:?}") };
    assert!(!why.contains(Postgres::PASSWORD) && why.contains("postgres://app:***@127.0.0.1"), "{why}");
}

/// Every kind of work is down, each within its time-out.
async fn assert_all_down(store: &Store) {
    let since = Instant::now();
    assert_down(&store.post(&batch(vec![charge("acme", 1)])).await, since);
    let since = Instant::now();
    assert_down(&store.snapshot(Some(1)).await, since);
    let since = Instant::now();
    assert_down(&store.make_tenant(tenant("new")).await, since);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_stops_hangs_or_is_killed_is_down_in_time_and_heals_by_itself() {
    let mut postgres = Postgres::start();
    let store = open(&postgres.database(), Path::new("/")).await;
    store.post(&batch(vec![charge("acme", 1)])).await.unwrap();

    postgres.hang();
    assert_all_down(&store).await;
    postgres.resume();
    store.post(&batch(vec![charge("acme", 2)])).await.expect("it goes on");

    postgres.stop();
    let since = Instant::now();
    assert_down(&store.post(&batch(vec![charge("acme", 3)])).await, since);
    assert!(since.elapsed() < Duration::from_secs(1), "a refused connection is told at once");
    postgres.launch();
    store.post(&batch(vec![charge("acme", 3)])).await.expect("it is back");

    // Idle connections are dead, and nobody said so.
    postgres.kill();
    postgres.launch();
    assert!(store.snapshot(Some(0)).await.expect("it is back").is_some());
    store.post(&batch(vec![charge("acme", 4)])).await.expect("it is back");
    assert_eq!(store.sums(&Filter::default(), &[]).await.unwrap()[0].calls, 4);
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opened_before_its_postgres_is_there_comes_to_life_with_it() {
    let mut postgres = Postgres::start();
    let url = postgres.database();
    postgres.stop();
    let since = Instant::now();
    let store = open(&url, Path::new("/")).await;
    assert!(since.elapsed() < Duration::from_secs(1), "opening waits for nobody");
    assert_all_down(&store).await;
    postgres.launch();
    store.make_tenant(tenant("acme")).await.expect("the schema came with the first contact");

    // The same with one that hangs: opening waits no longer than for any answer.
    let other = postgres.database();
    postgres.hang();
    let since = Instant::now();
    let store = open(&other, Path::new("/")).await;
    assert!(since.elapsed() < TIMEOUT.duration() + LATE, "{:?}", since.elapsed());
    postgres.resume();
    store.make_tenant(tenant("acme")).await.expect("the schema came with the first contact");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_charge_is_lost_or_doubled_while_postgres_comes_and_goes_under_load() {
    const POSTERS: usize = 4;
    const BATCH: usize = 50;
    let mut postgres = Postgres::start();
    let url = postgres.database();
    let stores = [open(&url, Path::new("/")).await, open(&url, Path::new("/")).await];
    let ended = Arc::new(AtomicBool::new(false));
    let posting: Vec<_> = (0..POSTERS)
        .map(|who| {
            let (store, ended) = (Arc::clone(&stores[who % 2]), Arc::clone(&ended));
            tokio::spawn(async move {
                let (mut sent, mut faults) = (0, 0);
                while !ended.load(Ordering::Relaxed) {
                    let charges = (0..BATCH).map(|number| charge(&format!("t{who}"), number as i64)).collect();
                    let batch = batch(charges);
                    // As a bookkeeper does: the same batch until it is taken.
                    loop {
                        match store.post(&batch).await {
                            Ok(_) => break,
                            Err(Fault::Down(_)) => faults += 1,
                            Err(other) => panic!("{other}"),
                        }
                        sleep(Duration::from_millis(20)).await;
                    }
                    sent += BATCH as u64;
                }
                (sent, faults)
            })
        })
        .collect();
    for _ in 0..3 {
        sleep(Duration::from_millis(300)).await;
        postgres.kill();
        sleep(Duration::from_millis(100)).await;
        postgres.launch();
        sleep(Duration::from_millis(300)).await;
        postgres.hang();
        sleep(TIMEOUT.duration() + Duration::from_millis(200)).await;
        postgres.resume();
        sleep(Duration::from_millis(300)).await;
        postgres.stop();
        postgres.launch();
    }
    ended.store(true, Ordering::Relaxed);
    let mut faults = 0;
    for (who, poster) in posting.into_iter().enumerate() {
        let (sent, failed) = poster.await.unwrap();
        faults += failed;
        let filter = Filter { tenant: Some(kernel::TenantId::new(format!("t{who}"))), ..Filter::default() };
        let sums = stores[0].sums(&filter, &[Dimension::Tenant]).await.unwrap();
        assert_eq!(sums[0].calls, sent, "of poster {who}");
    }
    assert!(faults > 0, "the faults were felt");
    assert_eq!(stores[1].audit().await.unwrap(), Vec::<String>::new());
}
