//! Who there is: what the config declares and what the store keeps, brought together for the door.
//!
//! A reconciler. It writes what the config declares into the store, reads what others wrote there, and publishes a new
//! [`Directory`]. Calls read the directory and never wait for the store; while that is down they go on with what is known,
//! across a restart too, by a copy in the data directory. Changes go to the store first and are in force here when they
//! are answered; other replicas see them within `refresh`.

mod copy;
mod directory;
mod gather;
mod keys;
mod plans;
mod prices;
mod reconcile;
mod seed;
mod tenants;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use kernel::sight::{Gauges, Sample};
use kernel::store::Registry;
use kernel::store::registry::{Part, PlanRow, PriceRow};
use kernel::{Caller, Price, Timestamp};
use tokio::sync::{Notify, watch};

pub use self::directory::{Directory, Rejected};
use self::gather::Gathering;
pub use self::keys::{MadeKey, OVERLAP, OVERLAP_MAX, key_fields};
pub use self::plans::plan_fields;
pub use self::tenants::tenant_fields;
use crate::{Pepper, PlanSettings, TenantSettings, catalogue};

/// What a config declares.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Tenants with their keys.
    pub tenants: Vec<TenantSettings>,
    /// Plans.
    pub plans: Vec<PlanSettings>,
    /// Prices.
    pub prices: Vec<Price>,
}

/// What calls are charged by, as the store keeps it.
#[derive(Debug, Default)]
pub struct Tariff {
    /// The version in force of each plan.
    pub plans: Vec<PlanRow>,
    /// Prices that are not withdrawn.
    pub prices: Vec<PriceRow>,
}

/// Who there is.
pub struct Register {
    store: Arc<dyn Registry>,
    pepper: OnceLock<Pepper>,
    refresh: Duration,
    copy: Option<PathBuf>,
    directory: ArcSwap<Directory>,
    tariff: ArcSwap<Tariff>,
    state: Mutex<State>,
    /// One round at a time.
    turn: tokio::sync::Mutex<()>,
    wake: Notify,
    changed: watch::Sender<u64>,
    unseeded: AtomicBool,
    /// Whether anybody has said who there is.
    informed: AtomicBool,
    /// When the store last answered, in milliseconds since 1970.
    answered: AtomicI64,
    /// The second since 1970 until which the store knows when keys were used.
    collected: AtomicU32,
}

/// What the store keeps, on its way into a directory.
struct Taking {
    declared: Arc<Declared>,
    gathering: Gathering,
    tariff: Tariff,
}

/// What the directory was made of.
#[derive(Default)]
struct State {
    declared: Arc<Declared>,
    revision: Option<i64>,
}

impl Register {
    /// A register over a store. `copy` is the file for what is known, so that a start without the store knows it too.
    pub fn new(store: Arc<dyn Registry>, refresh: Duration, copy: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            store,
            pepper: OnceLock::new(),
            refresh,
            copy,
            directory: ArcSwap::default(),
            tariff: ArcSwap::default(),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
            unseeded: AtomicBool::new(true),
            informed: AtomicBool::new(false),
            answered: AtomicI64::new(0),
            collected: AtomicU32::new(0),
        })
    }

    /// The pepper keys are hashed with, once there is one. The first stays: another would lock every key out.
    pub fn pepper(&self) -> Option<&Pepper> {
        self.pepper.get()
    }

    /// Gives the pepper, before what needs it is declared.
    pub fn season(&self, pepper: Pepper) {
        // A second one changes nothing, as promised.
        let _ = self.pepper.set(pepper);
    }

    /// Everybody, at this moment.
    pub fn directory(&self) -> arc_swap::Guard<Arc<Directory>> {
        self.directory.load()
    }

    /// The same, for those who keep it over a wait.
    pub fn directory_full(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// The caller a key belongs to.
    ///
    /// # Errors
    /// Why nobody is let in by it.
    pub fn find(&self, key: &str) -> Result<Caller, Rejected> {
        self.directory.load().find(key)
    }

    /// What calls are charged by, as the store keeps it.
    pub fn tariff(&self) -> Arc<Tariff> {
        self.tariff.load_full()
    }

    /// Whether it is known at all who there is: not where neither the store nor the copy has said so since the start.
    pub fn knows(&self) -> bool {
        self.informed.load(Ordering::Relaxed)
    }

    /// The prices that are in force or will be: the config's and the store's.
    pub fn in_force(&self) -> Vec<Price> {
        let declared = self.declared();
        let stored = self.tariff();
        let mut seen = HashSet::new();
        let kept = stored.prices.iter().filter_map(|row| serde_json::from_str::<Price>(&row.terms).ok());
        declared.prices.iter().cloned().chain(kept).filter(|price| seen.insert(catalogue::id(price))).collect()
    }

    /// Tells when something was published: the number goes up.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Puts a config's tenants, plans and prices in force, at once; the store is told later.
    pub fn declare(&self, declared: Declared) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.declared = Arc::new(declared);
        let before = self.directory.load_full();
        let tariff = self.tariff.load();
        let mut gathering = Gathering::of(&state.declared, &tariff.plans, self.pepper());
        gathering.taken_over(&before);
        self.publish(gathering, &before);
        drop(state);
        self.unseeded.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Puts what the store keeps in force; tells whether it could: not where the config has changed meanwhile.
    fn take(&self, taking: Taking, revision: Option<i64>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Taking { declared, gathering, tariff } = taking;
        if !Arc::ptr_eq(&state.declared, &declared) {
            return false;
        }
        let before = self.directory.load_full();
        self.tariff.store(Arc::new(tariff));
        self.publish(gathering, &before);
        state.revision = revision;
        self.informed.store(true, Ordering::Relaxed);
        true
    }

    fn publish(&self, gathering: Gathering, before: &Directory) {
        for fault in &gathering.faults {
            tracing::error!(%fault, "a row of the store cannot be understood: whoever it is about is not let in");
        }
        self.directory.store(Arc::new(gathering.pack(self.pepper().cloned(), before)));
        self.changed.send_modify(|count| *count += 1);
    }

    fn declared(&self) -> Arc<Declared> {
        Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner).declared)
    }

    fn revision(&self) -> Option<i64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).revision
    }
}

impl Taking {
    fn new(declared: Arc<Declared>) -> Self {
        Self { declared, gathering: Gathering::default(), tariff: Tariff::default() }
    }

    fn add(&mut self, part: Part, pepper: Option<&Pepper>) {
        match part {
            Part::Plans(plans) => {
                self.gathering = Gathering::of(&self.declared, &plans, pepper);
                self.tariff = Tariff { plans, prices: Vec::new() };
            }
            Part::Prices(prices) => self.tariff.prices = prices,
            Part::Tenants(tenants) => self.gathering.tenants(tenants),
            Part::Keys(keys) => self.gathering.keys(keys),
        }
    }
}

impl Gauges for Register {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let mut show = |name, help, value| to(Sample { name, help, counter: false, labels: Vec::new(), value });
        let (tenants, keys) = self.directory.load().size();
        show("sluice_tenants", "Tenants known here.", tenants as f64);
        show("sluice_keys", "Keys known here that are in force.", keys as f64);
        let answered = self.answered.load(Ordering::Relaxed);
        if answered > 0 {
            let age = Timestamp::now().millis().saturating_sub(answered).max(0) as f64 / 1000.0;
            show("sluice_register_age_seconds", "Since the store last said who there is.", age);
        }
        let known = f64::from(u8::from(answered > 0));
        show("sluice_register_known", "1 once the store has said who there is, since the start.", known);
    }
}
