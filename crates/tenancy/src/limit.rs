//! How much tenants, keys and models may be asked for per time.
//!
//! A call passes the door once it holds its part of every limit that applies to it: the tenant's, the key's, and the
//! tenant's on the model. All are taken in one step or none is. Tokens are taken by an estimate and made up for when the
//! call ends; what it then took beyond a limit keeps later calls waiting, so that over time no limit is exceeded. Where
//! nothing is limited nothing is looked up. What is taken outlives configs; what is full again is forgotten.
//!
//! Alone a process is exact. Several share their limits through [`share`](kernel::share), each with leases drawn ahead,
//! and without it each keeps to its part; see [`sharing`].

mod account;
mod cell;
mod estimate;
mod lease;
mod level;
mod refusal;
pub mod sharing;
mod view;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use kernel::sight::{Gauges, Sample};
use kernel::{Caller, ModelName, Moment, TenantId, Tokens, Usage, random};

use self::account::{Account, Way};
pub use self::estimate::Ask;
use self::estimate::Learned;
use self::level::Footing;
pub use self::refusal::Refused;
use self::sharing::Standing;
pub use self::view::{Gauge, View};

/// Parts of the list of tenants, so that two calls seldom look at the same one.
const SHARDS: usize = 64;

/// Everybody's limits. Outlives configs.
#[derive(Debug)]
pub struct Limiter {
    shards: Vec<Mutex<HashMap<TenantId, Arc<Account>, FixedState>>>,
    standing: Standing,
}

/// What one call has taken of its limits. Dropping it gives its place back, and leaves its tokens as they were thought.
#[derive(Debug)]
#[must_use = "what is dropped has left"]
pub struct Taken {
    limiter: Arc<Limiter>,
    account: Arc<Account>,
    model: ModelName,
    way: Way,
    since: Moment,
    /// As thought, or as corrected last.
    tokens: u64,
    /// Whether what it really took is known.
    exact: bool,
    /// How many answers it asked for.
    choices: u16,
    left: bool,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), standing: Standing::default() }
    }
}

// === impl Limiter ===

impl Limiter {
    /// Takes a call's part of every limit; `None` where nothing limits it. Never waits.
    ///
    /// # Errors
    /// Which limit is reached, whose it is, and when to come back; then nothing was taken.
    pub fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        model: &ModelName,
        ask: Ask,
        now: Moment,
    ) -> Result<Option<Taken>, Box<Refused>> {
        let Some(way) = Way::of(caller, model) else { return Ok(None) };
        let account = self.account(&caller.tenant);
        let footing = self.standing.footing();
        let mut levels = account.lock();
        levels.set(&way);
        let tokens = ask.tokens(levels.learned.get(model));
        let blocked = levels.blocked(&way, footing, now);
        levels.on_mut(&way, &mut |level| level.ask(tokens, blocked.is_none(), footing, now));
        let news = matches!(footing, Footing::Together { .. }) && !std::mem::replace(&mut levels.listed, true);
        let refused =
            blocked.map(|(blocked, whose)| refusal::refusal(&blocked, &whose, View::of(&levels, &way, footing, now)));
        drop(levels);
        if news {
            self.standing.list(&account);
        }
        match refused {
            Some(refused) => Err(refused),
            None => {
                let limiter = Arc::clone(self);
                Ok(Some(Taken {
                    limiter,
                    account,
                    model: model.clone(),
                    way,
                    since: now,
                    tokens,
                    exact: false,
                    choices: ask.choices,
                    left: false,
                }))
            }
        }
    }

    /// Forgets tenants whose limits are full. To be done now and then.
    pub fn tend(&self, now: Moment) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            // Whoever could take something of it holds it, and nobody can find it meanwhile.
            shard.retain(|_, account| Arc::strong_count(account) > 1 || !account.lock().forget(now));
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
        }
    }

    /// Whether limits are shared with other processes just now, and with how many; `None`: there are no others, or it is not
    /// known yet.
    pub(crate) fn processes(&self) -> Option<(bool, u32)> {
        match self.standing.footing() {
            Footing::Alone => None,
            Footing::Together { nodes } => Some((true, nodes.max(1))),
            Footing::Apart { nodes } => Some((false, nodes.max(1))),
        }
    }

    /// Tenants whose limits are not full.
    pub fn tenants(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn account(&self, tenant: &TenantId) -> Arc<Account> {
        let at = random::hash(tenant.as_str().as_bytes()) as usize % SHARDS;
        let Some(shard) = self.shards.get(at) else { return Arc::new(Account::new(tenant.clone())) };
        let mut shard = lock(shard);
        if let Some(account) = shard.get(tenant) {
            return Arc::clone(account);
        }
        let account = Arc::new(Account::new(tenant.clone()));
        shard.insert(tenant.clone(), Arc::clone(&account));
        account
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gauges for Limiter {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let mut show = |name, help, labels, value| to(Sample { name, help, counter: false, labels, value });
        let tenants = self.tenants() as f64;
        show("sluice_limit_tenants", "Tenants whose limits are not full.", Vec::new(), tenants);
        self.standing.show(to);
    }
}

// === impl Taken ===

impl Taken {
    /// Where the caller stands.
    pub fn view(&self, now: Moment) -> View {
        View::of(&self.account.lock(), &self.way, self.limiter.standing.footing(), now)
    }

    /// Makes up for what the call really took, once that is known.
    pub fn correct(&mut self, usage: &Usage, now: Moment) {
        if self.exact {
            return;
        }
        self.exact = !usage.estimated;
        let footing = self.limiter.standing.footing();
        let mut levels = self.account.lock();
        // What we counted ourselves is no more than a part of an answer.
        if !usage.estimated {
            let learned = Learned::learn(levels.learned.get(&self.model), usage, self.choices);
            levels.learned.insert(self.model.clone(), learned);
        }
        take_as(&mut levels, &self.way, &mut self.tokens, usage.total(), footing, now);
    }

    /// The call took no tokens at all: nobody answered it.
    pub fn unused(&mut self, now: Moment) {
        let footing = self.limiter.standing.footing();
        take_as(&mut self.account.lock(), &self.way, &mut self.tokens, Tokens(0), footing, now);
    }

    /// The call has ended.
    pub fn leave(mut self, now: Moment) {
        self.end(now);
    }

    fn end(&mut self, now: Moment) {
        if !std::mem::replace(&mut self.left, true) {
            let stayed = now.since(self.since);
            self.account.lock().on_mut(&self.way, &mut |level| level.leave(stayed));
        }
    }
}

fn take_as(levels: &mut account::Levels, way: &Way, before: &mut u64, really: Tokens, footing: Footing, now: Moment) {
    let signed = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let more = signed(really.0).saturating_sub(signed(*before));
    *before = really.0;
    if more != 0 {
        levels.on_mut(way, &mut |level| level.correct(more, footing, now));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.left {
            self.end(Moment::now());
        }
    }
}
