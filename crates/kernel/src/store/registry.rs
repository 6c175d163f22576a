//! Tenants, keys, plans, subscriptions and prices as rows.
//!
//! What is looked for by a database has a column; the rest stands in `terms` as JSON, in the shape of the config section
//! of the same name, so that a field can be added without a migration and an older binary still reads the rest.

use std::sync::{Mutex, PoisonError};

use super::Stored;
use crate::time::Timestamp;
use crate::{KeyId, TenantId};

/// Who declared a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The config file: it comes and goes with it, and nobody else may change it.
    Config,
    /// The admin API.
    Api,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name in logs, metrics and bills.
    pub id: TenantId,
    /// Who declared it.
    pub source: Source,
    /// Its plan, by name.
    pub plan: Option<String>,
    /// Whether its calls are refused for the time being.
    pub suspended: bool,
    /// The rest of its settings, as JSON.
    pub terms: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// An API key: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its public part.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Who declared it.
    pub source: Source,
    /// What it is for.
    pub name: String,
    /// The keyed hash it is known by. Unique.
    pub hash: [u8; 32],
    /// The rest of its settings, as JSON.
    pub terms: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused; `None`: never.
    pub expires: Option<Timestamp>,
    /// Since when it is refused; `None`: it is not.
    pub revoked: Option<Timestamp>,
    /// The key it replaced when it was rotated in.
    pub replaces: Option<KeyId>,
    /// When a call last used it, to some seconds.
    pub used: Option<Timestamp>,
}

/// One version of a plan. A version never changes: bills refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// Its id: the name, `@`, and a hash of its terms, so that the same version is the same everywhere.
    pub id: String,
    /// Its name. Of the versions of a name, the one entered last is in force.
    pub name: String,
    /// Who declared it.
    pub source: Source,
    /// Its settings, as JSON.
    pub terms: String,
    /// When the version was entered.
    pub created: Timestamp,
    /// When it was put back in force after others had been, in order of time.
    pub again: Vec<Timestamp>,
    /// Since when no tenant can be put on it; on the version in force.
    pub retired: Option<Timestamp>,
}

impl PlanRow {
    /// When it was put in force last.
    pub fn entered(&self) -> Timestamp {
        self.again.last().copied().unwrap_or(self.created)
    }

    /// Every time it was.
    pub fn entries(&self) -> impl Iterator<Item = Timestamp> {
        std::iter::once(self.created).chain(self.again.iter().copied())
    }
}

/// For how long a tenant was on a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Whose.
    pub tenant: TenantId,
    /// To which plan, by name.
    pub plan: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when; `None`: still.
    pub until: Option<Timestamp>,
}

/// One entry of the price catalogue. It never changes: bills refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceRow {
    /// Its id: a hash of its terms, so that the same price is the same entry everywhere.
    pub id: String,
    /// Who declared it.
    pub source: Source,
    /// The price, as JSON.
    pub terms: String,
    /// When it was entered.
    pub created: Timestamp,
    /// Since when it is not in force any more, whatever its own dates say.
    pub withdrawn: Option<Timestamp>,
}

/// Everything a gateway must know to let callers in, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Goes up with every change.
    pub revision: i64,
    /// All tenants.
    pub tenants: Vec<TenantRow>,
    /// All keys that are neither revoked nor long expired.
    pub keys: Vec<KeyRow>,
    /// The version in force of each plan.
    pub plans: Vec<PlanRow>,
    /// The prices that are not withdrawn.
    pub prices: Vec<PriceRow>,
}

/// A part of a snapshot. Plans come first and begin it, prices next, both whole; then tenants and then keys, page by page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The version in force of each plan. Whatever came before is of a try that was given up.
    Plans(Vec<PlanRow>),
    /// The prices that are not withdrawn.
    Prices(Vec<PriceRow>),
    /// Some tenants.
    Tenants(Vec<TenantRow>),
    /// Some keys.
    Keys(Vec<KeyRow>),
}

/// What a config file declares, to be put in place of what the last one did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seed {
    /// Tenants.
    pub tenants: Vec<TenantRow>,
    /// Keys.
    pub keys: Vec<KeyRow>,
    /// Plans.
    pub plans: Vec<PlanRow>,
    /// Prices.
    pub prices: Vec<PriceRow>,
}

