//! Killed at any moment, Sluice has every charge exactly once: what clients have received is in the ledger, nothing is
//! twice, and what was paid and what is owed add up. On SQLite and on PostgreSQL.
//!
//! `SLUICE_CRASHES` says how often it is killed, `SLUICE_SEED` repeats a run's moments (not what they meet).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;
mod money;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use infrastructure::store::{StorageSettings, StorageUrl, Store};
use kernel::random::Random;
use kernel::store::Ledger;
use kernel::store::ledger::{Account, Charge, Ending, Filter};
use kernel::{Currency, Money, TenantId, Timestamp};
use money::{CHAT, SOON, Told, chat, key, settled, tenant};
use testkit::{Plan, Postgres, Script, Sluice, Upstream, Wire, delta, request_bytes};

/// Kills of each store where nobody says how many: some three seconds.
const CRASHES: usize = 6;
/// Clients who call one after the other.
const CLIENTS: u64 = 6;
/// The longest answer, in words; a word takes about a millisecond.
const WORDS_MAX: u64 = 60;
/// The latest that a kill comes after the first call.
const LATEST: u64 = 120;
/// The latest that a second kill comes after a start: in the middle of posting what the first one left.
const AGAIN: u64 = 40;
const INPUT: u64 = 3;
/// So many kills meet everything that there is to be met.
const MANY: usize = 50;
/// Pages of charges.
const PAGE: u32 = 1000;

/// What a client has of an answer.
#[derive(Debug, Clone, Copy)]
enum Got {
    /// All of it, of so many tokens.
    Whole(u64),
    /// A part of so many words, of so many.
    Part(u64, u64),
}

/// What was seen over all kills.
#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    whole: usize,
    parts: usize,
    charges: usize,
    /// Charged by the next process, because the killed one had left them open.
    killed: usize,
    /// Not in the store yet at the kill.
    posted_late: usize,
}

/// So many words, whole or one by one. Without usage where it is odd and streams: then it is counted.
fn backend() -> Plan {
    Plan::made(|request| {
        let body = request.json();
        let words = body["max_tokens"].as_u64().unwrap();
        let told = Told { input: INPUT, output: words, ..Told::default() };
        if body["stream"] != true {
            let time = Duration::from_millis(words / 4);
            return Script::new().pause(time).then(Script::json(200, told.whole("hello")));
        }
        let flowing = (0..words)
            .fold(Script::sse_head(), |script, _| script.event(delta("m", " hello")).pause(Duration::from_millis(1)));
        if words % 2 == 1 { flowing.done() } else { flowing.event(told.event()).done() }
    })
}

/// Calls until the server is gone; gives what came of each call, by its id.
async fn call(url: String, name: String, seed: u64) -> Vec<(String, Got)> {
    let random = Random::seeded(seed);
    let mut got = Vec::new();
    for nth in 0.. {
        let id = format!("{name}-{nth}");
        let words = 1 + random.next() % WORDS_MAX;
        let stream = random.below(3) > 0;
        let more = format!(r#","max_tokens":{words}{}"#, if stream { r#","stream":true"# } else { "" });
        let Ok(mut wire) = Wire::connect(&url).await else { return got };
        let bearer = format!("Bearer {}", key("a"));
        let headers = [("authorization", bearer.as_str()), ("x-request-id", id.as_str())];
        if wire.send(request_bytes("POST", CHAT, &headers, chat("m", &more))).await.is_err() {
            return got;
        }
        let Ok(answer) = wire.answer(SOON).await else { return got };
        assert_eq!(answer.status(), 200, "{id}: {}", answer.text());
        let events = answer.events();
        let whole = answer.is_complete() && (!stream || events.iter().any(|event| event.data == "[DONE]"));
        if whole {
            got.push((id, Got::Whole(words)));
            continue;
        }
        let came = events.iter().filter(|event| event.data.contains("hello")).count() as u64;
        got.push((id, Got::Part(if stream { came } else { 0 }, words)));
        return got;
    }
    got
}

/// All charges from a time on.
async fn charges(store: &Store, from: Option<Timestamp>) -> Vec<Charge> {
    let filter = Filter { tenant: Some(TenantId::new("acme")), from, ..Filter::default() };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.charges(&filter, after, PAGE).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some((last.at, last.id));
        all.extend(page);
    }
}

