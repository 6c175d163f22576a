//! The retry budget: when much fails, trying again must not double the load on what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts one model's calls in flight, and its retries among them (as Envoy's retry budget does).
#[derive(Debug)]
pub(crate) struct Budget {
    active: AtomicU32,
    retries: AtomicU32,
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
        Arc::new(Self { active: AtomicU32::new(0), retries: AtomicU32::new(0), percent, min })
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    /// The right to retry; `None` when the budget is spent.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Retrying> {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_calls_in_flight_and_never_fewer_than_the_minimum() {
        let budget = Budget::new(20, 3);
        let held: Vec<_> = (0..3).map(|_| budget.take().unwrap()).collect();
        assert!(budget.take().is_none());
        let _active: Vec<_> = (0..20).map(|_| budget.enter()).collect();
        let fourth = budget.take();
        assert!(fourth.is_some() && budget.take().is_none(), "20 % of 20 is 4");
        drop((held, fourth));
        assert!(budget.take().is_some(), "what ended is free again");
    }
}
