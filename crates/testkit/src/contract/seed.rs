//! What config files declare.

use kernel::store::ledger::Batch;
use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Seed, Source, TenantRow};
use kernel::{KeyId, TenantId};

use super::Shared;
use super::posting::charge;
use super::tenants::{at, key, plan, price, tenant};

fn declared(id: &str, on: Option<&str>) -> TenantRow {
    TenantRow { source: Source::Config, plan: on.map(Into::into), ..tenant(id) }
}

fn declared_key(id: &str, tenant: &str) -> KeyRow {
    KeyRow { source: Source::Config, ..key(id, tenant) }
}

fn seed() -> Seed {
    Seed {
        tenants: vec![declared("acme", Some("pro")), declared("lab", None)],
        keys: vec![declared_key("k1", "acme"), declared_key("k2", "acme"), declared_key("k3", "lab")],
        plans: vec![PlanRow { source: Source::Config, ..plan("pro", "a") }],
        prices: vec![PriceRow { source: Source::Config, ..price("p1") }],
    }
}

fn names(seen: &kernel::store::registry::Snapshot) -> (Vec<&str>, Vec<&str>, Vec<&str>, Vec<&str>) {
    let mut keys: Vec<&str> = seen.keys.iter().map(|row| row.id.as_str()).collect();
    keys.sort_unstable();
    (
        seen.tenants.iter().map(|row| row.id.as_str()).collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
        keys,
        seen.plans.iter().map(|row| row.id.as_str()).collect(),
        seen.prices.iter().map(|row| row.id.as_str()).collect(),
    )
}

pub(super) async fn the_same_seed_again_changes_nothing(one: Shared, two: Shared) {
    assert_eq!(one.seed(seed()).await.unwrap(), Vec::<String>::new());
    let before = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!(names(&before), (vec!["acme", "lab"], vec!["k1", "k2", "k3"], vec!["pro@a"], vec!["p1"]));
    assert_eq!(one.subscriptions(&TenantId::new("acme")).await.unwrap().len(), 1);
    one.used(&[(KeyId::new("k1"), at(9))]).await.unwrap();
    // The same file read later: its rows are made anew.
    let mut again = seed();
    again.tenants.iter_mut().for_each(|row| (row.created, row.updated) = (at(70), at(70)));
    again.keys.iter_mut().for_each(|row| row.created = at(70));
    again.plans.iter_mut().for_each(|row| row.created = at(70));
    again.prices.iter_mut().for_each(|row| row.created = at(70));
    assert_eq!(two.seed(again).await.unwrap(), Vec::<String>::new());
    assert_eq!(one.snapshot(Some(before.revision)).await.unwrap(), None, "not even the revision");
    assert_eq!(one.keys(&TenantId::new("acme")).await.unwrap()[0].used, Some(at(9)));
}

pub(super) async fn a_seed_takes_the_place_of_the_one_before(one: Shared, two: Shared) {
    one.seed(seed()).await.unwrap();
    let mut next = seed();
    next.tenants = vec![TenantRow { updated: at(80), ..declared("acme", Some("big")) }, declared("new", None)];
    next.keys = vec![
        KeyRow { terms: "{\"rps\":1}".into(), ..declared_key("k1", "acme") },
        // A key under another id, with the hash of one that goes.
        KeyRow { hash: key("k2", "acme").hash, ..declared_key("k9", "new") },
    ];
    next.plans = vec![PlanRow { source: Source::Config, ..plan("big", "a") }];
    next.prices = vec![PriceRow { source: Source::Config, ..price("p2") }];
    assert_eq!(two.seed(next).await.unwrap(), Vec::<String>::new());
    let seen = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!(names(&seen), (vec!["acme", "new"], vec!["k1", "k9"], vec!["big@a", "pro@a"], vec!["p2"]));
    assert_eq!(seen.keys.iter().find(|row| row.id.as_str() == "k1").unwrap().terms, "{\"rps\":1}");
    // Bills refer to plans and prices: out of force, not gone.
    let plans = one.plans().await.unwrap();
    assert!(plans.iter().any(|row| row.id == "pro@a" && row.retired.is_some()), "{plans:?}");
    let prices = one.prices().await.unwrap();
    assert!(prices.iter().any(|row| row.id == "p1" && row.withdrawn.is_some()), "{prices:?}");
    let subscriptions = one.subscriptions(&TenantId::new("acme")).await.unwrap();
    let on: Vec<_> = subscriptions.iter().map(|row| (row.plan.as_str(), row.until)).collect();
    assert_eq!(on, [("pro", Some(at(80))), ("big", None)]);
    // And back: what was out of force is in force again.
    one.seed(seed()).await.unwrap();
    let seen = two.snapshot(None).await.unwrap().unwrap();
    assert_eq!(names(&seen), (vec!["acme", "lab"], vec!["k1", "k2", "k3"], vec!["big@a", "pro@a"], vec!["p1"]));
    assert_eq!(seen.plans.iter().find(|row| row.name == "pro").unwrap().retired, None);
}

