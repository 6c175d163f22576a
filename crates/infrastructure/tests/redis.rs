//! Shared counters in a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use infrastructure::redis::{Redis, RedisSettings, Spent};
use kernel::TenantId;
use kernel::settings::{Findings, Secret};
use kernel::share::{Grant, Once, Order, Share, Wish};
use kernel::store::Fault;

/// Past the time-outs of an exchange and of a connection.
const SOON: Duration = Duration::from_millis(400);

fn node(server: &testkit::Redis) -> Arc<Redis> {
    Redis::new(&RedisSettings(Secret::new(server.url()))).unwrap()
}

fn order(tenant: &str, wish: Wish) -> Order {
    Order { tenant: TenantId::new(tenant), counter: "t:x".to_owned(), wish }
}

/// A hundred per minute: nothing to speak of comes back while a test runs.
fn rate(want: u64, owed: i64) -> Wish {
    Wish::Rate { units: 100, period: 60_000_000, want, owed }
}

async fn one(node: &Redis, wish: Wish) -> (u64, u64) {
    let grants = node.exchange(&[order("acme", wish)]).await.unwrap();
    let [Grant { units, left, .. }] = grants[..] else { panic!("{grants:?}") };
    (units, left)
}

#[tokio::test]
async fn units_are_drawn_as_far_as_there_are_any_charged_beyond_and_given_back() {
    let server = testkit::Redis::start();
    let (a, b) = (node(&server), node(&server));
    assert_eq!(one(&a, rate(60, 0)).await, (60, 40));
    assert_eq!(one(&b, rate(60, 0)).await, (40, 0), "what is left");
    assert_eq!(one(&a, rate(1, 0)).await, (0, 0));
    assert_eq!(one(&a, rate(0, -30)).await, (0, 30), "given back");
    assert_eq!(one(&b, rate(10, 70)).await, (0, 0), "charged beyond what there is");
    let told = b.exchange(&[order("acme", rate(1, 0))]).await.unwrap()[0].next;
    // Forty are owed beyond, and one is to be had: at a hundred a minute.
    assert!((23.0..25.0).contains(&told.as_secs_f64()), "{told:?}");
    assert_eq!(one(&a, rate(0, -1000)).await, (0, 100), "never more than there were");
    assert!(server.ask("EXISTS sluice:limit:4:{acme}:t:x").starts_with(":0"), "what is full takes no room");
}

#[tokio::test]
async fn what_was_taken_comes_back_evenly_by_the_servers_clock() {
    let server = testkit::Redis::start();
    let node = node(&server);
    let fast = |want| Wish::Rate { units: 1000, period: 1_000_000, want, owed: 0 };
    assert_eq!(one(&node, fast(1000)).await.0, 1000);
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (came_back, _) = one(&node, fast(1000)).await;
    let most = since.elapsed().as_secs_f64() * 1000.0 + 25.0;
    assert!((195.0..=most).contains(&(came_back as f64)), "{came_back} of {most}");
}

