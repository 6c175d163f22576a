//! The right to occupy one slot of an instance.
//!
//! A permit is the only proof of admission: `Placed` cannot be built without one. The reply *stream* holds
//! it, so a slot is busy exactly while bytes flow and is free again on finish, error and disconnect alike.
//! Permits know nothing of fairness or waiting; that is the scheduler's trade.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::node::Claim;

/// Hands out at most `limit` permits at a time. The limit may change while permits are out: lowering it
/// takes nothing back, it only stops handing out until enough have returned.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    busy: AtomicU32,
    limit: AtomicU32,
    /// Tokens of the KV cache that calls occupy, and how many there may be.
    tokens: AtomicU64,
    room: AtomicU64,
    /// Work on prompts that was sent and not yet answered.
    unread: AtomicU64,
}

/// What a call takes of an instance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// Slots it may find taken at most, beside the limit: fewer than it while an instance starts slowly.
    pub ceiling: u32,
    /// Tokens of its KV cache.
    pub tokens: u64,
    /// Work on the prompt before the answer begins, in tokens read; 0 where nobody estimates it.
    pub unread: u64,
}

/// One occupied slot, with all that was taken beside it. Dropping it is the only way to give it back.
#[derive(Debug)]
#[must_use = "a dropped permit frees its slot at once"]
pub struct Permit {
    /// Given back first: whoever is told of a free slot finds the node free as well.
    claim: Option<Claim>,
    counter: Arc<Counter>,
    tokens: u64,
    unread: u64,
}

// === impl Slots ===

impl Slots {
    /// Slots for an instance; `None` means as many as asked for.
    pub fn new(limit: Option<u32>) -> Self {
        let limit = AtomicU32::new(limit.unwrap_or(u32::MAX));
        let (tokens, room, unread) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self(Arc::new(Counter { busy: AtomicU32::new(0), limit, tokens, room, unread }))
    }

    /// Takes a slot if one is free, and the tokens if they fit. Never waits.
    pub fn try_take(&self, wants: Room) -> Option<Permit> {
        let limit = self.0.limit.load(Ordering::Relaxed).min(wants.ceiling);
        // Invariant: busy ≤ limit, because the check and the increment are one atomic step.
        let claim = |busy: u32| (busy < limit).then(|| busy + 1);
        self.0.busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).ok()?;
        let mut permit = Permit { claim: None, counter: Arc::clone(&self.0), tokens: 0, unread: 0 };
        if let Some(room) = self.room() {
            let occupy = |tokens: u64| tokens.checked_add(wants.tokens).filter(|sum| *sum <= room);
            // Where they do not fit the permit is dropped, and with it the slot.
            self.0.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, occupy).ok()?;
            permit.tokens = wants.tokens;
        }
        if wants.unread > 0 {
            self.0.unread.fetch_add(wants.unread, Ordering::Relaxed);
            permit.unread = wants.unread;
        }
        Some(permit)
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

    /// Tokens occupied now; nothing is counted while there is no bound on them.
    pub fn tokens(&self) -> u64 {
        self.0.tokens.load(Ordering::Relaxed)
    }

    /// Work on prompts of calls whose answers have not begun, in tokens read.
    pub fn unread(&self) -> u64 {
        self.0.unread.load(Ordering::Relaxed)
    }

    /// How many tokens may be occupied; `None` when that is not bounded.
    pub fn room(&self) -> Option<u64> {
        let room = self.0.room.load(Ordering::Relaxed);
        (room != u64::MAX).then_some(room)
    }

    /// Changes how many tokens may be occupied, for permits handed out from now on.
    pub fn set_room(&self, room: Option<u64>) {
        self.0.room.store(room.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

// === impl Permit ===

impl Permit {
    /// The same, holding what was taken of the instance's node as well.
    pub fn with(mut self, claim: Claim) -> Self {
        self.claim = Some(claim);
        self
    }

    /// The answer has begun, so the prompt has been read. Told or not, it counts no longer once the permit is dropped.
    pub fn begun(&mut self) {
        let read = std::mem::take(&mut self.unread);
        if read > 0 {
            self.counter.unread.fetch_sub(read, Ordering::Relaxed);
        }
    }

    /// Whether giving it back may make room for calls of other deployments.
    pub fn shares(&self) -> bool {
        self.claim.is_some()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.claim = None;
        self.begun();
        if self.tokens > 0 {
            self.counter.tokens.fetch_sub(self.tokens, Ordering::AcqRel);
        }
        self.counter.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: Room = Room { ceiling: u32::MAX, tokens: 0, unread: 0 };

    #[test]
    fn tokens_that_do_not_fit_take_no_slot_either() {
        let slots = Slots::new(Some(4));
        slots.set_room(Some(100));
        let large = slots.try_take(Room { tokens: 80, ..ANY }).unwrap();
        assert!(slots.try_take(Room { tokens: 21, ..ANY }).is_none());
        assert_eq!((slots.busy(), slots.tokens()), (1, 80));
        let small = slots.try_take(Room { tokens: 20, ..ANY });
        assert!(small.is_some());
        drop((large, small));
        assert_eq!((slots.busy(), slots.tokens()), (0, 0));
    }

    #[test]
    fn a_prompt_is_unread_until_its_answer_begins_or_its_call_ends() {
        let slots = Slots::new(None);
        let mut read = slots.try_take(Room { unread: 700, ..ANY }).unwrap();
        let dropped = slots.try_take(Room { unread: 30, ..ANY });
        assert_eq!(slots.unread(), 730);
        read.begun();
        read.begun();
        assert_eq!(slots.unread(), 30);
        drop((read, dropped));
        assert_eq!((slots.unread(), slots.busy()), (0, 0));
    }

    #[test]
    fn a_lowered_limit_takes_nothing_back_and_hands_out_nothing_until_enough_returned() {
        let slots = Slots::new(Some(2));
        let (a, b) = (slots.try_take(ANY).unwrap(), slots.try_take(ANY).unwrap());
        slots.set_limit(Some(1));
        assert_eq!(slots.busy(), 2);
        drop(a);
        assert!(slots.try_take(ANY).is_none());
        drop(b);
        assert!(slots.try_take(ANY).is_some());
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
                    held.extend(slots.try_take(ANY));
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