/// Waits until the ledger has all that was ever owed: what comes last is posted last.
async fn drained(sluice: &Sluice, store: &Store, probe: &str, from: Timestamp) -> Vec<Charge> {
    let bearer = format!("Bearer {}", key("a"));
    let headers = [("authorization", bearer.as_str()), ("x-request-id", probe)];
    let answer = testkit::post(&sluice.url(CHAT), &headers, chat("m", r#","max_tokens":1"#)).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let deadline = Instant::now() + SOON;
    loop {
        let found = charges(store, Some(from)).await;
        if found.iter().any(|charge| charge.request.to_string() == probe) {
            settled(sluice).await;
            return charges(store, Some(from)).await;
        }
        assert!(Instant::now() < deadline, "{probe} never came to the ledger");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What clients got and what the ledger says are the same.
fn compare(got: &[(String, Got)], found: &[Charge], probe: &str, seen: &mut Seen) {
    let mut of: HashMap<String, Vec<&Charge>> = HashMap::new();
    for charge in found {
        of.entry(charge.request.to_string()).or_default().push(charge);
    }
    for (id, charges) in &of {
        assert_eq!(charges.len(), 1, "{id} is charged more than once: {charges:#?}");
        seen.killed += usize::from(charges[0].ending == Ending::GatewayKilled);
    }
    seen.charges += of.len();
    assert!(of.contains_key(probe));
    for (id, got) in got {
        let charge = of.get(id).map(|charges| charges[0]);
        match (*got, charge) {
            (Got::Whole(words), Some(charge)) => {
                seen.whole += 1;
                let said = (charge.ending, charge.usage.output.0);
                assert_eq!(said, (Ending::Complete, words), "{id}: {charge:#?}");
                assert!(charge.usage.estimated || charge.usage.input.0 == INPUT, "{id}: {charge:#?}");
            }
            (Got::Part(came, words), Some(charge)) => {
                seen.parts += 1;
                let (charged, off) = (charge.usage.output.0, (came / 100).max(2));
                assert!(charged + off >= came && charged <= words, "{id}: {came} of {words} came: {charge:#?}");
            }
            (Got::Part(0, _), None) => seen.parts += 1,
            (got, None) => panic!("{id} is not in the ledger, and its client has {got:?}"),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?.into_string().unwrap();
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number: {text}")))
}

async fn crash(url: Option<String>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SLUICE_SEED").unwrap_or(now.as_secs() ^ u64::from(now.subsec_nanos()));
    let kills = number("SLUICE_CRASHES").map_or(CRASHES, |kills| usize::try_from(kills).unwrap());
    println!("SLUICE_SEED={seed} SLUICE_CRASHES={kills}");
    let random = Random::seeded(seed);

    let upstream = Upstream::start(backend());
    let storage = url.as_ref().map_or_else(String::new, |url| format!("storage: {{ url: \"{url}\" }}\n"));
    let plans = "plans: [ { name: p, budgets: [ { limit: \"1000000\", per: total } ] } ]\n";
    let sections = format!("{storage}{plans}tenants:\n{}", tenant("acme", "p", &["a"]));
    let mut sluice = Sluice::start(money::config(&upstream, &sections)).await;
    let settings = StorageSettings {
        url: url.as_ref().map_or_else(|| StorageSettings::default().url, StorageUrl::new),
        ..StorageSettings::default()
    };
    let store: Arc<Store> = Store::open(&settings, &sluice.launched().data_dir()).await.unwrap();

    let mut seen = Seen::default();
    for nth in 0..kills {
        let from = Timestamp::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(call(sluice.url(""), format!("{nth}-{client}"), random.next())))
            .collect();
        tokio::time::sleep(Duration::from_millis(random.next() % LATEST)).await;
        sluice.kill();
        seen.kills += 1;
        let mut got = Vec::new();
        for client in clients {
            got.extend(client.await.unwrap());
        }
        let before = charges(&store, Some(from)).await.len();
        sluice = sluice.restarted().await;
        if random.below(3) == 0 {
            tokio::time::sleep(Duration::from_millis(random.next() % AGAIN)).await;
            sluice = sluice.restarted().await;
            seen.kills += 1;
        }
        let probe = format!("{nth}-probe");
        let found = drained(&sluice, &store, &probe, from).await;
        seen.posted_late += found.len().saturating_sub(before + 1);
        compare(&got, &found, &probe, &mut seen);
        assert_eq!(store.audit().await.unwrap(), Vec::<String>::new(), "after kill {nth}");
    }

    let all = charges(&store, None).await;
    assert_eq!(all.len(), seen.charges, "nothing was added to what had been looked at");
    let owed: Money = all.iter().map(|charge| charge.amount).sum();
    let balance = store.balance(&Account::Tenant(TenantId::new("acme")), Currency::USD).await.unwrap();
    assert_eq!((balance.debits, balance.credits), (owed, Money::ZERO));
    let earned = store.balance(&Account::Revenue, Currency::USD).await.unwrap();
    assert_eq!((earned.credits, earned.debits), (owed, Money::ZERO), "what one owes the other has earned");
    assert!(seen.whole > 0, "there was a load: {seen:?}");
    // Of a few kills all may come at a quiet moment.
    assert!(kills < MANY || (seen.killed > 0 && seen.posted_late > 0), "none came in the middle of anything: {seen:?}");
    println!("{seen:?}, {owed} usd");
}

#[tokio::test]
async fn killed_at_any_moment_every_charge_is_there_once_on_sqlite() {
    crash(None).await;
}

#[tokio::test]
async fn killed_at_any_moment_every_charge_is_there_once_on_postgresql() {
    let postgres = Postgres::start();
    crash(Some(postgres.database())).await;
}
