//! What a config file declares, put in place of what the last one did.

use std::collections::{HashMap, HashSet};

use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Seed, Source, TenantRow};
use kernel::time::Timestamp;

use super::plans::{enter_plan, enter_price, retire, withdraw};
use super::publish;
use super::rows::{insert, read};
use super::snapshot::latest;
use super::tenants::{change_tenant, unsubscribe};
use crate::store::Store;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::session::Session;

const TENANTS: &str = "SELECT id, source, plan, suspended, terms, created, updated FROM tenants";
const KEYS: &str = "SELECT id, tenant, source, name, hash, terms, created, expires, revoked, replaces, used FROM keys";
const PLANS: &str = "SELECT id, name, source, terms, created, retired FROM plans ORDER BY name, created";
const PRICES: &str = "SELECT id, source, terms, created, withdrawn FROM prices";
const CHANGE_KEY: &str = "UPDATE keys SET tenant = $2, name = $3, hash = $4, terms = $5, expires = $6, revoked = $7, \
                          replaces = $8 WHERE id = $1";
const DELETE_KEY: &str = "DELETE FROM keys WHERE id = $1";
const DELETE_TENANT: &str = "DELETE FROM tenants WHERE id = $1";
const FORGET_SUBSCRIPTIONS: &str = "DELETE FROM subscriptions WHERE tenant = $1";
/// What must not lose its tenant: what it owes or owed, and keys somebody made by the API.
const HOLDS: [&str; 5] = [
    "SELECT id FROM charges WHERE tenant = $1 LIMIT 1",
    "SELECT id FROM invoices WHERE tenant = $1 LIMIT 1",
    "SELECT id FROM transfers WHERE debit = 'tenant/' || $1 LIMIT 1",
    "SELECT id FROM transfers WHERE credit = 'tenant/' || $1 LIMIT 1",
    "SELECT id FROM keys WHERE tenant = $1 LIMIT 1",
];

/// A seed being put in place.
struct Planting<'s, 'a> {
    session: &'a mut Session<'s>,
    now: Timestamp,
    skipped: Vec<String>,
    changed: bool,
}

impl Store {
    pub(super) async fn plant(&self, seed: &Seed) -> Result<Vec<String>, Failure> {
        let mut session = self.changing(self.long("seed from the config")).await?;
        let mut planting =
            Planting { session: &mut session, now: Timestamp::now(), skipped: Vec::new(), changed: false };
        planting.plans(&seed.plans).await?;
        planting.prices(&seed.prices).await?;
        let tenants = planting.tenants(&seed.tenants).await?;
        planting.keys(&seed.keys, &tenants).await?;
        planting.take_away(&seed.tenants).await?;
        let Planting { skipped, changed, .. } = planting;
        if changed {
            publish(session).await?;
        } else {
            session.rollback().await?;
        }
        Ok(skipped)
    }
}

// === impl Planting ===

impl Planting<'_, '_> {
    /// A plan belongs to whoever entered the version in force: one that came by the API is left alone as long as it is
    /// not retired.
    async fn plans(&mut self, seeds: &[PlanRow]) -> Result<(), Failure> {
        let in_force = latest(read(&self.session.rows(sqlx::query(PLANS)).await?)?);
        let in_force: HashMap<&str, &PlanRow> = in_force.iter().map(|plan| (plan.name.as_str(), plan)).collect();
        let mut declared = HashSet::new();
        for seed in seeds {
            declared.insert(seed.name.as_str());
            let before = in_force.get(seed.name.as_str()).copied();
            if before.is_some_and(|plan| plan.source == Source::Api && plan.retired.is_none()) {
                self.skipped.push(seed.id.clone());
            } else {
                self.changed |= enter_plan(self.session, before, seed).await?;
            }
        }
        for plan in in_force.values().filter(|plan| plan.source == Source::Config) {
            if plan.retired.is_none() && !declared.contains(plan.name.as_str()) {
                self.changed |= retire(self.session, &plan.id, self.now).await?;
            }
        }
        Ok(())
    }

    async fn prices(&mut self, seeds: &[PriceRow]) -> Result<(), Failure> {
        let there: Vec<PriceRow> = read(&self.session.rows(sqlx::query(PRICES)).await?)?;
        let there: HashMap<&str, &PriceRow> = there.iter().map(|price| (price.id.as_str(), price)).collect();
        let mut declared = HashSet::new();
        for seed in seeds {
            declared.insert(seed.id.as_str());
            match there.get(seed.id.as_str()) {
                Some(price) if price.source == Source::Api => self.skipped.push(seed.id.clone()),
                before => self.changed |= enter_price(self.session, before.copied(), seed).await?,
            }
        }
        for price in there.values().filter(|price| price.source == Source::Config && price.withdrawn.is_none()) {
            if !declared.contains(price.id.as_str()) {
                self.changed |= withdraw(self.session, &price.id, self.now).await?;
            }
        }
        Ok(())
    }

