//! The right to occupy one slot of an instance.
//!
//! A permit is the only proof of admission: `Placed` cannot be built without one. The reply *stream* holds
//! it, so a slot is busy exactly while bytes flow and is free again on finish, error and disconnect alike.
//! Permits know nothing of fairness or waiting; that is the scheduler's trade.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Hands out at most `limit` permits at a time. The limit may change while permits are out: lowering it
/// takes nothing back, it only stops handing out until enough have returned.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    busy: AtomicU32,
    limit: AtomicU32,
}

/// One occupied slot. Dropping it is the only way to give it back.
#[derive(Debug)]
#[must_use = "a dropped permit frees its slot at once"]
pub struct Permit(Arc<Counter>);

// === impl Slots ===

impl Slots {
    /// Slots for an instance; `None` means as many as asked for.
    pub fn new(limit: Option<u32>) -> Self {
        let limit = AtomicU32::new(limit.unwrap_or(u32::MAX));
        Self(Arc::new(Counter { busy: AtomicU32::new(0), limit }))
    }

    /// Takes a slot if one is free under both the limit and `ceiling`. Never waits.
    pub fn try_take(&self, ceiling: u32) -> Option<Permit> {
        let limit = self.0.limit.load(Ordering::Relaxed).min(ceiling);
        // Invariant: busy ≤ limit, because the check and the increment are one atomic step.
        let claim = |busy: u32| (busy < limit).then(|| busy + 1);
        self.0.busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).ok()?;
        Some(Permit(Arc::clone(&self.0)))
    }

    /// Slots taken now.
    pub fn busy(&self) -> u32 {
        self.0.busy.load(Ordering::Relaxed)
    }

    /// The limit; `None` when there is none.
    pub fn limit(&self) -> Option<u32> {
        let limit = self.0.limit.load(Ordering::Relaxed);
        (limit != u32::MAX).then_some(limit)
    }

    /// Changes the limit for permits handed out from now on.
    pub fn set_limit(&self, limit: Option<u32>) {
        self.0.limit.store(limit.unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lowered_limit_takes_nothing_back_and_hands_out_nothing_until_enough_returned() {
        let slots = Slots::new(Some(2));
        let (a, b) = (slots.try_take(9).unwrap(), slots.try_take(9).unwrap());
        slots.set_limit(Some(1));
        assert_eq!(slots.busy(), 2);
        drop(a);
        assert!(slots.try_take(9).is_none());
        drop(b);
        assert!(slots.try_take(9).is_some());
    }

    proptest! {
        #[test]
        fn permits_in_equal_permits_out_and_never_exceed_the_limit(
            limit in 1u32..8, takes in proptest::collection::vec(any::<bool>(), 0..200)
        ) {
            let slots = Slots::new(Some(limit));
            let mut held = Vec::new();
            for take in takes {
                if take {
                    held.extend(slots.try_take(u32::MAX));
                } else {
                    held.pop();
                }
                prop_assert!(slots.busy() <= limit);
                prop_assert_eq!(slots.busy() as usize, held.len());
            }
            held.clear();
            prop_assert_eq!(slots.busy(), 0);
        }
    }
}
