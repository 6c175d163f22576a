//! Which bit of the index stands for which instance.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::FixedState;
use kernel::Moment;

use super::index::SLOTS;

/// The numbers given out. An instance that was gone for a while gets a new one when it returns: it has been restarted, or
/// others have had its calls, and either way its cache is not what the index says.
#[derive(Debug, Default)]
pub(super) struct Roll {
    numbers: HashMap<u64, usize, FixedState>,
    seen: Vec<Moment>,
    /// When anybody was last seen.
    latest: Moment,
    before: Moment,
}

/// How long an instance may not be a candidate, while others are, before it counts as gone. Bound: longer than a pause
/// after a failure or a moment with every slot taken; a model server takes about as long to start.
const GONE_AFTER: Duration = Duration::from_secs(60);

impl Roll {
    /// A choice begins.
    pub(super) fn open(&mut self, now: Moment) {
        self.before = self.latest;
        self.latest = self.latest.max(now);
    }

    /// The number of an instance that is a candidate now; `None` when there are more than can be told apart: they are
    /// used, but not remembered. A number is given out again once the index has forgotten (`memory`) whose it was.
    pub(super) fn number(&mut self, identity: u64, memory: Duration) -> Option<usize> {
        if let Some(number) = self.numbers.get(&identity)
            && let Some(seen) = self.seen.get_mut(*number)
            && self.before.since(*seen) <= GONE_AFTER
        {
            *seen = self.latest;
            return Some(*number);
        }
        self.numbers.remove(&identity);
        let number = if self.seen.len() < SLOTS {
            self.seen.push(self.latest);
            self.seen.len() - 1
        } else {
            let free = self.seen.iter().position(|seen| self.latest.since(*seen) > memory)?;
            self.numbers.retain(|_, number| *number != free);
            *self.seen.get_mut(free)? = self.latest;
            free
        };
        self.numbers.insert(identity, number);
        Some(number)
    }

    /// The number an instance has.
    pub(super) fn known(&self, identity: u64) -> Option<usize> {
        self.numbers.get(&identity).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(1000);

    fn call(roll: &mut Roll, second: u64, identities: &[u64]) -> Vec<Option<usize>> {
        roll.open(Moment::from_micros(second * 1_000_000));
        identities.iter().map(|identity| roll.number(*identity, MEMORY)).collect()
    }

    #[test]
    fn an_instance_keeps_its_number_through_a_silent_night_but_not_through_an_absence() {
        let mut roll = Roll::default();
        assert_eq!(call(&mut roll, 0, &[10, 20]), [Some(0), Some(1)]);
        assert_eq!(call(&mut roll, 30_000, &[10, 20]), [Some(0), Some(1)], "nobody was called meanwhile");
        for second in 30_001..30_090 {
            call(&mut roll, second, &[10]);
        }
        assert_eq!(call(&mut roll, 30_090, &[10, 20]), [Some(0), Some(2)]);
    }

    #[test]
    fn numbers_run_out_and_come_back_when_their_blocks_are_forgotten() {
        let mut roll = Roll::default();
        let all: Vec<u64> = (0..SLOTS as u64).collect();
        assert!(call(&mut roll, 0, &all).iter().all(Option::is_some));
        assert_eq!(call(&mut roll, 900, &[1000]), [None]);
        assert_eq!(call(&mut roll, 1001, &[1000]), [Some(0)]);
        assert_eq!(roll.known(0), None);
    }
}