    /// Returns the ids of all tenants there are afterwards, those included that are about to be taken away.
    async fn tenants(&mut self, seeds: &[TenantRow]) -> Result<HashSet<String>, Failure> {
        let there: Vec<TenantRow> = read(&self.session.rows(sqlx::query(TENANTS)).await?)?;
        let mut ids: HashSet<String> = there.iter().map(|tenant| tenant.id.as_str().to_owned()).collect();
        let there: HashMap<&str, &TenantRow> = there.iter().map(|tenant| (tenant.id.as_str(), tenant)).collect();
        let mut new = Vec::new();
        for seed in seeds {
            match there.get(seed.id.as_str()) {
                Some(tenant) if tenant.source == Source::Api => self.skipped.push(seed.id.as_str().to_owned()),
                Some(tenant) => {
                    let same = |a: &TenantRow, b: &TenantRow| {
                        (&a.plan, a.suspended, &a.terms) == (&b.plan, b.suspended, &b.terms)
                    };
                    if !same(tenant, seed) {
                        change_tenant(self.session, tenant, seed).await?;
                        self.changed = true;
                    }
                }
                // Declared twice: the first counts.
                None => {
                    if ids.insert(seed.id.as_str().to_owned()) {
                        new.push(seed.clone());
                    }
                }
            }
        }
        self.changed |= !new.is_empty();
        insert(self.session, &new).await?;
        let subscriptions: Vec<_> = new.into_iter().filter_map(first_subscription).collect();
        insert(self.session, &subscriptions).await?;
        Ok(ids)
    }

    async fn keys(&mut self, seeds: &[KeyRow], tenants: &HashSet<String>) -> Result<(), Failure> {
        let there: Vec<KeyRow> = read(&self.session.rows(sqlx::query(KEYS)).await?)?;
        let declared: HashSet<&str> = seeds.iter().map(|seed| seed.id.as_str()).collect();
        // First away with the old ones: a new one may have the hash of one that goes.
        let gone = |key: &&KeyRow| key.source == Source::Config && !declared.contains(key.id.as_str());
        for key in there.iter().filter(gone) {
            self.session.run(sqlx::query(DELETE_KEY).bind(key.id.as_str())).await?;
            self.changed = true;
        }
        let left = || there.iter().filter(|key| !gone(key));
        let mut hashes: HashMap<[u8; 32], &str> = left().map(|key| (key.hash, key.id.as_str())).collect();
        let there: HashMap<&str, &KeyRow> = left().map(|key| (key.id.as_str(), key)).collect();
        let mut new: Vec<KeyRow> = Vec::new();
        for seed in seeds {
            let id = seed.id.as_str();
            let before = there.get(id);
            let of_api = before.is_some_and(|key| key.source == Source::Api);
            let homeless = !tenants.contains(seed.tenant.as_str());
            let taken = hashes.get(&seed.hash).is_some_and(|owner| *owner != id);
            if of_api || homeless || taken {
                self.skipped.push(id.to_owned());
                continue;
            }
            hashes.insert(seed.hash, id);
            match before {
                None => new.push(seed.clone()),
                Some(key) => {
                    // Revoked is revoked: a restart with the same config must not let the key in again.
                    let wanted = KeyRow { revoked: key.revoked.or(seed.revoked), ..seed.clone() };
                    if !same_key(key, &wanted) {
                        self.change_key(&wanted).await?;
                        self.changed = true;
                    }
                }
            }
        }
        new.sort_by(|a, b| a.id.cmp(&b.id));
        new.dedup_by(|a, b| a.id == b.id);
        self.changed |= !new.is_empty();
        insert(self.session, &new).await
    }

    async fn change_key(&mut self, key: &KeyRow) -> Result<(), Failure> {
        let change = sqlx::query(CHANGE_KEY)
            .bind(key.id.as_str())
            .bind(key.tenant.as_str())
            .bind(key.name.as_str())
            .bind(crate::store::columns::hex(&key.hash))
            .bind(key.terms.as_str())
            .bind(key.expires.map(Timestamp::millis))
            .bind(key.revoked.map(Timestamp::millis))
            .bind(key.replaces.as_ref().map(|id| id.as_str().to_owned()));
        self.session.run(change).await.map(drop)
    }

    /// Takes away the tenants that came from a config and are in it no more; those that something holds on to stay,
    /// suspended.
    async fn take_away(&mut self, seeds: &[TenantRow]) -> Result<(), Failure> {
        let declared: HashSet<&str> = seeds.iter().map(|seed| seed.id.as_str()).collect();
        let there: Vec<TenantRow> = read(&self.session.rows(sqlx::query(TENANTS)).await?)?;
        let gone = |tenant: &&TenantRow| tenant.source == Source::Config && !declared.contains(tenant.id.as_str());
        for tenant in there.iter().filter(gone) {
            let id = tenant.id.as_str();
            if !self.held(id).await? {
                self.session.run(sqlx::query(FORGET_SUBSCRIPTIONS).bind(id)).await?;
                self.session.run(sqlx::query(DELETE_TENANT).bind(id)).await?;
                self.changed = true;
            } else if !tenant.suspended || tenant.plan.is_some() {
                unsubscribe(self.session, &tenant.id, self.now).await?;
                let suspended = TenantRow { suspended: true, plan: None, updated: self.now, ..tenant.clone() };
                change_tenant(self.session, tenant, &suspended).await?;
                self.changed = true;
            }
        }
        Ok(())
    }

    async fn held(&mut self, tenant: &str) -> Result<bool, Failure> {
        for hold in HOLDS {
            if let Some(row) = self.session.row(sqlx::query(hold).bind(tenant)).await? {
                Columns::of(&row).text()?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn first_subscription(tenant: TenantRow) -> Option<kernel::store::registry::SubscriptionRow> {
    let TenantRow { id, plan, created, .. } = tenant;
    plan.map(|plan| kernel::store::registry::SubscriptionRow { tenant: id, plan, from: created, until: None })
}

/// Whether a declared key is as it is kept. When it was made and last used is not declared.
fn same_key(a: &KeyRow, b: &KeyRow) -> bool {
    (&a.tenant, &a.name, &a.hash, &a.terms, a.expires, a.revoked, &a.replaces)
        == (&b.tenant, &b.name, &b.hash, &b.terms, b.expires, b.revoked, &b.replaces)
}
