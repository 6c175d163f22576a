//! The register over a store that is kept in memory here, and can be down.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use kernel::store::registry::{KeyRow, Part, Seed, Snapshot, Source, SubscriptionRow, TenantRow};
use kernel::store::{Fault, Stored};
use kernel::{KeyId, TenantId};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{NewKey, Refused};

/// What is asked of it by these tests it keeps; the rest is `Broken`.
#[derive(Default)]
struct Memory {
    rows: Mutex<(Snapshot, Vec<(KeyId, Timestamp)>)>,
    down: AtomicBool,
}

impl Memory {
    fn with<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Snapshot) -> Result<T, Fault> + Send + 'a,
    ) -> Stored<'a, T> {
        Box::pin(async move {
            if self.down.load(Ordering::Relaxed) {
                return Err(Fault::Down("unplugged".into()));
            }
            work(&mut self.rows.lock().unwrap().0)
        })
    }

    fn other<'a, T: Send + 'a>(&'a self) -> Stored<'a, T> {
        self.with(|_| Err(Fault::Broken("not in these tests".into())))
    }
}

impl Registry for Memory {
    fn parts<'a>(&'a self, known: Option<i64>, take: &'a (dyn Fn(Part) + Sync)) -> Stored<'a, Option<i64>> {
        self.with(move |rows| {
            let new = known != Some(rows.revision);
            if new {
                rows.clone().give(take);
            }
            Ok(new.then_some(rows.revision))
        })
    }

    fn seed(&self, seed: Seed) -> Stored<'_, Vec<String>> {
        self.with(move |rows| {
            rows.tenants.retain(|row| row.source == Source::Api);
            rows.tenants.extend(seed.tenants);
            Ok(Vec::new())
        })
    }

    fn make_tenant(&self, tenant: TenantRow) -> Stored<'_, ()> {
        self.with(move |rows| {
            rows.revision += 1;
            rows.tenants.push(tenant);
            Ok(())
        })
    }

    fn change_tenant(&self, tenant: TenantRow, _: Timestamp) -> Stored<'_, ()> {
        self.with(move |rows| {
            rows.revision += 1;
            rows.tenants.iter_mut().filter(|row| row.id == tenant.id).for_each(|row| *row = tenant.clone());
            Ok(())
        })
    }

    fn make_key(&self, key: KeyRow) -> Stored<'_, ()> {
        self.with(move |rows| {
            rows.revision += 1;
            rows.keys.push(key);
            Ok(())
        })
    }

    fn change_key(&self, key: KeyRow) -> Stored<'_, ()> {
        self.with(move |rows| {
            rows.revision += 1;
            rows.keys.iter_mut().filter(|row| row.id == key.id).for_each(|row| *row = key.clone());
            Ok(())
        })
    }

    fn revoke_key<'a>(&'a self, _: &'a TenantId, id: &'a KeyId, _: Timestamp) -> Stored<'a, ()> {
        self.with(move |rows| {
            rows.revision += 1;
            rows.keys.retain(|row| row.id != *id);
            Ok(())
        })
    }

    fn used<'a>(&'a self, keys: &'a [(KeyId, Timestamp)]) -> Stored<'a, ()> {
        Box::pin(async move {
            self.rows.lock().unwrap().1.extend(keys.iter().cloned());
            Ok(())
        })
    }

    fn enter_plan(&self, plan: PlanRow) -> Stored<'_, ()> {
        self.with(move |rows| {
            rows.revision += 1;
            rows.plans.retain(|row| row.name != plan.name);
            rows.plans.push(plan);
            Ok(())
        })
    }

    fn retire_plan<'a>(&'a self, _: &'a str, _: Timestamp) -> Stored<'a, ()> {
        self.other()
    }

    fn enter_price(&self, _: PriceRow) -> Stored<'_, ()> {
        self.other()
    }

    fn withdraw_price<'a>(&'a self, _: &'a str, _: Timestamp) -> Stored<'a, ()> {
        self.other()
    }

    fn keys<'a>(&'a self, tenant: &'a TenantId) -> Stored<'a, Vec<KeyRow>> {
        self.with(move |rows| Ok(rows.keys.iter().filter(|row| row.tenant == *tenant).cloned().collect()))
    }

    fn tenant<'a>(&'a self, id: &'a TenantId) -> Stored<'a, Option<TenantRow>> {
        self.with(move |rows| Ok(rows.tenants.iter().find(|row| row.id == *id).cloned()))
    }

    fn tenants<'a>(&'a self, _: Option<&'a TenantId>, _: u32) -> Stored<'a, Vec<TenantRow>> {
        self.other()
    }

    fn plans(&self) -> Stored<'_, Vec<PlanRow>> {
        self.with(|rows| Ok(rows.plans.clone()))
    }

    fn prices(&self) -> Stored<'_, Vec<PriceRow>> {
        self.other()
    }

    fn subscriptions<'a>(&'a self, _: &'a TenantId) -> Stored<'a, Vec<SubscriptionRow>> {
        self.other()
    }

    fn subscriptions_of<'a>(&'a self, _: &'a [TenantId]) -> Stored<'a, Vec<SubscriptionRow>> {
        self.other()
    }
}

