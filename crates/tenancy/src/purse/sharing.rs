//! Several processes with the same budgets.
//!
//! One task exchanges what is due; calls never ask. Where they have too little on lease they wait, as they do for a ledger
//! that has not told yet, and the task is woken. Without an answer each process keeps to its part of what the ledger last
//! said: what remains, through the number of processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::Moment;
use kernel::share::{GONE_AFTER, Grant, Order, Share};
use kernel::sight::Sample;
use kernel::store::Fault;
use tokio::sync::Notify;

use super::books::Place;
use super::lease::Footing;
use super::{Account, Purse};

/// Between two signs of life. Bound: three of them before a process counts as gone.
const BEAT: Duration = Duration::from_secs(1);
const _: () = assert!(BEAT.as_millis() * 3 <= GONE_AFTER.as_millis());
/// Between two exchanges of what nobody waits for. Bound: several before what is held would be lost.
const PAUSE: Duration = Duration::from_millis(250);
/// After so many failures in a row the counters count as out of reach.
const FAULTS_MAX: u32 = 2;
/// Orders per exchange. Bound: what carries them out works for a millisecond at most.
const ORDERS_MAX: usize = 256;

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

/// Shares a purse's budgets with other processes, for as long as it is polled.
pub async fn share<T>(purse: Arc<Purse>, share: Arc<dyn Share>) -> T {
    let standing = &purse.standing;
    let (mut faults, mut beat, mut all) = (0, Moment::now(), Moment::now());
    loop {
        if Moment::now() >= beat {
            match share.beat().await {
                Ok(nodes) => {
                    standing.set(TOGETHER, nodes.max(1));
                    faults = 0;
                }
                Err(fault) => faults = standing.missed(faults, &fault),
            }
            beat = Moment::now() + BEAT;
            purse.loaded.notify_waiters();
        }
        if let Footing::Together { nodes } = standing.footing() {
            let everybody = Moment::now() >= all;
            if everybody {
                all = Moment::now() + PAUSE;
            }
            for round in standing.rounds(nodes, everybody) {
                standing.exchanges.fetch_add(1, Ordering::Relaxed);
                let grants = share.exchange(&round.orders).await;
                faults = match &grants {
                    Ok(_) => 0,
                    Err(fault) => standing.missed(faults, fault),
                };
                round.settle(grants.as_deref().unwrap_or_default());
            }
            purse.loaded.notify_waiters();
        }
        let next = if matches!(standing.footing(), Footing::Together { .. }) { beat.min(all) } else { beat };
        tokio::select! {
            () = standing.wake.notified() => {}
            () = tokio::time::sleep(next.remaining()) => {}
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
        }
        if hurry && !account.hurried.swap(true, Ordering::AcqRel) {
            lock(&self.hurried).push(Arc::clone(account));
            self.wake.notify_one();
        }
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

    /// An exchange or a sign of life got no answer.
    fn missed(&self, faults: u32, fault: &Fault) -> u32 {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let nodes = match self.footing() {
            Footing::Together { nodes } if faults + 1 >= FAULTS_MAX => nodes,
            Footing::Joining => 1,
            _ => return faults + 1,
        };
        tracing::warn!(nodes, "budgets cannot be shared, each process keeps to its part of what remains: {fault}");
        self.set(APART, nodes);
        let listed = std::mem::take(&mut *lock(&self.listed));
        for account in listed {
            let mut books = account.lock();
            account.listed.store(false, Ordering::Release);
            books.part();
        }
        faults + 1
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
        let help = "Exchanges and signs of life of shared budgets without an answer.";
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
