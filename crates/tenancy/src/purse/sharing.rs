//! Several processes with the same budgets.
//!
//! One task exchanges what is due; calls never ask. Where they have too little on lease they wait, as they do for a ledger
//! that has not told yet, and the task is woken. Without an answer each process keeps to its part of what the ledger last
//! said: what remains, through the number of processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::Moment;
use kernel::share::{Grant, Order, Share};
use kernel::sight::Sample;
use kernel::store::Fault;
use tokio::sync::Notify;

use super::lease::Footing;
use super::shares::Place;
use super::{Account, Purse};
use crate::Limiter;

/// How often it is looked whether others are known.
const LOOK: Duration = Duration::from_millis(10);
/// Between two exchanges of what nobody waits for. Bound: several before what is held would be lost.
const PAUSE: Duration = Duration::from_millis(250);
/// After so many failures in a row the counters count as out of reach.
const FAULTS_MAX: u32 = 2;
/// Orders per exchange. Bound: what carries them out works for a millisecond at most.
const ORDERS_MAX: usize = 256;

/// How long a process that was cut off tells what it has spent, and keeps to its part, before it counts on the others having
/// told theirs. Bound: twice the time between two tries to reach the server, as all come back within one where it was that which was gone.
const GRACE: Duration = Duration::from_secs(2);

const JOINING: u64 = 1;
const TOGETHER: u64 = 2;
const APART: u64 = 3;

/// Whether this process shares its budgets, and with how many.
#[derive(Default)]
pub(super) struct Standing {
    /// How it stands (the lower half), and the number of processes (the upper): one word, so that they fit each other.
    word: AtomicU64,
    /// Those with something to exchange at once, and all with anything on lease.
    hurried: Mutex<Vec<Arc<Account>>>,
    listed: Mutex<Vec<Arc<Account>>>,
    wake: Notify,
    exchanges: AtomicU64,
    faults: AtomicU64,
}

/// What one round exchanges.
#[derive(Default)]
pub(super) struct Round {
    pub(super) orders: Vec<Order>,
    places: Vec<(Arc<Account>, Place)>,
}

/// Shares a purse's budgets with other processes, for as long as it is polled. How many there are the limits know, which are
/// shared with the same ones.
pub async fn share<T>(purse: Arc<Purse>, limiter: Arc<Limiter>, share: Arc<dyn Share>) -> T {
    let standing = &purse.standing;
    let (mut faults, mut all) = (0, Moment::now());
    // Since when the others can be told again what was spent apart from them.
    let mut back: Option<Moment> = None;
    loop {
        let everybody = Moment::now() >= all;
        if everybody {
            all = Moment::now() + PAUSE;
        }
        match (standing.footing(), limiter.processes()) {
            (Footing::Apart { .. }, Some((true, nodes))) => {
                let since = *back.get_or_insert_with(Moment::now);
                if everybody {
                    purse.list_untold();
                    faults = standing.tell(&*share, nodes, faults, true).await;
                }
                if faults > 0 {
                    back = None;
                } else if Moment::now().since(since) >= GRACE {
                    tracing::info!(nodes, "budgets are shared again");
                    standing.set(TOGETHER, nodes);
                    back = None;
                }
            }
            (_, Some((true, nodes))) => {
                standing.set(TOGETHER, nodes);
                faults = standing.tell(&*share, nodes, faults, everybody).await;
            }
            (Footing::Apart { .. }, _) => back = None,
            (_, Some((false, nodes))) => standing.part(nodes),
            (_, None) => {}
        }
        purse.loaded.notify_waiters();
        let next = if standing.footing() == Footing::Joining { Moment::now() + LOOK } else { all };
        tokio::select! {
            () = standing.wake.notified() => {}
            () = tokio::time::sleep(next.remaining()) => {}
        }
    }
}

impl Purse {
    /// Puts those on the list who have spent something that the others do not know of.
    fn list_untold(&self) {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        for account in accounts.values() {
            let mut books = account.lock();
            if !books.shares_nothing() {
                self.standing.list(account, false);
            }
        }
    }
}

// === impl Standing ===

impl Standing {
    pub(super) fn footing(&self) -> Footing {
        let word = self.word.load(Ordering::Acquire);
        let nodes = u32::try_from(word >> 32).unwrap_or(u32::MAX);
        match word & u64::from(u32::MAX) {
            JOINING => Footing::Joining,
            TOGETHER => Footing::Together { nodes },
            APART => Footing::Apart { nodes: nodes.max(1) },
            _ => Footing::Alone,
        }
    }

    fn set(&self, how: u64, nodes: u32) {
        self.word.store(u64::from(nodes) << 32 | how, Ordering::Release);
    }

    /// There are others, but nobody has asked yet.
    pub(super) fn join(&self) {
        self.set(JOINING, 0);
    }

