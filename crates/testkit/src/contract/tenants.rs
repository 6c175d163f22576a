//! Tenants, their subscriptions, their keys.

use std::time::Duration;

use kernel::store::Fault;
use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Source, TenantRow};
use kernel::time::Timestamp;
use kernel::{KeyId, TenantId};

use super::Shared;

/// A point in time: so many milliseconds after some midnight.
pub(super) const fn at(millis: i64) -> Timestamp {
    Timestamp(1_790_000_000_000 - 1_790_000_000_000 % 86_400_000 + millis)
}

/// A tenant of the API without a plan.
pub fn tenant(id: &str) -> TenantRow {
    TenantRow {
        id: TenantId::new(id),
        source: Source::Api,
        plan: None,
        suspended: false,
        terms: "{}".into(),
        created: at(0),
        updated: at(0),
    }
}

pub(super) fn key(id: &str, tenant: &str) -> KeyRow {
    let mut hash = [7; 32];
    for (byte, letter) in hash.iter_mut().zip(id.bytes()) {
        *byte = letter;
    }
    KeyRow {
        id: KeyId::new(id),
        tenant: TenantId::new(tenant),
        source: Source::Api,
        name: format!("for {id}"),
        hash,
        terms: "{}".into(),
        created: at(0),
        expires: None,
        revoked: None,
        replaces: None,
        used: None,
    }
}

pub(super) fn plan(name: &str, version: &str) -> PlanRow {
    PlanRow {
        id: format!("{name}@{version}"),
        name: name.into(),
        source: Source::Api,
        terms: format!("{{\"version\":\"{version}\"}}"),
        created: at(0),
        again: Vec::new(),
        retired: None,
    }
}

pub(super) fn price(id: &str) -> PriceRow {
    PriceRow { id: id.into(), source: Source::Api, terms: "{}".into(), created: at(0), withdrawn: None }
}

pub(super) fn conflict<T: std::fmt::Debug>(outcome: &Result<T, Fault>) -> bool {
    matches!(outcome, Err(Fault::Conflict(_)))
}

async fn revision(books: &Shared) -> i64 {
    books.snapshot(None).await.unwrap().unwrap().revision
}

pub(super) async fn a_snapshot_comes_only_when_something_changed(one: Shared, two: Shared) {
    let empty = one.snapshot(None).await.unwrap().unwrap();
    assert!(empty.tenants.is_empty() && empty.keys.is_empty() && empty.plans.is_empty() && empty.prices.is_empty());
    assert_eq!(two.snapshot(Some(empty.revision)).await.unwrap(), None);
    one.make_tenant(tenant("acme")).await.unwrap();
    let seen = two.snapshot(Some(empty.revision)).await.unwrap().expect("a change");
    assert!(seen.revision > empty.revision);
    assert_eq!(seen.tenants, [tenant("acme")]);
    assert_eq!(one.snapshot(Some(seen.revision)).await.unwrap(), None);
}

pub(super) async fn every_change_is_in_the_snapshot_of_another_process(one: Shared, two: Shared) {
    let mut before = revision(&two).await;
    let (acme, k1, used) = (TenantId::new("acme"), KeyId::new("k1"), [(KeyId::new("k1"), at(5))]);
    let on_a_plan = TenantRow { plan: Some("pro".into()), updated: at(1), ..tenant("acme") };
    // In this order; what changes nothing raises nothing.
    let changes = [
        ("make tenant", one.make_tenant(tenant("acme")), true),
        ("make key", one.make_key(key("k1", "acme")), true),
        ("change key", one.change_key(KeyRow { terms: "{\"a\":1}".into(), ..key("k1", "acme") }), true),
        ("used", one.used(&used), false),
        ("enter plan", one.enter_plan(plan("pro", "a")), true),
        ("enter plan again", one.enter_plan(plan("pro", "a")), false),
        ("change tenant", one.change_tenant(on_a_plan, at(0)), true),
        ("enter price", one.enter_price(price("p")), true),
        ("enter price again", one.enter_price(price("p")), false),
        ("withdraw price", one.withdraw_price("p", at(9)), true),
        ("withdraw price again", one.withdraw_price("p", at(10)), false),
        ("revoke key", one.revoke_key(&acme, &k1, at(9)), true),
        ("revoke key again", one.revoke_key(&acme, &k1, at(10)), false),
    ];
    for (name, change, raises) in changes {
        change.await.unwrap();
        let after = revision(&two).await;
        assert_eq!(after > before, raises, "{name}");
        before = after;
    }
    let seen = two.snapshot(None).await.unwrap().unwrap();
    assert_eq!((seen.tenants.len(), seen.keys.len(), seen.plans.len(), seen.prices.len()), (1, 0, 1, 0));
}

