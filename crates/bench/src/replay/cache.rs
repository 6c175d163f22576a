//! The prefix cache of a worker: blocks, the least recently used forgotten first.

use std::collections::{HashMap, VecDeque};

use super::trace::Call;

/// Blocks by when they were last used. `order` has a line for every use; lines that a later use has overtaken are
/// skipped when their turn comes.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    used: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
    clock: u64,
}

// === impl Cache ===

impl Cache {
    /// How many of the call's first blocks it has.
    pub(crate) fn known(&self, call: &Call) -> usize {
        call.keys().take_while(|key| self.used.contains_key(key)).count()
    }

    /// The call's blocks are in use now. The last is entered first, so that a prompt is forgotten from its end.
    pub(crate) fn enter(&mut self, call: &Call) {
        for key in call.keys().rev() {
            self.clock += 1;
            self.used.insert(key, self.clock);
            self.order.push_back((self.clock, key));
        }
    }

    /// Forgets what is over the capacity.
    pub(crate) fn shrink(&mut self, capacity: usize) {
        while self.used.len() > capacity {
            let Some((clock, key)) = self.order.pop_front() else { return };
            if self.used.get(&key) == Some(&clock) {
                self.used.remove(&key);
            }
        }
        if self.order.len() > 4 * self.used.len().max(1024) {
            self.order.retain(|(clock, key)| self.used.get(key) == Some(clock));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(blocks: &[u32]) -> Call {
        Call { at: 0, input: 512 * blocks.len() as u64, output: 1, tenant: 0, blocks: blocks.to_vec() }
    }

    #[test]
    fn the_end_of_the_oldest_prompt_is_forgotten_first() {
        let mut cache = Cache::default();
        cache.enter(&call(&[1, 2, 3]));
        cache.enter(&call(&[1, 8]));
        cache.shrink(3);
        assert_eq!((cache.known(&call(&[1, 2, 3])), cache.known(&call(&[1, 8]))), (2, 2));
        cache.shrink(1);
        assert_eq!((cache.known(&call(&[1, 2, 3])), cache.known(&call(&[1, 8]))), (1, 1));
    }

    #[test]
    fn tenants_do_not_share() {
        let mut cache = Cache::default();
        cache.enter(&call(&[1, 2]));
        assert_eq!(cache.known(&Call { tenant: 1, ..call(&[1, 2]) }), 0);
    }
}
