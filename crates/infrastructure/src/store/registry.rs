//! The port `Registry`: tenants, keys, plans, subscriptions and prices.
//!
//! Every change begins by taking the row of the revision, so that changes go one by one on either database, and what a
//! change looks at before it writes cannot move meanwhile.

mod plans;
mod rows;
mod seed;
mod snapshot;
mod tenants;

use kernel::store::Stored;
use kernel::store::registry::{KeyRow, Part, PlanRow, PriceRow, Registry, Seed, SubscriptionRow, TenantRow};
use kernel::time::Timestamp;
use kernel::{KeyId, TenantId};

use super::Store;
use super::columns::Columns;
use super::failure::Failure;
use super::session::{Session, Task};

const LOCK: &str = "UPDATE meta SET value = value WHERE name = 'revision'";
const RAISE: &str = "UPDATE meta SET value = value + 1 WHERE name = 'revision'";
const REVISION: &str = "SELECT value FROM meta WHERE name = 'revision'";

impl Store {
    /// A transaction that changes the registry, alone.
    async fn changing(&self, task: Task) -> Result<Session<'_>, Failure> {
        let mut session = self.writing(task).await?;
        session.run(sqlx::query(LOCK)).await?;
        Ok(session)
    }
}

/// Raises the revision and ends the transaction.
async fn publish(mut session: Session<'_>) -> Result<(), Failure> {
    session.run(sqlx::query(RAISE)).await?;
    session.commit().await
}

async fn revision(session: &mut Session<'_>) -> Result<i64, Failure> {
    let row = session.row(sqlx::query(REVISION)).await?;
    Columns::of(&row.ok_or_else(|| Failure::broken("the revision is missing from `meta`"))?).number()
}

impl Registry for Store {
    fn parts<'a>(&'a self, known: Option<i64>, take: &'a (dyn Fn(Part) + Sync)) -> Stored<'a, Option<i64>> {
        Box::pin(async move { self.persist(|| self.read_parts(known, take)).await })
    }

    fn seed(&self, seed: Seed) -> Stored<'_, Vec<String>> {
        Box::pin(async move { self.persist(|| self.plant(&seed)).await })
    }

    fn make_tenant(&self, tenant: TenantRow) -> Stored<'_, ()> {
        Box::pin(async move { self.persist(|| self.add_tenant(&tenant)).await })
    }

    fn change_tenant(&self, tenant: TenantRow, seen: Timestamp) -> Stored<'_, ()> {
        Box::pin(async move { self.persist(|| self.put_tenant(&tenant, seen)).await })
    }

    fn make_key(&self, key: KeyRow) -> Stored<'_, ()> {
        Box::pin(async move { self.persist(|| self.add_key(&key)).await })
    }

    fn change_key(&self, key: KeyRow) -> Stored<'_, ()> {
        Box::pin(async move { self.persist(|| self.put_key(&key)).await })
    }

    fn revoke_key<'a>(&'a self, tenant: &'a TenantId, id: &'a KeyId, at: Timestamp) -> Stored<'a, ()> {
        Box::pin(self.persist(move || self.end_key(tenant, id, at)))
    }

    fn used<'a>(&'a self, keys: &'a [(KeyId, Timestamp)]) -> Stored<'a, ()> {
        Box::pin(self.persist(move || self.mark_used(keys)))
    }

    fn enter_plan(&self, plan: PlanRow) -> Stored<'_, ()> {
        Box::pin(async move { self.persist(|| self.put_plan(&plan)).await })
    }

    fn retire_plan<'a>(&'a self, name: &'a str, at: Timestamp) -> Stored<'a, ()> {
        Box::pin(self.persist(move || self.end_plan(name, at)))
    }

    fn enter_price(&self, price: PriceRow) -> Stored<'_, ()> {
        Box::pin(async move { self.persist(|| self.put_price(&price)).await })
    }

    fn withdraw_price<'a>(&'a self, id: &'a str, at: Timestamp) -> Stored<'a, ()> {
        Box::pin(self.persist(move || self.end_price(id, at)))
    }

    fn keys<'a>(&'a self, tenant: &'a TenantId) -> Stored<'a, Vec<KeyRow>> {
        Box::pin(self.persist(move || self.list_keys(tenant)))
    }

    fn tenant<'a>(&'a self, id: &'a TenantId) -> Stored<'a, Option<TenantRow>> {
        Box::pin(self.persist(move || self.find_tenant(id)))
    }

    fn tenants<'a>(&'a self, after: Option<&'a TenantId>, most: u32) -> Stored<'a, Vec<TenantRow>> {
        Box::pin(self.persist(move || self.list_tenants(after, most)))
    }

    fn plans(&self) -> Stored<'_, Vec<PlanRow>> {
        Box::pin(self.persist(move || self.list_plans()))
    }

    fn prices(&self) -> Stored<'_, Vec<PriceRow>> {
        Box::pin(self.persist(move || self.list_prices()))
    }

    fn subscriptions<'a>(&'a self, tenant: &'a TenantId) -> Stored<'a, Vec<SubscriptionRow>> {
        Box::pin(self.persist(move || self.list_subscriptions(tenant)))
    }

    fn subscriptions_of<'a>(&'a self, tenants: &'a [TenantId]) -> Stored<'a, Vec<SubscriptionRow>> {
        Box::pin(self.persist(move || self.list_subscriptions_of(tenants)))
    }
}