pub(super) async fn a_tenant_is_made_once(one: Shared, two: Shared) {
    one.make_tenant(TenantRow { plan: Some("free".into()), ..tenant("acme") }).await.unwrap();
    let again = two.make_tenant(TenantRow { terms: "{\"other\":1}".into(), ..tenant("acme") }).await;
    assert!(conflict(&again), "{again:?}");
    let acme = TenantId::new("acme");
    assert_eq!(two.tenant(&acme).await.unwrap().unwrap().terms, "{}");
    let subscriptions = two.subscriptions(&acme).await.unwrap();
    assert_eq!(subscriptions.len(), 1);
    assert_eq!((subscriptions[0].plan.as_str(), subscriptions[0].from, subscriptions[0].until), ("free", at(0), None));
    assert_eq!(one.tenant(&TenantId::new("other")).await.unwrap(), None);
}

pub(super) async fn a_tenant_changed_meanwhile_is_a_conflict(one: Shared, two: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    one.change_tenant(TenantRow { suspended: true, updated: at(1), ..tenant("acme") }, at(0)).await.unwrap();
    let late = two.change_tenant(TenantRow { updated: at(2), ..tenant("acme") }, at(0)).await;
    assert!(conflict(&late), "{late:?}");
    assert!(two.tenant(&TenantId::new("acme")).await.unwrap().unwrap().suspended);
    assert_eq!(one.change_tenant(tenant("nobody"), at(0)).await, Err(Fault::Missing));
}

