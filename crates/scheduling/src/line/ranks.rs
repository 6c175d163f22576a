//! Which class goes next: strictly the highest, except that lower ones age, and may have a share reserved.

use std::time::Duration;

use kernel::{Moment, Priority};

use super::Age;

/// Rules and memory of the order of classes. Arrays go by [`Priority::rank`].
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    aging: Duration,
    /// Percent of the turns that a class gets whenever it asks for them.
    reserved: [u32; 3],
    /// What each class has to its credit, in percent of a turn.
    credit: [u32; 3],
    /// Turns given since the last that went to an aged class.
    since_aged: u32,
    /// Turns given in all, and the number of the last that each class had.
    turns: u64,
    last: [u64; 3],
}

/// While a lower class has aged, every so many-th turn is its: enough not to starve, few enough that what is urgent
/// hardly notices.
pub(crate) const AGED_EVERY: u32 = 8;

impl Ranks {
    pub(crate) fn new(aging: Duration, reserved: [u32; 3]) -> Self {
        Self { aging, reserved, credit: [0; 3], since_aged: AGED_EVERY, turns: 0, last: [0; 3] }
    }

    /// Takes over another's rules and keeps its own memory.
    pub(crate) fn set(&mut self, rules: Self) {
        (self.aging, self.reserved) = (rules.aging, rules.reserved);
    }

    /// Whose turn it is, given the oldest ticket of each class that could be served.
    pub(crate) fn next(&self, oldest: [Option<Age>; 3], now: Moment) -> Option<Priority> {
        let waits = |class: &Priority| oldest.get(class.rank()).is_some_and(Option::is_some);
        let highest = Priority::ALL.into_iter().find(waits)?;
        let credit = |class: &Priority| self.credit.get(class.rank()).copied().unwrap_or(0);
        let reserved = Priority::ALL.into_iter().filter(|class| waits(class) && credit(class) >= 100);
        if let Some(class) = reserved.max_by_key(credit) {
            return Some(class);
        }
        if self.since_aged + 1 >= AGED_EVERY
            && let Some(class) = self.aged(highest, oldest, now)
        {
            return Some(class);
        }
        Some(highest)
    }

    /// A turn went to `class`; `oldest` as before it was taken.
    pub(crate) fn served(&mut self, class: Priority, oldest: [Option<Age>; 3], now: Moment) {
        self.turns += 1;
        let highest = Priority::ALL.into_iter().find(|class| oldest.get(class.rank()).is_some_and(Option::is_some));
        let aged = highest.is_some_and(|highest| self.aged(highest, oldest, now).is_some());
        if Some(class) != highest && aged {
            self.since_aged = 0;
        } else {
            self.since_aged = if aged { self.since_aged.saturating_add(1) } else { AGED_EVERY };
        }
        for (at, waits) in oldest.iter().map(Option::is_some).enumerate() {
            let (Some(credit), Some(reserved)) = (self.credit.get_mut(at), self.reserved.get(at)) else { continue };
            // Nothing is saved up while nobody asks, and never more than two turns.
            *credit = if waits { (*credit + reserved).min(200) } else { 0 };
            if at == class.rank() {
                self.last.iter_mut().skip(at).take(1).for_each(|last| *last = self.turns);
                *credit = credit.saturating_sub(100);
            }
        }
    }

    /// The class below the highest whose oldest ticket has waited long enough; of two, the one whose last turn is longer
    /// ago, so that neither starves the other.
    fn aged(&self, highest: Priority, oldest: [Option<Age>; 3], now: Moment) -> Option<Priority> {
        let age = |class: &Priority| oldest.get(class.rank()).copied().flatten();
        let aged = |class: &Priority| age(class).is_some_and(|age| now.since(age.since) >= self.aging);
        let lower = Priority::ALL.into_iter().filter(|class| *class < highest && aged(class));
        lower.min_by_key(|class| (self.last.get(class.rank()).copied(), age(class)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(since: [Option<u64>; 3]) -> [Option<Age>; 3] {
        since.map(|since| since.map(|millis| Age { since: at(millis), number: millis }))
    }

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    /// How many of `turns` go to each class while all that are given wait endlessly.
    fn shares(ranks: &mut Ranks, oldest: [Option<Age>; 3], turns: u32, now: Moment) -> [u32; 3] {
        let mut count = [0; 3];
        for _ in 0..turns {
            let class = ranks.next(oldest, now).unwrap();
            ranks.served(class, oldest, now);
            count[class.rank()] += 1;
        }
        count
    }

    #[test]
    fn the_highest_class_goes_first_and_always() {
        let mut ranks = Ranks::new(Duration::from_secs(10), [0; 3]);
        assert_eq!(shares(&mut ranks, waits([Some(0), Some(0), Some(0)]), 100, at(9_999)), [100, 0, 0]);
        assert_eq!(shares(&mut ranks, waits([None, Some(0), Some(0)]), 100, at(9_999)), [0, 100, 0]);
    }

    #[test]
    fn an_aged_class_gets_the_next_turn_and_then_every_eighth() {
        let mut ranks = Ranks::new(Duration::from_secs(10), [0; 3]);
        let oldest = waits([Some(9_000), None, Some(0)]);
        assert_eq!(ranks.next(oldest, at(9_999)), Some(Priority::High));
        assert_eq!(ranks.next(oldest, at(10_000)), Some(Priority::Low), "the next turn");
        assert_eq!(shares(&mut ranks, oldest, 800, at(10_000)), [700, 0, 100]);
    }

    #[test]
    fn two_aged_classes_take_that_turn_by_turns() {
        let mut ranks = Ranks::new(Duration::from_secs(1), [0; 3]);
        assert_eq!(ranks.next(waits([Some(9), Some(5), Some(7)]), at(2_000)), Some(Priority::Normal));
        assert_eq!(ranks.next(waits([Some(9), Some(8), Some(7)]), at(2_000)), Some(Priority::Low));
        let count = shares(&mut ranks, waits([Some(9), Some(8), Some(7)]), 80, at(2_000));
        assert_eq!(count, [70, 5, 5]);
    }

    #[test]
    fn a_reserved_share_is_given_whenever_it_is_asked_for_and_not_saved_up() {
        let mut ranks = Ranks::new(Duration::from_secs(1_000), [0, 20, 10]);
        let all = waits([Some(0), Some(0), Some(0)]);
        shares(&mut ranks, all, 10, at(0));
        assert_eq!(shares(&mut ranks, all, 1_000, at(0)), [700, 200, 100]);
        shares(&mut ranks, waits([Some(0), None, None]), 1_000, at(0));
        let count = shares(&mut ranks, waits([Some(0), None, Some(0)]), 101, at(0));
        assert_eq!(count, [91, 0, 10], "a tenth of the turns, from the tenth on");
    }
}
