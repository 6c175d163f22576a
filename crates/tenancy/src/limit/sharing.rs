//! Limits that several processes share: who looks after the leases, and what holds while nobody can.
//!
//! One task exchanges what is due, many counters at a time, and never more often than every few milliseconds. Where the
//! shared counters cannot be reached, each process keeps to its part of every limit, by the number of processes last seen;
//! when they can be again, it owes there what it took by its own count, and goes on with leases. No call waits for any of
//! this.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kernel::Moment;
use kernel::share::{GONE_AFTER, Grant, Order, Share};
use kernel::sight::Sample;
use kernel::store::Fault;
use tokio::sync::Notify;

use super::account::{Account, Whose};
use super::level::{Dimension, Footing};
use super::{Limiter, lock};

/// Between two rounds of exchanges. Bound: what is asked for meanwhile goes along with them.
const PACE: Duration = Duration::from_millis(5);
/// Added for each tenant looked after. Bound: with it, looking takes a twentieth of one core at most.
const PACE_EACH: Duration = Duration::from_micros(2);
/// Between two signs of life. Bound: two may be lost before the others think this process gone.
const BEAT: Duration = Duration::from_millis(GONE_AFTER.as_millis() as u64 / 3);
/// Between two tries to reach what could not be reached.
const RETRY: Duration = Duration::from_millis(500);
/// After so many exchanges in a row without an answer the counters count as out of reach.
const FAULTS_MAX: u32 = 2;
/// Orders per exchange. Bound: what carries them out works for a millisecond at most.
const ORDERS_MAX: usize = 256;

const TOGETHER: u64 = 1;
const APART: u64 = 2;

/// Whether this process shares its limits, and with how many.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// How it stands (the lower half), and the number of processes (the upper): one word, so that they fit each other.
    word: AtomicU64,
    /// Tenants that have come since the last round.
    news: Mutex<Vec<Arc<Account>>>,
    /// Tenants with leases.
    listed: Mutex<Vec<Arc<Account>>>,
    wake: Notify,
    exchanges: AtomicU64,
    faults: AtomicU64,
}

/// What one round exchanges.
pub(super) struct Round {
    orders: Vec<Order>,
    /// Where each grant goes.
    places: Vec<(Arc<Account>, Whose, Dimension)>,
}

/// Shares a limiter's counters with other processes, for as long as it is polled.
pub async fn share<T>(limiter: Arc<Limiter>, share: Arc<dyn Share>) -> T {
    let standing = &limiter.standing;
    let mut faults = 0;
    let mut beat = Moment::now();
    loop {
        if Moment::now() >= beat {
            let before = standing.footing();
            match share.beat().await {
                Ok(nodes) => {
                    standing.set(TOGETHER, nodes.max(1));
                    faults = 0;
                    if !matches!(before, Footing::Together { .. }) {
                        tracing::info!(nodes, "limits are shared");
                    }
                }
                Err(fault) => faults = standing.missed(faults, &fault),
            }
            beat = Moment::now() + if matches!(standing.footing(), Footing::Together { .. }) { BEAT } else { RETRY };
        }
        if let Footing::Together { nodes } = standing.footing() {
            for round in standing.rounds(nodes, Moment::now()) {
                standing.exchanges.fetch_add(1, Ordering::Relaxed);
                let grants = share.exchange(&round.orders).await;
                let now = Moment::now();
                match grants {
                    Ok(grants) => {
                        round.settle(&grants, nodes, now);
                        faults = 0;
                    }
                    Err(fault) => {
                        round.settle(&[], nodes, now);
                        faults = standing.missed(faults, &fault);
                    }
                }
                if !matches!(standing.footing(), Footing::Together { .. }) {
                    beat = now + RETRY;
                    break;
                }
            }
        } else {
            standing.part();
        }
        standing.pause(beat).await;
    }
}

// === impl Standing ===

impl Standing {
    pub(super) fn footing(&self) -> Footing {
        let word = self.word.load(Ordering::Acquire);
        let nodes = u32::try_from(word >> 32).unwrap_or(u32::MAX);
        match word & u64::from(u32::MAX) {
            TOGETHER => Footing::Together { nodes },
            APART => Footing::Apart { nodes },
            _ => Footing::Alone,
        }
    }

    pub(super) fn set(&self, how: u64, nodes: u32) {
        self.word.store(u64::from(nodes) << 32 | how, Ordering::Release);
    }

    #[cfg(test)]
    pub(super) fn together(&self, nodes: u32) {
        self.set(TOGETHER, nodes);
    }

    #[cfg(test)]
    pub(super) fn apart(&self) {
        self.set(APART, self.nodes());
        self.part();
    }

