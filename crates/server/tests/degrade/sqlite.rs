//! SQLite: locked by others, without room, slow, on a disk that hangs.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};
use testkit::{Sluice, SmallDisk, Upstream};

use super::{TEN, TIMEOUT, TOLD, calls, changes_are_made, changes_are_refused, config, oldest, posted, sections, url};
use crate::console::{Console, program};
use crate::money::{Shop, settled};

/// How long a fault lasts: longer than the store is given, so that it is met by all that uses it.
const LASTS: Duration = Duration::from_secs(3);

/// The file of a running Sluice, opened by another process.
async fn opened(shop: &Shop) -> SqliteConnection {
    let file = shop.sluice().launched().data_dir().join("sluice.db");
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    other.execute("PRAGMA busy_timeout = 20000").await.unwrap();
    other
}

/// What both tenants do while SQLite takes nothing: `lab` has three of its ten calls behind it.
async fn away(shop: &Shop, reports: bool) -> usize {
    let (made, passed) = (calls(shop, LASTS).await, shop.passed("l", TEN).await);
    assert_eq!(passed, TEN - 3, "the budget of who is known is held to");
    changes_are_refused(shop, "meanwhile").await;
    if reports {
        let rows = shop.console.got("/admin/v1/usage?by=model&tenant=lab").await["rows"].clone();
        assert_eq!(rows[0]["calls"], 3, "what was posted before can be read: {rows}");
    }
    assert!(oldest(shop).await >= 1.0, "the alarm goes off");
    made
}

async fn before(shop: &Shop) {
    assert_eq!(shop.passed("l", 3).await, 3);
    settled(shop.sluice()).await;
}

#[tokio::test]
async fn a_locked_sqlite_holds_up_no_call_and_loses_no_charge() {
    let shop = Shop::open(TOLD.plan(), &sections("")).await;
    before(&shop).await;
    let mut other = opened(&shop).await;
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let made = away(&shop, true).await;
    other.execute("ROLLBACK").await.unwrap();
    changes_are_made(&shop, "later").await;
    posted(&shop, "acme", made).await;
    posted(&shop, "lab", TEN).await;
}

#[tokio::test]
async fn an_sqlite_that_is_locked_at_the_start_is_no_start_and_says_why() {
    let mut shop = Shop::open(TOLD.plan(), &sections("")).await;
    let mut other = opened(&shop).await;
    let launch = shop.console.0.relaunched();
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let exit = launch.fails().await;
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains("sluice.db") && exit.stderr.contains("locked"), "{}", exit.stderr);
    assert!(exit.took < 2 * TIMEOUT, "{:?}", exit.took);
}

#[tokio::test]
async fn a_slow_sqlite_is_posted_to_later() {
    let shop = Shop::open(TOLD.plan(), &sections("")).await;
    let mut other = opened(&shop).await;
    let until = Instant::now() + LASTS;
    let slow = tokio::spawn(async move {
        while Instant::now() < until {
            other.execute("BEGIN IMMEDIATE").await.unwrap();
            tokio::time::sleep(Duration::from_millis(250)).await;
            other.execute("ROLLBACK").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let made = calls(&shop, LASTS - Duration::from_secs(1)).await;
    changes_are_made(&shop, "meanwhile").await;
    slow.await.unwrap();
    posted(&shop, "acme", made).await;
}

/// How many threads a process has that work for SQLite.
fn sqlite_threads(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    named.filter(|name| name.starts_with("sqlx-sqlite")).count()
}

#[tokio::test]
async fn an_sqlite_whose_disk_hangs_holds_up_no_call_and_loses_no_charge() {
    let launch = Sluice::launch();
    let disk = SmallDisk::that_can_hang(&launch.home().join("slow"), 32 << 20);
    let upstream = Upstream::start(TOLD.plan());
    let text = config(&upstream, &url(&launch.home().join("slow/sluice.db")));
    let sluice = launch.program(disk.within(program())).config(text).start().await;
    let shop = Shop { upstream, console: Console(sluice) };
    before(&shop).await;
    let hung = disk.hang();
    let made = away(&shop, false).await;
    for nth in 0..3 {
        changes_are_refused(&shop, &format!("again {nth}")).await;
    }
    // One that writes, two that read, four that add up, two that report.
    assert!(sqlite_threads(shop.sluice().pid()) <= 9, "those that hang do not become more and more");
    drop(hung);
    changes_are_made(&shop, "later").await;
    posted(&shop, "acme", made).await;
    posted(&shop, "lab", TEN).await;
}

#[tokio::test]
async fn a_full_sqlite_holds_up_no_call_and_loses_no_charge() {
    let launch = Sluice::launch();
    let disk = SmallDisk::at(&launch.home().join("small"), 4 << 20);
    let upstream = Upstream::start(TOLD.plan());
    let text = config(&upstream, &url(&launch.home().join("small/sluice.db")));
    let sluice = launch.program(disk.within(program())).config(text).start().await;
    let shop = Shop { upstream, console: Console(sluice) };
    before(&shop).await;
    disk.fill();
    let made = away(&shop, true).await;
    disk.empty();
    changes_are_made(&shop, "later").await;
    posted(&shop, "acme", made).await;
    posted(&shop, "lab", TEN).await;
}