fn register(store: &Arc<Memory>, copy: Option<PathBuf>) -> Arc<Register> {
    let register = Register::new(Arc::clone(store) as _, Duration::from_millis(10), copy);
    register.season(Pepper::from_text("p"));
    register
}

fn declared(tenants: serde_json::Value, plans: serde_json::Value) -> Declared {
    let (tenants, plans) = (serde_json::from_value(tenants).unwrap(), serde_json::from_value(plans).unwrap());
    Declared { tenants, plans, prices: Vec::new() }
}

async fn acme(register: &Arc<Register>, name: &str) -> MadeKey {
    let tenant = TenantId::new("acme");
    if register.tenant(&tenant).await.is_err() {
        register.make_tenant(serde_json::from_value(json!({ "id": "acme" })).unwrap()).await.unwrap();
    }
    register.make_key(&tenant, serde_json::from_value(json!({ "name": name })).unwrap()).await.unwrap()
}

#[tokio::test]
async fn config_and_store_are_one_and_a_reload_changes_the_configs_part_only() {
    let store = Arc::new(Memory::default());
    let register = register(&store, None);
    let lab = json!([{ "id": "lab", "plan": "free", "keys": [{ "name": "k", "key": "a-key-from-somewhere" }] }]);
    register.declare(declared(lab, json!([{ "name": "free", "weight": 3 }])));
    register.begin().await;
    let made = acme(&register, "ci").await;
    let lab = register.find("a-key-from-somewhere").unwrap();
    assert_eq!((lab.tenant.as_str(), lab.terms.weight), ("lab", 3));
    assert_eq!(register.find(made.key.expose()).unwrap().tenant.as_str(), "acme");
    store.down.store(true, Ordering::Relaxed);
    register.declare(declared(json!([]), json!([])));
    assert_eq!(register.find("a-key-from-somewhere"), Err(Rejected::Revoked));
    assert_eq!(register.find(made.key.expose()).unwrap().tenant.as_str(), "acme", "the store is not asked for it");
    let other =
        json!([{ "id": "acme", "keys": [] }, { "id": "x", "keys": [{ "name": "k", "key": "a-key-from-elsewhere" }] }]);
    register.declare(declared(other, json!([])));
    assert!(register.find("a-key-from-elsewhere").is_ok());
    assert!(register.find(made.key.expose()).is_ok(), "a key of a tenant that the config declares too");
}

#[tokio::test]
async fn a_store_that_is_down_takes_nobody_away_and_says_so_to_who_changes_something() {
    let store = Arc::new(Memory::default());
    let register = register(&store, None);
    let made = acme(&register, "ci").await;
    store.down.store(true, Ordering::Relaxed);
    assert!(register.find(made.key.expose()).is_ok());
    let tenant = TenantId::new("acme");
    assert!(matches!(register.revoke_key(&tenant, &made.row.id).await, Err(Refused::Down(_))));
    assert!(register.find(made.key.expose()).is_ok(), "what was not done is not in force");
    store.down.store(false, Ordering::Relaxed);
    register.revoke_key(&tenant, &made.row.id).await.unwrap();
    assert_eq!(register.find(made.key.expose()), Err(Rejected::Revoked));
}

#[tokio::test]
async fn the_copy_lets_those_in_who_were_known_and_a_damaged_one_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known.jsonl");
    let store = Arc::new(Memory::default());
    let first = register(&store, Some(path.clone()));
    first.enter_plan(serde_json::from_value(json!({ "name": "gold", "weight": 7 })).unwrap()).await.unwrap();
    let made = acme(&first, "ci").await;
    let patch = serde_json::from_value(json!({ "plan": "gold", "limits": { "rps": 9 } })).unwrap();
    first.change_tenant(&TenantId::new("acme"), patch, None).await.unwrap();
    copy::write(&path, &first.directory(), &first.tariff()).unwrap();
    store.down.store(true, Ordering::Relaxed);
    let second = register(&store, Some(path.clone()));
    second.begin().await;
    let caller = second.find(made.key.expose()).unwrap();
    assert_eq!(caller, first.find(made.key.expose()).unwrap());
    assert_eq!((caller.terms.weight, caller.terms.limits.rps), (7, Some(9)));
    let text = std::fs::read_to_string(&path).unwrap();
    let cut: String = text.lines().take(text.lines().count() - 1).map(|line| format!("{line}\n")).collect();
    for damaged in [cut, text.replace("\"key\"", "\"kex\""), String::new()] {
        std::fs::write(&path, damaged).unwrap();
        let third = register(&store, Some(path.clone()));
        third.begin().await;
        assert_eq!(third.find(made.key.expose()), Err(Rejected::Unknown));
    }
}