    /// A tenant has come whose leases must be looked after.
    pub(super) fn list(&self, account: &Arc<Account>) {
        lock(&self.news).push(Arc::clone(account));
        self.wake.notify_one();
    }

    /// What is to be exchanged now.
    pub(super) fn rounds(&self, nodes: u32, now: Moment) -> Vec<Round> {
        let mut listed = lock(&self.listed);
        listed.append(&mut lock(&self.news));
        let (mut all, mut orders) = (Vec::new(), Vec::new());
        listed.retain(|account| {
            let mut levels = account.lock();
            levels.orders(&account.tenant, nodes, now, &mut orders);
            all.extend(
                orders.drain(..).map(|(order, whose, dimension)| (order, (Arc::clone(account), whose, dimension))),
            );
            levels.listed = !levels.shares_nothing();
            levels.listed
        });
        drop(listed);
        let mut rounds: Vec<Round> = Vec::new();
        for (order, place) in all {
            match rounds.last_mut().filter(|round| round.orders.len() < ORDERS_MAX) {
                Some(round) => round.push(order, place),
                None => rounds.push(Round { orders: vec![order], places: vec![place] }),
            }
        }
        rounds
    }

    fn nodes(&self) -> u32 {
        u32::try_from(self.word.load(Ordering::Acquire) >> 32).unwrap_or(u32::MAX).max(1)
    }

    /// An exchange or a sign of life got no answer.
    fn missed(&self, faults: u32, fault: &Fault) -> u32 {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let together = matches!(self.footing(), Footing::Together { .. });
        if !together && !matches!(self.footing(), Footing::Alone) || together && faults + 1 < FAULTS_MAX {
            return faults + 1;
        }
        let nodes = self.nodes();
        tracing::warn!(nodes, "limits cannot be shared, each process keeps to its part: {fault}");
        self.set(APART, nodes);
        self.part();
        faults + 1
    }

    /// Lets go of all leases: what they are worth nobody knows any more.
    fn part(&self) {
        let mut listed = lock(&self.listed);
        listed.append(&mut lock(&self.news));
        listed.drain(..).for_each(|account| account.lock().part());
    }

    /// Until the next round or the next sign of life.
    async fn pause(&self, beat: Moment) {
        let looked_after = u32::try_from(lock(&self.listed).len()).unwrap_or(u32::MAX);
        if looked_after > 0 {
            return tokio::time::sleep(PACE + PACE_EACH * looked_after).await;
        }
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(beat.remaining()) => {}
        }
    }

    pub(super) fn show(&self, to: &mut dyn FnMut(Sample)) {
        let footing = self.footing();
        if footing == Footing::Alone {
            return;
        }
        let mut show = |name, help, counter, value: f64| to(Sample { name, help, counter, labels: Vec::new(), value });
        let shared = f64::from(u8::from(matches!(footing, Footing::Together { .. })));
        show(
            "sluice_limit_shared",
            "1 while limits are shared with other processes, 0 while each keeps to its part.",
            false,
            shared,
        );
        show(
            "sluice_limit_nodes",
            "Processes that share limits, by the last sign of life.",
            false,
            f64::from(self.nodes()),
        );
        let (exchanges, faults) = (self.exchanges.load(Ordering::Relaxed), self.faults.load(Ordering::Relaxed));
        show("sluice_limit_exchanges_total", "Exchanges with the shared counters.", true, exchanges as f64);
        show(
            "sluice_limit_exchange_failures_total",
            "Exchanges and signs of life without an answer.",
            true,
            faults as f64,
        );
        let mut bounds = Dimension::ALL.map(|dimension| (dimension, 0));
        let listed = lock(&self.listed).clone();
        for account in listed {
            account.lock().bounds(&mut |dimension, bound| {
                let found = bounds.iter_mut().filter(|(one, _)| *one == dimension);
                found.for_each(|(_, most)| *most = bound.max(*most));
            });
        }
        for (dimension, bound) in bounds {
            to(Sample {
                name: "sluice_limit_lease_bound",
                help: "The most of one limit that this process may let through and the others do not know of.",
                counter: false,
                labels: vec![("limit", dimension.word().to_owned())],
                value: bound as f64,
            });
        }
    }
}

// === impl Round ===

impl Round {
    fn push(&mut self, order: Order, place: (Arc<Account>, Whose, Dimension)) {
        self.orders.push(order);
        self.places.push(place);
    }

    #[cfg(test)]
    pub(super) fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// Hands the grants out; no grant: no answer.
    pub(super) fn settle(self, grants: &[Grant], nodes: u32, now: Moment) {
        for (at, (account, whose, dimension)) in self.places.into_iter().enumerate() {
            account.lock().granted(&whose, dimension, grants.get(at).copied(), nodes, now);
        }
    }
}