#[tokio::test]
async fn many_orders_of_many_tenants_go_in_one_exchange_and_are_kept_apart() {
    let server = testkit::Redis::start();
    let node = node(&server);
    let tenants: Vec<String> = (0..50).map(|at| format!("t{at}}}:{{x")).collect();
    let orders: Vec<Order> = tenants
        .iter()
        .flat_map(|tenant| [order(tenant, rate(7, 0)), Order { counter: "k".into(), ..order(tenant, rate(9, 0)) }])
        .collect();
    for round in 1..=3 {
        let grants = node.exchange(&orders).await.unwrap();
        let found: Vec<(u64, u64)> = grants.iter().map(|grant| (grant.units, grant.left)).collect();
        let wanted = [(7, 100 - 7 * round), (9, 100 - 9 * round)].repeat(50);
        assert_eq!(found, wanted);
    }
    assert_eq!(node.exchange(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn places_are_held_by_process_and_those_of_one_that_is_gone_come_back() {
    let server = testkit::Redis::start();
    let (a, b) = (node(&server), node(&server));
    let places = |want, busy| Wish::Places { limit: 10, want, busy };
    assert_eq!(one(&a, places(6, 2)).await, (6, 4));
    assert_eq!(one(&b, places(6, 1)).await, (4, 0));
    assert_eq!(one(&a, places(3, 2)).await, (3, 3), "given back");
    assert_eq!(one(&b, places(2, 9)).await, (9, 0), "what is taken is held");
    assert_eq!(one(&a, places(0, 0)).await, (0, 1));
    tokio::time::sleep(kernel::share::HELD_FOR + Duration::from_millis(100)).await;
    assert_eq!(one(&a, places(10, 0)).await, (10, 0), "the other has said nothing for long");
}

#[tokio::test]
async fn processes_are_counted_while_they_live() {
    let server = testkit::Redis::start();
    let (a, b) = (node(&server), node(&server));
    assert_eq!((a.beat().await.unwrap(), b.beat().await.unwrap(), a.beat().await.unwrap()), (1, 2, 2));
    tokio::time::sleep(kernel::share::GONE_AFTER + Duration::from_millis(100)).await;
    assert_eq!(b.beat().await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_in_time_and_used_again_when_it_goes_on_or_starts_anew() {
    let mut server = testkit::Redis::start();
    let node = node(&server);
    assert_eq!(one(&node, rate(10, 0)).await.0, 10);
    server.hang();
    for _ in 0..3 {
        let since = Instant::now();
        assert!(matches!(node.exchange(&[order("acme", rate(1, 0))]).await, Err(Fault::Down(_))));
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }
    server.go_on();
    // The exchange that was sent and given up was carried out all the same.
    assert_eq!(one(&node, rate(10, 0)).await, (10, 79));
    server.restart();
    let mut again = node.exchange(&[order("acme", rate(10, 0))]).await;
    if again.is_err() {
        // The first one finds that its connection is gone.
        again = node.exchange(&[order("acme", rate(10, 0))]).await;
    }
    assert_eq!(again.unwrap()[0].left, 90, "a new one knows nothing");
    server.kill();
    assert!(node.beat().await.is_err());
}

#[test]
fn a_url_that_is_none_is_refused_and_never_shown() {
    let check = |url: &str| {
        let mut findings = Findings::default();
        let settings = RedisSettings(Secret::new(url));
        settings.validate("storage.redis", &mut findings);
        let said = format!("{:?} {settings:?}", findings.0);
        assert!(!said.contains("canary"), "{said}");
        findings.0.is_empty()
    };
    assert!(check("redis://127.0.0.1:6379") && check("rediss://user:canary@cache.example:6380/2"));
    assert!(!check("http://canary.example") && !check("canary") && !check(""));
}

/// A process's end of what counts once, with its connection.
fn spent(server: &testkit::Redis) -> Arc<Spent> {
    let spent = Spent::new(&RedisSettings(Secret::new(server.url()))).unwrap();
    let kept = Arc::clone(&spent);
    tokio::spawn(async move { kept.keep::<()>().await });
    spent
}

#[tokio::test]
async fn what_counts_once_counts_once_at_all_processes_for_as_long_as_it_is_remembered() {
    let server = testkit::Redis::start();
    let (a, b) = (spent(&server), spent(&server));
    let long = Duration::from_secs(60);
    assert!(a.first("one", long).await.unwrap());
    assert!(!b.first("one", long).await.unwrap() && !a.first("one", long).await.unwrap());
    assert!(b.first("two", Duration::from_millis(50)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(a.first("two", long).await.unwrap(), "forgotten in time");
    // Many at once, of which each counts once.
    let asked = (0..200).map(|at| {
        let node = if at % 2 == 0 { Arc::clone(&a) } else { Arc::clone(&b) };
        tokio::spawn(async move { node.first(&format!("many-{}", at / 4), long).await.unwrap() })
    });
    let mut first = 0;
    for asked in asked.collect::<Vec<_>>() {
        first += usize::from(asked.await.unwrap());
    }
    assert_eq!(first, 50);
}

#[tokio::test]
async fn who_asks_a_server_that_hangs_waits_once_and_is_then_told_at_once() {
    let server = testkit::Redis::start();
    let (node, long) = (spent(&server), Duration::from_secs(60));
    assert!(node.first("one", long).await.unwrap());
    server.hang();
    let since = Instant::now();
    assert!(matches!(node.first("two", long).await, Err(Fault::Down(_))));
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    tokio::time::sleep(SOON).await;
    let since = Instant::now();
    for _ in 0..100 {
        assert!(matches!(node.first("three", long).await, Err(Fault::Down(_))));
    }
    assert!(since.elapsed() < Duration::from_millis(50), "{:?}: nobody waits for what is known", since.elapsed());
    server.go_on();
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.first("four", long).await.is_err() {
        assert!(Instant::now() < deadline, "never again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!node.first("two", long).await.unwrap(), "what was asked and given up happened all the same");
}

#[tokio::test]
async fn money_that_is_spent_is_gone_and_what_is_held_comes_back() {
    let server = testkit::Redis::start();
    let (a, b) = (node(&server), node(&server));
    let funds = |mine, want, busy| Wish::Funds { limit: 9_000_000_000_000_000, mine, known: 0, want, busy };
    let all = 9_000_000_000_000_000;
    assert_eq!(one(&a, funds(0, 70, 0)).await, (70, all - 70));
    assert_eq!(one(&b, funds(0, all, 0)).await, (all - 70, 0), "what is left, to the last millionth");
    assert_eq!(one(&b, funds(30, 0, 0)).await, (0, all - 100), "what is spent is not given back");
    assert_eq!(one(&b, funds(30, 0, 0)).await, (0, all - 100), "told twice it counts once");
    assert_eq!(one(&a, funds(50, 30, 20)).await, (30, all - 110));
    assert_eq!(
        one(&a, Wish::Funds { limit: 100, mine: 50, known: 0, want: 60, busy: 25 }).await,
        (25, 0),
        "what is set aside is held"
    );
    assert_eq!(
        one(&b, Wish::Funds { limit: 200, mine: 30, known: 150, want: 60, busy: 0 }).await,
        (25, 0),
        "the ledger knows of more"
    );
    tokio::time::sleep(kernel::share::HELD_FOR + Duration::from_millis(100)).await;
    assert_eq!(
        one(&b, Wish::Funds { limit: 200, mine: 30, known: 150, want: 60, busy: 0 }).await,
        (50, 0),
        "who is gone holds nothing"
    );
    assert_eq!(
        one(&a, Wish::Funds { limit: 200, mine: 55, known: 0, want: 9, busy: 0 }).await,
        (0, 0),
        "and back, tells no more than is new"
    );
    assert_eq!(one(&b, Wish::Funds { limit: 200, mine: 30, known: 0, want: 60, busy: 0 }).await, (45, 0));
    let mixed = [
        order("lab", rate(60, 0)),
        Order { counter: "b".into(), ..order("lab", funds(0, 5, 0)) },
        Order { counter: "c".into(), ..order("lab", rate(7, 0)) },
    ];
    let units: Vec<u64> = a.exchange(&mixed).await.unwrap().iter().map(|grant| grant.units).collect();
    assert_eq!(units, [60, 5, 7], "kinds in one exchange");
}
