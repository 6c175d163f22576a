//! What a config file declares, put in place of what the last one did.

use std::collections::{BTreeSet, HashMap, HashSet};

use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Seed, Source, SubscriptionRow, TenantRow};
use kernel::time::Timestamp;

use super::plans::{enter_plan, enter_price, retire, withdraw};
use super::publish;
use super::rows::{all, insert, read};
use super::snapshot::latest;
use super::tenants::{change_tenant, unsubscribe};
use crate::store::Store;
use crate::store::bulk::Bulk;
use crate::store::columns::{Columns, hex};
use crate::store::failure::Failure;
use crate::store::session::Session;

/// What this looks after.
const DECLARED: &str = "source = 'config'";
static TENANTS_THERE: Bulk = Bulk::new("SELECT id FROM tenants WHERE id IN (VALUES", 1, ")");
static KEYS_THERE: Bulk = Bulk::new("SELECT id FROM keys WHERE source <> 'config' AND id IN (VALUES", 1, ")");
static HASHES_THERE: Bulk = Bulk::new("SELECT hash FROM keys WHERE source <> 'config' AND hash IN (VALUES", 1, ")");
const PLANS: &str = "SELECT id, name, source, terms, created, retired, earlier FROM plans ORDER BY name, created";
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
        let tenants: Vec<TenantRow> = all(planting.session, DECLARED, None).await?;
        let ours = planting.tenants(&tenants, &seed.tenants).await?;
        planting.keys(&seed.keys, &ours).await?;
        planting.take_away(&tenants, &seed.tenants).await?;
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

    /// Returns those declared that are the config's.
    async fn tenants<'r>(&mut self, there: &[TenantRow], seeds: &'r [TenantRow]) -> Result<HashSet<&'r str>, Failure> {
        let there: HashMap<&str, &TenantRow> = there.iter().map(|tenant| (tenant.id.as_str(), tenant)).collect();
        let unknown = seeds.iter().map(|seed| seed.id.as_str()).filter(|id| !there.contains_key(id));
        let of_api = self.look_up(&TENANTS_THERE, unknown).await?;
        let (mut new, mut seen) = (Vec::new(), HashSet::new());
        for seed in seeds {
            let id = seed.id.as_str();
            if of_api.contains(id) {
                self.skipped.push(id.to_owned());
            } else if !seen.insert(id) {
                // Declared twice: the first counts.
            } else if let Some(tenant) = there.get(id) {
                let as_it_was = (&tenant.plan, tenant.suspended, &tenant.terms);
                if as_it_was != (&seed.plan, seed.suspended, &seed.terms) {
                    change_tenant(self.session, tenant, seed).await?;
                    self.changed = true;
                }
            } else {
                new.push(seed.clone());
            }
        }
        self.changed |= !new.is_empty();
        insert(self.session, &new).await?;
        let subscriptions: Vec<SubscriptionRow> = new.into_iter().filter_map(first_subscription).collect();
        insert(self.session, &subscriptions).await?;
        Ok(seen)
    }

    /// `tenants` are those declared now that are the config's.
    async fn keys(&mut self, seeds: &[KeyRow], tenants: &HashSet<&str>) -> Result<(), Failure> {
        let there: Vec<KeyRow> = all(self.session, DECLARED, None).await?;
        let declared: HashSet<&str> = seeds.iter().map(|seed| seed.id.as_str()).collect();
        // First away with the old ones: a new one may have the hash of one that goes.
        let (there, gone): (Vec<KeyRow>, Vec<KeyRow>) =
            there.into_iter().partition(|key| declared.contains(key.id.as_str()));
        for key in &gone {
            self.session.run(sqlx::query(DELETE_KEY).bind(key.id.as_str())).await?;
            self.changed = true;
        }
        let there: HashMap<&str, &KeyRow> = there.iter().map(|key| (key.id.as_str(), key)).collect();
        let hex_hashes: Vec<String> = seeds.iter().map(|seed| hex(&seed.hash)).collect();
        // Only what is new or was changed can be in the way of what came by the API.
        let changed = |seed: &KeyRow| there.get(seed.id.as_str()).is_none_or(|key| key.hash != seed.hash);
        let changed = || seeds.iter().zip(&hex_hashes).filter(|(seed, _)| changed(seed));
        let of_api = self.look_up(&KEYS_THERE, changed().map(|(seed, _)| seed.id.as_str())).await?;
        let api_hashes = self.look_up(&HASHES_THERE, changed().map(|(_, hash)| hash.as_str())).await?;
        let elsewhere: BTreeSet<&str> =
            seeds.iter().map(|seed| seed.tenant.as_str()).filter(|tenant| !tenants.contains(tenant)).collect();
        let elsewhere = self.look_up(&TENANTS_THERE, elsewhere.into_iter()).await?;
        let mut hashes: HashMap<[u8; 32], &str> = there.values().map(|key| (key.hash, key.id.as_str())).collect();
        let (mut new, mut seen) = (Vec::new(), HashSet::new());
        for (seed, hash) in seeds.iter().zip(&hex_hashes) {
            let id = seed.id.as_str();
            let tenant = seed.tenant.as_str();
            let homeless = !tenants.contains(tenant) && !elsewhere.contains(tenant);
            let taken = api_hashes.contains(hash) || hashes.get(&seed.hash).is_some_and(|owner| *owner != id);
            if of_api.contains(id) || homeless || taken {
                self.skipped.push(id.to_owned());
                continue;
            }
            hashes.insert(seed.hash, id);
            match there.get(id) {
                None if seen.insert(id) => new.push(seed.clone()),
                None => {}
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
        self.changed |= !new.is_empty();
        insert(self.session, &new).await
    }

    /// What of a list is in a table.
    async fn look_up(
        &mut self,
        list: &'static Bulk,
        wanted: impl Iterator<Item = &str> + Send,
    ) -> Result<HashSet<String>, Failure> {
        let wanted: Vec<&str> = wanted.collect();
        let mut found = HashSet::new();
        for (statement, group) in list.over(self.session.engine(), &wanted) {
            let statement = group.iter().fold(statement, |statement, one| statement.bind(*one));
            for row in &self.session.rows(statement).await? {
                found.insert(Columns::of(row).text()?.to_owned());
            }
        }
        Ok(found)
    }

    async fn change_key(&mut self, key: &KeyRow) -> Result<(), Failure> {
        let change = sqlx::query(CHANGE_KEY)
            .bind(key.id.as_str())
            .bind(key.tenant.as_str())
            .bind(key.name.as_str())
            .bind(hex(&key.hash))
            .bind(key.terms.as_str())
            .bind(key.expires.map(Timestamp::millis))
            .bind(key.revoked.map(Timestamp::millis))
            .bind(key.replaces.as_ref().map(|id| id.as_str().to_owned()));
        self.session.run(change).await.map(drop)
    }

    /// Takes away the tenants that came from a config and are in it no more; those that something holds on to stay,
    /// suspended.
    async fn take_away(&mut self, there: &[TenantRow], seeds: &[TenantRow]) -> Result<(), Failure> {
        let declared: HashSet<&str> = seeds.iter().map(|seed| seed.id.as_str()).collect();
        let gone = |tenant: &&TenantRow| !declared.contains(tenant.id.as_str());
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

fn first_subscription(tenant: TenantRow) -> Option<SubscriptionRow> {
    let TenantRow { id, plan, created, .. } = tenant;
    plan.map(|plan| SubscriptionRow { tenant: id, plan, from: created, until: None })
}

/// Whether a declared key is as it is kept. When it was made and last used is not declared.
fn same_key(a: &KeyRow, b: &KeyRow) -> bool {
    (&a.tenant, &a.name, &a.hash, &a.terms, a.expires, a.revoked, &a.replaces)
        == (&b.tenant, &b.name, &b.hash, &b.terms, b.expires, b.revoked, &b.replaces)
}