#[tokio::test]
async fn keys_of_a_rotation_know_each_other_and_go_on_to_after_the_old_one_is_gone() {
    let store = Arc::new(Memory::default());
    let register = register(&store, None);
    let (tenant, hour) = (TenantId::new("acme"), Duration::from_secs(3600));
    let first = acme(&register, "ci").await;
    let other = acme(&register, "other").await;
    let (second, _) = register.rotate_key(&tenant, &first.row.id, hour).await.unwrap();
    let (third, _) = register.rotate_key(&tenant, &second.row.id, hour).await.unwrap();
    let kin = |made: &MadeKey| register.find(made.key.expose()).unwrap().terms.kin.to_vec();
    let line = [&first, &second, &third].map(|made| made.row.id.clone());
    for made in [&first, &second, &third] {
        let mut found = kin(made);
        assert_eq!(found.first(), Some(&line[0]), "called by the first");
        found.sort();
        let mut expected = line.to_vec();
        expected.sort();
        assert_eq!(found, expected);
    }
    assert!(kin(&other).is_empty());
    register.revoke_key(&tenant, &first.row.id).await.unwrap();
    assert_eq!(kin(&third).len(), 3, "what was spent with it is spent");
    let long: Vec<String> = (0..60).fold(Vec::new(), |line, nth| keys::line(&line, &KeyId::new(format!("k{nth}"))));
    assert_eq!((long.len(), &*long[0], &*long[49]), (50, "k0", "k59"));
}

#[tokio::test]
async fn the_store_is_told_of_keys_that_were_used_and_of_no_others() {
    let store = Arc::new(Memory::default());
    let register = register(&store, None);
    let (used, idle) = (acme(&register, "used").await, acme(&register, "idle").await);
    register.find(used.key.expose()).unwrap();
    register.tell_used().await.unwrap();
    let told: HashSet<KeyId> = store.rows.lock().unwrap().1.iter().map(|(id, _)| id.clone()).collect();
    assert!(told.contains(&used.row.id) && !told.contains(&idle.row.id));
}

#[tokio::test]
async fn who_cannot_be_understood_is_not_let_in_and_takes_nobody_along() {
    let store = Arc::new(Memory::default());
    let register = register(&store, None);
    let made = acme(&register, "ci").await;
    let tenant = TenantId::new("other");
    register.make_tenant(serde_json::from_value(json!({ "id": "other" })).unwrap()).await.unwrap();
    let other = register.make_key(&tenant, serde_json::from_value(json!({ "name": "k" })).unwrap()).await.unwrap();
    {
        let rows = &mut store.rows.lock().unwrap().0;
        rows.revision += 1;
        rows.tenants.iter_mut().filter(|row| row.id == tenant).for_each(|row| row.plan = Some("gone".into()));
    }
    register.refresh().await;
    assert!(register.find(made.key.expose()).is_ok());
    assert_eq!(register.find(other.key.expose()), Err(Rejected::Unplanned));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whoever_is_in_the_directory_is_found_and_nobody_else_is(count in 0_usize..200, revoked in 0_usize..50) {
        let pepper = Pepper::from_text("p");
        let made: Vec<NewKey> = (0..count).map(|_| NewKey::generate(&pepper).unwrap()).collect();
        let tenants: Vec<serde_json::Value> = made.iter().enumerate().map(|(nth, key)| {
            json!({ "id": format!("t{nth}"), "keys": [{ "name": "k", "hash": key.hash }] })
        }).collect();
        let register = register(&Arc::new(Memory::default()), None);
        register.declare(declared(json!(tenants), json!([])));
        for (nth, key) in made.iter().enumerate() {
            let caller = register.find(key.key.expose()).unwrap();
            prop_assert_eq!(caller.tenant.as_str(), format!("t{nth}"));
            prop_assert_eq!(register.directory().key(key.id.as_str()).unwrap(), caller.clone());
            prop_assert_eq!(register.directory().tenant(caller.tenant.as_str()).unwrap().key, None);
        }
        prop_assert_eq!(register.find(NewKey::generate(&pepper).unwrap().key.expose()), Err(Rejected::Unknown));
        let left = count - revoked.min(count);
        register.declare(declared(json!(tenants[..left]), json!([])));
        for (nth, key) in made.iter().enumerate() {
            let found = register.find(key.key.expose()).map(|caller| caller.tenant.as_str().to_owned());
            prop_assert_eq!(found, if nth < left { Ok(format!("t{nth}")) } else { Err(Rejected::Revoked) });
        }
    }
}