pub(super) async fn of_two_who_change_a_tenant_at_once_one_wins(one: Shared, two: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    let attempts: Vec<_> = (0..8)
        .map(|who| {
            let books = if who % 2 == 0 { one.clone() } else { two.clone() };
            // All in the same millisecond as the row they saw.
            let row = TenantRow { terms: format!("{{\"who\":{who}}}"), ..tenant("acme") };
            tokio::spawn(async move { (who, books.change_tenant(row, at(0)).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            (who, Ok(())) => winners.push(who),
            (_, outcome) => assert!(conflict(&outcome), "{outcome:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let row = two.tenant(&TenantId::new("acme")).await.unwrap().unwrap();
    assert_eq!(row.terms, format!("{{\"who\":{}}}", winners[0]));
}

pub(super) async fn a_change_of_plan_ends_one_subscription_and_begins_another(one: Shared, _: Shared) {
    let acme = TenantId::new("acme");
    let on = |plan: Option<&str>, updated| TenantRow { plan: plan.map(Into::into), updated, ..tenant("acme") };
    one.make_tenant(on(Some("free"), at(0))).await.unwrap();
    one.change_tenant(on(Some("pro"), at(10)), at(0)).await.unwrap();
    one.change_tenant(TenantRow { suspended: true, ..on(Some("pro"), at(20)) }, at(10)).await.unwrap();
    one.change_tenant(on(None, at(30)), at(20)).await.unwrap();
    one.change_tenant(on(Some("free"), at(40)), at(30)).await.unwrap();
    let subscriptions = one.subscriptions(&acme).await.unwrap();
    let seen: Vec<_> = subscriptions.iter().map(|row| (row.plan.as_str(), row.from, row.until)).collect();
    assert_eq!(
        seen,
        [("free", at(0), Some(at(10))), ("pro", at(10), Some(at(30))), ("free", at(40), None)],
        "nothing else ends or begins one"
    );
    one.make_tenant(TenantRow { plan: Some("free".into()), ..tenant("beta") }).await.unwrap();
    let asked = [TenantId::new("beta"), TenantId::new("nobody"), acme.clone()];
    let both = one.subscriptions_of(&asked).await.unwrap();
    let of = |tenant: &str| both.iter().filter(|row| row.tenant.as_str() == tenant).cloned().collect::<Vec<_>>();
    assert_eq!((of("acme"), of("beta").len(), both.len()), (subscriptions, 1, 4), "of several at once");
    assert!(one.subscriptions_of(&[]).await.unwrap().is_empty(), "of none is not of all");
}

pub(super) async fn a_key_needs_a_tenant_and_an_id_a_hash_and_a_name_of_its_own(one: Shared, two: Shared) {
    assert_eq!(one.make_key(key("k1", "acme")).await, Err(Fault::Missing));
    one.make_tenant(tenant("acme")).await.unwrap();
    one.make_tenant(tenant("lab")).await.unwrap();
    one.make_key(key("k1", "acme")).await.unwrap();
    let same_id = KeyRow { hash: [1; 32], name: "other".into(), ..key("k1", "lab") };
    let same_hash = KeyRow { hash: key("k1", "acme").hash, ..key("k2", "lab") };
    let same_name = KeyRow { name: key("k1", "acme").name, ..key("k3", "acme") };
    for taken in [same_id, same_hash, same_name.clone()] {
        let outcome = two.make_key(taken).await;
        assert!(conflict(&outcome), "{outcome:?}");
    }
    two.make_key(KeyRow { tenant: TenantId::new("lab"), ..same_name.clone() }).await.expect("another tenant's name");
    one.revoke_key(&TenantId::new("acme"), &KeyId::new("k1"), at(1)).await.unwrap();
    two.make_key(KeyRow { id: KeyId::new("k4"), hash: [4; 32], ..same_name }).await.expect("a revoked key's name");
}

pub(super) async fn a_key_is_changed_and_revoked_by_its_tenant_alone(one: Shared, _: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    one.make_tenant(tenant("lab")).await.unwrap();
    one.make_key(key("k1", "acme")).await.unwrap();
    let lab = TenantId::new("lab");
    assert_eq!(one.change_key(key("k1", "lab")).await, Err(Fault::Missing));
    assert_eq!(one.revoke_key(&lab, &KeyId::new("k1"), at(1)).await, Err(Fault::Missing));
    let changed = KeyRow { name: "new".into(), terms: "[]".into(), expires: Some(at(50)), ..key("k1", "acme") };
    one.change_key(KeyRow { hash: [0; 32], created: at(9), ..changed.clone() }).await.unwrap();
    assert_eq!(one.keys(&TenantId::new("acme")).await.unwrap(), [changed], "name, terms and expiry, nothing else");
    assert_eq!(one.keys(&lab).await.unwrap(), []);
}

pub(super) async fn a_key_revoked_twice_was_revoked_the_first_time(one: Shared, two: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    one.make_key(key("k1", "acme")).await.unwrap();
    let acme = TenantId::new("acme");
    one.revoke_key(&acme, &KeyId::new("k1"), at(7)).await.unwrap();
    two.revoke_key(&acme, &KeyId::new("k1"), at(8)).await.unwrap();
    assert_eq!(one.keys(&acme).await.unwrap()[0].revoked, Some(at(7)));
    assert_eq!(one.revoke_key(&acme, &KeyId::new("k2"), at(8)).await, Err(Fault::Missing));
}

pub(super) async fn refused_keys_leave_the_snapshot_and_stay_in_the_list(one: Shared, two: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    let now = Timestamp::now().millis();
    let ago = |span: Duration| Some(Timestamp(now - i64::try_from(span.as_millis()).unwrap()));
    let expired = |id: &str, created, span| KeyRow { expires: ago(span), created, ..key(id, "acme") };
    one.make_key(expired("just", at(1), Duration::from_secs(60))).await.unwrap();
    one.make_key(expired("long", at(2), Duration::from_secs(30 * 86_400))).await.unwrap();
    one.make_key(KeyRow { created: at(3), ..key("revoked", "acme") }).await.unwrap();
    one.make_key(KeyRow { created: at(4), replaces: Some(KeyId::new("revoked")), ..key("good", "acme") })
        .await
        .unwrap();
    one.revoke_key(&TenantId::new("acme"), &KeyId::new("revoked"), at(9)).await.unwrap();
    let ids = |keys: &[KeyRow]| keys.iter().map(|key| key.id.as_str().to_owned()).collect::<Vec<_>>();
    let mut seen = ids(&two.snapshot(None).await.unwrap().unwrap().keys);
    seen.sort();
    assert_eq!(seen, ["good", "just"]);
    assert_eq!(ids(&two.keys(&TenantId::new("acme")).await.unwrap()), ["just", "long", "revoked", "good"]);
}

pub(super) async fn when_a_key_was_used_only_goes_forward(one: Shared, two: Shared) {
    one.make_tenant(tenant("acme")).await.unwrap();
    let many: Vec<_> = (0..300).map(|number| format!("k{number:03}")).collect();
    for id in &many[..3] {
        one.make_key(key(id, "acme")).await.unwrap();
    }
    let all = |millis| many.iter().map(|id| (KeyId::new(id.as_str()), at(millis))).collect::<Vec<_>>();
    one.used(&all(100)).await.unwrap();
    two.used(&all(50)).await.unwrap();
    two.used(&[(KeyId::new("k001"), at(150)), (KeyId::new("k001"), at(120))]).await.unwrap();
    one.used(&[]).await.unwrap();
    let used: Vec<_> = one.keys(&TenantId::new("acme")).await.unwrap().iter().map(|key| key.used).collect();
    assert_eq!(used, [Some(at(100)), Some(at(150)), Some(at(100))]);
}

pub(super) async fn tenants_come_in_pages_by_the_bytes_of_their_ids(one: Shared, _: Shared) {
    let mut ids = ["a", "B", "a-b", "ab", "a_b", "Z", "é", "z", "租户", "a/b", "10", "9"];
    for id in ids {
        one.make_tenant(tenant(id)).await.unwrap();
    }
    ids.sort_unstable();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = one.tenants(after.as_ref(), 5).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 5);
        after = Some(last.id.clone());
        seen.extend(page.into_iter().map(|row| row.id.as_str().to_owned()));
    }
    assert_eq!(seen, ids);
}

pub(super) async fn what_people_write_is_kept_to_the_letter(one: Shared, two: Shared) {
    let odd = "Robert'); DROP TABLE tenants;-- \"$1\" % _ \\ 租户 \u{1F600} \u{1f}\t\n?";
    one.make_tenant(TenantRow { terms: odd.into(), ..tenant(odd) }).await.unwrap();
    one.make_key(KeyRow { name: odd.into(), terms: odd.into(), ..key("k1", odd) }).await.unwrap();
    one.enter_plan(PlanRow { terms: odd.into(), ..plan(odd, "1") }).await.unwrap();
    let seen = two.snapshot(None).await.unwrap().unwrap();
    assert_eq!((seen.tenants[0].id.as_str(), seen.tenants[0].terms.as_str()), (odd, odd));
    assert_eq!((seen.keys[0].name.as_str(), seen.keys[0].terms.as_str()), (odd, odd));
    assert_eq!((seen.plans[0].name.as_str(), seen.plans[0].terms.as_str()), (odd, odd));
    assert_eq!(two.keys(&TenantId::new(odd)).await.unwrap().len(), 1);
}
