//! How much tenants may have running at once, and how groups of them lend each other what they do not use.
//!
//! A quota gives a tenant (or one class of its calls) a nominal amount of concurrency and of tokens in flight. Quotas
//! and cohorts form trees; within one, what a member does not use others may borrow, up to its limit and up to what the
//! owner lends, until the owner wants it back. After Kueue's hierarchical cohorts (KEP-79, KEP-1714), for requests.

mod settings;
mod tree;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kernel::explain::QuotaView;
use kernel::{Moment, Priority, TenantId};

pub(crate) use self::settings::validate;
pub use self::settings::{Allowance, CohortSettings, QuotaSettings};
pub(crate) use self::tree::{Blocked, Need};
use self::tree::{Leaf, Tree};

/// All quotas, and what is taken of them. Outlives configs.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    tree: Mutex<Tree>,
    /// Whether there are any; without them nothing is locked.
    any: AtomicBool,
    /// Counts what was given back, so that those who wait know when to look again.
    returns: AtomicU64,
}

/// What one call has taken of a quota. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a dropped claim gives its quota back at once"]
pub(crate) struct Claim {
    quotas: Arc<Quotas>,
    leaf: Leaf,
    need: Need,
    /// Whether nobody needs to know that it was given back.
    silent: bool,
}

impl Quotas {
    /// Puts another config's quotas in place. What is out stays out.
    pub(crate) fn set(&self, cohorts: &[CohortSettings], quotas: &[QuotaSettings]) {
        let mut tree = self.lock();
        let new = Tree::new(cohorts, quotas, &tree);
        self.any.store(!new.is_empty(), Ordering::Release);
        *tree = new;
        drop(tree);
        self.returns.fetch_add(1, Ordering::Release);
    }

    /// Whether there are any quotas at all.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes what a call needs; `None` where no quota applies to it. Never waits.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn take(
        self: &Arc<Self>,
        tenant: &TenantId,
        class: Priority,
        need: Need,
        now: Moment,
    ) -> Result<Option<Claim>, Blocked> {
        if !self.any() {
            return Ok(None);
        }
        let mut tree = self.lock();
        let Some(leaf) = tree.leaf(tenant, class) else { return Ok(None) };
        tree.take(&leaf, need, now)?;
        Ok(Some(Claim { quotas: Arc::clone(self), leaf, need, silent: false }))
    }

    /// Why a call would not get what it needs now; `None` if it would.
    pub(crate) fn would(&self, tenant: &TenantId, class: Priority, tokens: u64) -> Option<Blocked> {
        if !self.any() {
            return None;
        }
        let tree = self.lock();
        tree.would(&tree.leaf(tenant, class)?, Need { tokens })
    }

    /// Whether a call stays within its tenant's own quota.
    pub(crate) fn within(&self, tenant: &TenantId, class: Priority, tokens: u64) -> bool {
        let tree = self.lock();
        tree.leaf(tenant, class).is_some_and(|leaf| tree.within(&leaf, Need { tokens }))
    }

    /// The most tokens a tenant's calls of a class could have in flight; `None` where that is not limited.
    pub(crate) fn most_tokens(&self, tenant: &TenantId, class: Priority) -> Option<u64> {
        if !self.any() {
            return None;
        }
        let tree = self.lock();
        tree.most_tokens(&tree.leaf(tenant, class)?)
    }

    /// What a call lacks of its tenant's quota, in calls and in tokens.
    pub(crate) fn lacking(&self, tenant: &TenantId, class: Priority, tokens: u64) -> [u64; 2] {
        let tree = self.lock();
        tree.leaf(tenant, class).map_or([0; 2], |leaf| tree.lacking(&leaf, Need { tokens }))
    }

    /// What others may have when a call gives its part of a quota back, in calls and in tokens.
    pub(crate) fn frees(&self, tenant: &TenantId, class: Priority, tokens: u64) -> [u64; 2] {
        let tree = self.lock();
        tree.leaf(tenant, class).map_or([0; 2], |leaf| tree.frees(&leaf, Need { tokens }))
    }

    /// Whether a quota applies to a tenant's calls of a class.
    pub(crate) fn covers(&self, tenant: &TenantId, class: Priority) -> bool {
        self.any() && self.lock().leaf(tenant, class).is_some()
    }

    /// How far a tenant has gone beyond its own, as a share of what there is to borrow: zero within it.
    pub(crate) fn borrowed(&self, tenant: &TenantId, class: Priority) -> f64 {
        if !self.any() {
            return 0.0;
        }
        let tree = self.lock();
        tree.leaf(tenant, class).map_or(0.0, |leaf| tree.borrowed(&leaf))
    }

    /// Whether two tenants' quotas are in one tree.
    pub(crate) fn related(&self, a: (&TenantId, Priority), b: (&TenantId, Priority)) -> bool {
        self.any() && self.lock().related(a, b)
    }

    /// A number that changes whenever something was given back.
    pub(crate) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// Every quota and cohort, and what is taken of it.
    pub(crate) fn show(&self) -> Vec<QuotaView> {
        self.lock().show()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Tokens it holds.
    pub(crate) fn tokens(&self) -> u64 {
        self.need.tokens
    }

    /// Gives it back as if it had never been taken: whoever waited for it need not look again.
    pub(crate) fn undo(mut self) {
        self.silent = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.quotas.lock().give_back(&self.leaf, self.need);
        if !self.silent {
            self.quotas.returns.fetch_add(1, Ordering::Release);
        }
    }
}