    #[cfg(test)]
    pub(super) fn together(&self, nodes: u32) {
        self.set(TOGETHER, nodes);
    }

    #[cfg(test)]
    pub(super) fn set_apart(&self, nodes: u32) {
        self.set(APART, nodes);
    }

    /// An account with something on lease, or in need of it; `hurry`: a call waits. Whoever calls it has the account's lock.
    pub(super) fn list(&self, account: &Arc<Account>, hurry: bool) {
        if !account.listed.swap(true, Ordering::AcqRel) {
            lock(&self.listed).push(Arc::clone(account));
            self.wake.notify_one();
        }
        if hurry && !account.hurried.swap(true, Ordering::AcqRel) {
            lock(&self.hurried).push(Arc::clone(account));
            self.wake.notify_one();
        }
    }

    /// Exchanges what is due; gives how many failures in a row there are now.
    async fn tell(&self, share: &dyn Share, nodes: u32, mut faults: u32, everybody: bool) -> u32 {
        for round in self.rounds(nodes, everybody) {
            self.exchanges.fetch_add(1, Ordering::Relaxed);
            let grants = share.exchange(&round.orders).await;
            faults = match &grants {
                Ok(_) => 0,
                Err(fault) => self.missed(faults, fault),
            };
            round.settle(grants.as_deref().unwrap_or_default());
        }
        faults
    }

    /// What is to be exchanged now: of those that wait, or of all.
    pub(super) fn rounds(&self, nodes: u32, everybody: bool) -> Vec<Round> {
        let mut due: Vec<Arc<Account>> = std::mem::take(&mut *lock(&self.hurried));
        due.iter().for_each(|account| account.hurried.store(false, Ordering::Release));
        if everybody {
            due = lock(&self.listed).clone();
        }
        let mut rounds = vec![Round::default()];
        for account in due {
            let mut orders = Vec::new();
            account.lock().orders(&account.tenant, nodes, &mut orders);
            if rounds.last().is_some_and(|round| round.orders.len() + orders.len() > ORDERS_MAX) {
                rounds.push(Round::default());
            }
            let Some(round) = rounds.last_mut() else { continue };
            for (order, place) in orders {
                round.orders.push(order);
                round.places.push((Arc::clone(&account), place));
            }
        }
        if everybody {
            // Out of the list meanwhile: whoever has an account's lock may want the list's.
            let mut listed = std::mem::take(&mut *lock(&self.listed));
            listed.retain(|account| {
                let mut books = account.lock();
                let rests = books.shares_nothing();
                // Whoever comes after it puts it on the list again.
                account.listed.store(!rests, Ordering::Release);
                !rests
            });
            lock(&self.listed).append(&mut listed);
        }
        rounds.retain(|round| !round.orders.is_empty());
        rounds
    }

    /// An exchange got no answer.
    fn missed(&self, faults: u32, fault: &Fault) -> u32 {
        self.faults.fetch_add(1, Ordering::Relaxed);
        if let Footing::Together { nodes } = self.footing()
            && faults + 1 >= FAULTS_MAX
        {
            tracing::warn!(nodes, "budgets cannot be shared: {fault}");
            self.part(nodes);
        }
        faults + 1
    }

    /// From now on each process keeps to its part, and holds nothing.
    fn part(&self, nodes: u32) {
        tracing::warn!(nodes, "each process keeps to its part of what remains of budgets");
        self.set(APART, nodes);
        let listed = std::mem::take(&mut *lock(&self.listed));
        for account in listed {
            let mut books = account.lock();
            account.listed.store(false, Ordering::Release);
            books.part();
        }
    }

    pub(super) fn show(&self, to: &mut dyn FnMut(Sample)) {
        let footing = self.footing();
        if footing == Footing::Alone {
            return;
        }
        let mut show = |name, help, counter, value: f64| to(Sample { name, help, counter, labels: Vec::new(), value });
        let shared = f64::from(u8::from(matches!(footing, Footing::Together { .. })));
        let help = "1 while budgets are shared with other processes, 0 while each keeps to its part.";
        show("sluice_budget_shared", help, false, shared);
        let (exchanges, faults) = (self.exchanges.load(Ordering::Relaxed), self.faults.load(Ordering::Relaxed));
        show("sluice_budget_exchanges_total", "Exchanges with the shared budgets.", true, exchanges as f64);
        let help = "Exchanges with the shared budgets without an answer.";
        show("sluice_budget_exchange_failures_total", help, true, faults as f64);
    }
}

// === impl Round ===

impl Round {
    /// Hands the grants out; no grant: no answer.
    pub(super) fn settle(self, grants: &[Grant]) {
        for (at, (account, place)) in self.places.into_iter().enumerate() {
            account.lock().granted(&place, grants.get(at).copied());
        }
    }
}

fn lock<T>(list: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