pub(super) async fn a_seed_leaves_alone_what_came_by_the_api(one: Shared, two: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    one.make_key(key("k1", "acme")).await.unwrap();
    one.enter_plan(plan("pro", "mine")).await.unwrap();
    one.enter_price(price("p1")).await.unwrap();
    let mut skipped = two.seed(seed()).await.unwrap();
    skipped.sort();
    assert_eq!(skipped, ["acme", "k1", "p1", "pro@a"]);
    let seen = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!(names(&seen), (vec!["acme", "lab"], vec!["k1", "k2", "k3"], vec!["pro@mine"], vec!["p1"]));
    // A key somebody made for a declared tenant keeps it there, suspended, when the config drops it.
    one.make_key(key("k7", "lab")).await.unwrap();
    two.seed(Seed::default()).await.unwrap();
    let seen = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!(names(&seen), (vec!["acme", "lab"], vec!["k1", "k7"], vec!["pro@mine"], vec!["p1"]));
    let suspended: Vec<_> = seen.tenants.iter().map(|row| row.suspended).collect();
    assert_eq!(suspended, [false, true]);
}

pub(super) async fn a_seeded_tenant_with_charges_stays_suspended_and_comes_back(one: Shared, two: Shared) {
    one.seed(seed()).await.unwrap();
    let batch = Batch { charges: vec![charge("acme", 1)], transfers: Vec::new() };
    one.post(&batch).await.unwrap();
    two.seed(Seed::default()).await.unwrap();
    let seen = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!((seen.tenants.len(), seen.tenants[0].suspended, seen.keys.len()), (1, true, 0));
    assert!(one.subscriptions(&TenantId::new("acme")).await.unwrap()[0].until.is_some());
    two.seed(Seed::default()).await.unwrap();
    assert_eq!(one.snapshot(Some(seen.revision)).await.unwrap(), None, "it is suspended once");
    one.seed(seed()).await.unwrap();
    let seen = two.snapshot(None).await.unwrap().unwrap();
    assert_eq!((seen.tenants.len(), seen.tenants[0].suspended, seen.keys.len()), (2, false, 3));
    let subscriptions = two.subscriptions(&TenantId::new("acme")).await.unwrap();
    assert_eq!(subscriptions.iter().filter(|row| row.until.is_none()).count(), 1);
}

pub(super) async fn a_seeded_key_that_was_revoked_stays_revoked(one: Shared, two: Shared) {
    one.seed(seed()).await.unwrap();
    let acme = TenantId::new("acme");
    one.revoke_key(&acme, &KeyId::new("k1"), at(5)).await.unwrap();
    two.seed(seed()).await.unwrap();
    assert_eq!(one.keys(&acme).await.unwrap()[0].revoked, Some(at(5)), "a restart lets nobody in again");
}

pub(super) async fn two_who_seed_the_same_at_once_seed_it_once(one: Shared, two: Shared) {
    let before = one.snapshot(None).await.unwrap().unwrap().revision;
    let seeding: Vec<_> = (0..6)
        .map(|who| {
            let books = if who % 2 == 0 { one.clone() } else { two.clone() };
            tokio::spawn(async move { books.seed(seed()).await })
        })
        .collect();
    for seeded in seeding {
        assert_eq!(seeded.await.unwrap().unwrap(), Vec::<String>::new());
    }
    let seen = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!(seen.revision, before + 1);
    assert_eq!(seen.tenants.len(), 2);
}