/// Keeps who there is. Every change raises the revision in the same transaction.
pub trait Registry: Send + Sync + 'static {
    /// Everything in parts, and then its revision, unless that is still `known`: a large registry as a whole would take
    /// more memory than all else.
    fn parts<'a>(&'a self, known: Option<i64>, take: &'a (dyn Fn(Part) + Sync)) -> Stored<'a, Option<i64>>;

    /// The same as a whole, for small ones.
    fn snapshot(&self, known: Option<i64>) -> Stored<'_, Option<Snapshot>> {
        Box::pin(async move {
            let whole = Mutex::new(Snapshot::default());
            let take = |part| whole.lock().unwrap_or_else(PoisonError::into_inner).add(part);
            let Some(revision) = self.parts(known, &take).await? else { return Ok(None) };
            let whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(Some(Snapshot { revision, ..whole }))
        })
    }

    /// Puts a config's rows in place of those that came from configs before: what is not in it any more is taken away
    /// (a tenant with charges stays, suspended), except plan versions and prices, which bills refer to. Rows that came by
    /// the API are left alone, and a seed with the id of such a row is skipped; the ids skipped are returned. Changes
    /// nothing, not even the revision, where all is as it was.
    fn seed(&self, seed: Seed) -> Stored<'_, Vec<String>>;

    /// Makes a tenant, with its first subscription if it has a plan.
    ///
    /// # Errors
    /// `Conflict` where the id is taken.
    fn make_tenant(&self, tenant: TenantRow) -> Stored<'_, ()>;

    /// Changes a tenant whose row was last changed at `seen`. A change of plan ends one subscription and begins another.
    ///
    /// # Errors
    /// `Missing`; `Conflict` where it was changed since.
    fn change_tenant(&self, tenant: TenantRow, seen: Timestamp) -> Stored<'_, ()>;

    /// Makes a key.
    ///
    /// # Errors
    /// `Missing` where the tenant is not there, `Conflict` where the id, the hash or the name within the tenant is taken
    /// by a key that is not revoked.
    fn make_key(&self, key: KeyRow) -> Stored<'_, ()>;

    /// Changes name, terms and expiry of a tenant's key.
    ///
    /// # Errors
    /// `Missing` where that tenant has no such key.
    fn change_key(&self, key: KeyRow) -> Stored<'_, ()>;

    /// Revokes a tenant's key; one that is revoked already stays so.
    ///
    /// # Errors
    /// `Missing` where that tenant has no such key.
    fn revoke_key<'a>(&'a self, tenant: &'a TenantId, id: &'a KeyId, at: Timestamp) -> Stored<'a, ()>;

    /// Writes down when keys were last used. Does not raise the revision.
    fn used<'a>(&'a self, keys: &'a [(KeyId, Timestamp)]) -> Stored<'a, ()>;

    /// Puts a version of a plan in force; the one that is in force already changes nothing.
    fn enter_plan(&self, plan: PlanRow) -> Stored<'_, ()>;

    /// Retires a plan.
    ///
    /// # Errors
    /// `Missing`; `Conflict` while tenants are on it.
    fn retire_plan<'a>(&'a self, name: &'a str, at: Timestamp) -> Stored<'a, ()>;

    /// Enters a price; the same again changes nothing.
    fn enter_price(&self, price: PriceRow) -> Stored<'_, ()>;

    /// Withdraws a price.
    ///
    /// # Errors
    /// `Missing`.
    fn withdraw_price<'a>(&'a self, id: &'a str, at: Timestamp) -> Stored<'a, ()>;

    /// A tenant's keys, revoked and expired ones included, in order of making.
    fn keys<'a>(&'a self, tenant: &'a TenantId) -> Stored<'a, Vec<KeyRow>>;

    /// One tenant.
    fn tenant<'a>(&'a self, id: &'a TenantId) -> Stored<'a, Option<TenantRow>>;

    /// Tenants in order of id, after one, at most so many.
    fn tenants<'a>(&'a self, after: Option<&'a TenantId>, most: u32) -> Stored<'a, Vec<TenantRow>>;

    /// Every version of every plan, in order of name and time.
    fn plans(&self) -> Stored<'_, Vec<PlanRow>>;

    /// Every price, withdrawn ones included, in order of entering.
    fn prices(&self) -> Stored<'_, Vec<PriceRow>>;

    /// A tenant's subscriptions in order of time.
    fn subscriptions<'a>(&'a self, tenant: &'a TenantId) -> Stored<'a, Vec<SubscriptionRow>>;

    /// Those of some hundred tenants at most, each tenant's in order of time.
    fn subscriptions_of<'a>(&'a self, tenants: &'a [TenantId]) -> Stored<'a, Vec<SubscriptionRow>>;
}

impl Snapshot {
    /// Adds a part.
    pub fn add(&mut self, part: Part) {
        match part {
            Part::Plans(plans) => *self = Self { plans, ..Self::default() },
            Part::Prices(prices) => self.prices = prices,
            Part::Tenants(tenants) => self.tenants.extend(tenants),
            Part::Keys(keys) => self.keys.extend(keys),
        }
    }

    /// Gives all of it in parts.
    pub fn give(self, take: &dyn Fn(Part)) {
        take(Part::Plans(self.plans));
        take(Part::Prices(self.prices));
        take(Part::Tenants(self.tenants));
        take(Part::Keys(self.keys));
    }
}

impl Source {
    /// The word kept in the store and shown in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Api => "api",
        }
    }
}
