//! The retry budget: when much fails, trying again must not double the load on what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Bound: how long a call waits for its turn to be retried. Retries are short (they end with the first byte), so
/// a burst of failures, as when a machine dies, passes through the budget one after another.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Counts one model's calls in flight, and its retries among them (as Envoy's retry budget does).
#[derive(Debug)]
pub(crate) struct Budget {
    active: AtomicU32,
    retries: AtomicU32,
    freed: Notify,
    percent: u32,
    min: u32,
}

/// A call in flight.
#[derive(Debug)]
pub(crate) struct Active(Arc<Budget>);

/// A retry in flight.
#[derive(Debug)]
pub(crate) struct Retrying(Arc<Budget>);

impl Budget {
    pub(crate) fn new(percent: u32, min: u32) -> Arc<Self> {
        Arc::new(Self { active: AtomicU32::new(0), retries: AtomicU32::new(0), freed: Notify::new(), percent, min })
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    /// The right to retry, now or within a moment; `None` when the budget stays spent.
    pub(crate) async fn take(self: &Arc<Self>, within: Duration) -> Option<Retrying> {
        let turn = async {
            loop {
                let freed = self.freed.notified();
                if let Some(retrying) = self.try_take() {
                    return retrying;
                }
                freed.await;
            }
        };
        tokio::time::timeout(within.min(WAIT_MAX), turn).await.ok()
    }

    fn try_take(self: &Arc<Self>) -> Option<Retrying> {
        let share = u64::from(self.active.load(Ordering::Relaxed)) * u64::from(self.percent) / 100;
        let limit = u32::try_from(share).unwrap_or(u32::MAX).max(self.min);
        let claim = |retries: u32| (retries < limit).then(|| retries + 1);
        self.retries.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).ok()?;
        Some(Retrying(Arc::clone(self)))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_share_of_the_calls_in_flight_and_never_fewer_than_the_minimum() {
        let budget = Budget::new(20, 3);
        let held: Vec<_> = (0..3).map(|_| budget.try_take().unwrap()).collect();
        assert!(budget.try_take().is_none());
        let _active: Vec<_> = (0..20).map(|_| budget.enter()).collect();
        assert!(budget.try_take().is_some(), "20 % of 20 is 4");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_gets_the_turn_that_comes_free() {
        let budget = Budget::new(0, 1);
        let first = budget.try_take().unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take(Duration::from_secs(9)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        let _held = budget.try_take().unwrap();
        assert!(budget.take(Duration::from_secs(9)).await.is_none(), "and gives up after a second");
    }
}
