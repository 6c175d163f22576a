//! The disk of the data directory: full.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Answer, Plan, Script, Sluice, SmallDisk, Until, Upstream, delta};

use super::{TOLD, config};
use crate::console::{Console, program};
use crate::money::{CHAT, SOON, Shop, chat, settled};

/// Streams that are open when the disk becomes full.
const STREAMS: usize = 40;
/// Clients who call until nothing begins any more.
const CLIENTS: usize = 8;
/// How long a stream takes to end: longer than the disk takes to be full.
const TAKES: Duration = Duration::from_secs(8);
const DISK: u64 = 64 << 20;

/// Streams end late, other answers come at once.
fn backend() -> Plan {
    Plan::made(|request| {
        let body = request.json();
        if body["stream"] != true {
            return Script::json(200, TOLD.whole("hello"));
        }
        Script::sse_head().event(delta("m", "a")).pause(TAKES).event(delta("m", "b")).event(TOLD.event()).done()
    })
}

/// Calls until it is refused; gives how many were answered, and the refusal.
async fn until_refused(shop: &Shop, client: usize) -> (usize, Answer) {
    // Long names fill the files sooner.
    let (tag, deadline) = ("t".repeat(60), Instant::now() + TAKES);
    for nth in 0.. {
        let id = format!("{client}-{nth}-{}", "r".repeat(100));
        let headers = [("x-sluice-tag", tag.as_str()), ("x-request-id", id.as_str())];
        let answer = shop.post("a", CHAT, &headers, &chat("m", "")).await;
        if answer.status() != 200 {
            return (nth, answer);
        }
        assert!(Instant::now() < deadline, "the daybook is never full");
    }
    unreachable!("it is counted for ever")
}

#[tokio::test]
async fn a_full_disk_lets_nothing_begin_that_costs_and_what_has_begun_ends_and_is_charged_once() {
    let launch = Sluice::launch();
    let disk = SmallDisk::at(&launch.data_dir(), DISK);
    let upstream = Upstream::start(backend());
    let text = config(&upstream, "daybook_max: 16MiB, ") + "telemetry: { access_log: false }\n";
    let sluice = launch.program(disk.within(program())).config(text).start().await;
    // The admin token lies on the disk that only the server sees.
    std::fs::copy(disk.path("admin-token"), sluice.launched().data_dir().join("admin-token")).unwrap();
    let mut shop = Shop { upstream, console: Console(sluice) };

    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(shop.sent("a", CHAT, &[], &chat("m", r#","stream":true"#)).await);
    }
    assert!(shop.upstream.busy(STREAMS, SOON).await);
    disk.fill();
    let mut made = 0;
    let clients: Vec<_> = (0..CLIENTS).map(|client| until_refused(&shop, client)).collect();
    for (count, refusal) in all(clients).await {
        made += count;
        let said = (refusal.status(), refusal.header("retry-after"), refusal.json()["error"]["code"].clone());
        assert_eq!(said, (503, Some("5"), json!("no_capacity")), "{}", refusal.text());
    }
    assert!(shop.sluice().metrics().await.value("sluice_daybook_refused_total", &[]) >= 1.0, "the alarm goes off");
    assert!(logged(shop.sluice(), "the daybook is full").await, "the operator is told");
    let free = shop.post("a", CHAT, &[], &chat("free", "")).await;
    assert_eq!(free.status(), 200, "what costs nothing goes on: {}", free.text());
    for mut stream in streams {
        let answer = stream.answer(TAKES + SOON).await.unwrap();
        assert!(answer.status() == 200 && answer.events().iter().any(|event| event.data == "[DONE]"));
    }

    // Killed while there is still no room: what has ended is in the files.
    shop.console.0.kill();
    let launch = shop.console.0.relaunched().until(Until::Healthy);
    shop.console = Console(launch.start().await);
    let refused = shop.call("a", "").await;
    assert!(matches!(refused.status(), 200 | 503), "{}", refused.text());
    made += usize::from(refused.status() == 200);
    disk.empty();
    settled(shop.sluice()).await;
    let rows = shop.console.got("/admin/v1/usage?by=model&tenant=acme").await["rows"].clone();
    let calls =
        |model: &str| rows.as_array().unwrap().iter().find(|row| row["model"] == model).map(|row| row["calls"].clone());
    assert_eq!(calls("m"), Some(json!(STREAMS + made)), "each once: {rows}");
    let deadline = Instant::now() + SOON;
    while shop.call("a", "").await.status() != 200 {
        assert!(Instant::now() < deadline, "there is room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if refused.status() == 503 {
        assert!(logged(shop.sluice(), "the daybook has room again").await, "nobody was told that it is over");
    }
}

#[tokio::test]
async fn a_hanging_disk_may_hold_calls_up_and_loses_none() {
    let launch = Sluice::launch();
    let disk = SmallDisk::that_can_hang(&launch.data_dir(), DISK);
    let upstream = Upstream::start(backend());
    let sluice = launch.program(disk.within(program())).config(config(&upstream, "")).start().await;
    std::fs::copy(disk.path("admin-token"), sluice.launched().data_dir().join("admin-token")).unwrap();
    let shop = Shop { upstream, console: Console(sluice) };
    assert_eq!(shop.call("a", "").await.status(), 200);
    let hung = disk.hang();
    let mut sent = Vec::new();
    for _ in 0..STREAMS {
        sent.push(shop.sent("a", CHAT, &[], &chat("m", "")).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(hung);
    for mut call in sent {
        let answer = call.answer(SOON).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(shop.charges("acme").await.len(), STREAMS + 1, "each once");
}

/// Whether the operator's log comes to say so.
async fn logged(sluice: &Sluice, what: &str) -> bool {
    testkit::eventually(SOON, || sluice.stderr().contains(what) || sluice.stdout().contains(what)).await
}

/// All at once.
async fn all<T>(work: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut work: Vec<_> = work.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (work, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(result) = work.as_mut().poll(context)
            {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
