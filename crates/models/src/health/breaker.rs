//! The circuit breaker: an instance that answers, but mostly badly, is left alone for a while.
//!
//! The share of failures is exact over ten buckets of the window, so it does not depend on the rate of
//! calls. Open, it lets nobody through; after `open_ms` one call probes: success closes it, failure doubles the wait.

use std::time::Duration;

use kernel::Moment;

use crate::settings::BreakerSettings;

const BUCKETS: usize = 10;
/// Bound: how often the open time may double.
const DOUBLINGS_MAX: u32 = 4;
/// A probe that neither reports back nor ends is forgotten after this many open times.
const PROBE_PATIENCE: u32 = 4;

#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    /// Calls and failures per bucket.
    counts: [(u32, u32); BUCKETS],
    /// Number of the newest bucket since the clock's zero.
    newest: u64,
    phase: Phase,
    doublings: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Closed,
    /// Nobody may pass before this moment; then one may.
    Open(Moment),
    /// One call is out to probe; if it never reports, another may after this moment.
    Probing(Moment),
}

impl Default for Breaker {
    fn default() -> Self {
        Self { counts: [(0, 0); BUCKETS], newest: 0, phase: Phase::Closed, doublings: 0 }
    }
}

impl Breaker {
    pub(crate) fn allows(&self, now: Moment) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open(until) | Phase::Probing(until) => now >= until,
        }
    }

    /// A call is about to go out.
    pub(crate) fn chosen(&mut self, rules: &BreakerSettings, now: Moment) {
        if let Phase::Open(until) | Phase::Probing(until) = self.phase
            && now >= until
        {
            self.phase = Phase::Probing(now + rules.open_ms.duration() * PROBE_PATIENCE);
        }
    }

    /// A call ended without telling how it went.
    pub(crate) fn abandoned(&mut self) {
        if let Phase::Probing(_) = self.phase {
            self.phase = Phase::Open(Moment::default());
        }
    }

    /// A call came back.
    pub(crate) fn record(&mut self, rules: &BreakerSettings, succeeded: bool, now: Moment) {
        match self.phase {
            Phase::Probing(_) if succeeded => *self = Self::default(),
            Phase::Probing(_) => {
                self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
                self.open(rules, now);
            }
            Phase::Open(_) => {} // a straggler from before
            Phase::Closed => self.count(rules, succeeded, now),
        }
    }

    pub(crate) fn back_in(&self, now: Moment) -> Duration {
        match self.phase {
            Phase::Closed => Duration::ZERO,
            Phase::Open(until) | Phase::Probing(until) => until.since(now),
        }
    }

    fn count(&mut self, rules: &BreakerSettings, succeeded: bool, now: Moment) {
        let width = (rules.window_ms.0 * 1000 / BUCKETS as u64).max(1);
        let bucket = now.as_micros() / width;
        for passed in self.newest + 1..=bucket.min(self.newest + BUCKETS as u64) {
            self.slot(passed.max(bucket.saturating_sub(BUCKETS as u64 - 1)), |slot| *slot = (0, 0));
        }
        if bucket > self.newest + BUCKETS as u64 {
            self.counts = [(0, 0); BUCKETS];
        }
        self.newest = self.newest.max(bucket);
        self.slot(bucket, |slot| *slot = (slot.0.saturating_add(1), slot.1.saturating_add(u32::from(!succeeded))));
        let (calls, failures) =
            self.counts.iter().fold((0u64, 0u64), |sum, slot| (sum.0 + u64::from(slot.0), sum.1 + u64::from(slot.1)));
        let open = rules.failure_percent > 0
            && calls >= u64::from(rules.min_calls.max(1))
            && failures * 100 >= calls * u64::from(rules.failure_percent);
        if open {
            self.open(rules, now);
        }
    }

    fn slot(&mut self, bucket: u64, change: impl FnOnce(&mut (u32, u32))) {
        if let Some(slot) = self.counts.get_mut((bucket % BUCKETS as u64) as usize) {
            change(slot);
        }
    }

    fn open(&mut self, rules: &BreakerSettings, now: Moment) {
        self.counts = [(0, 0); BUCKETS];
        self.phase = Phase::Open(now + rules.open_ms.duration() * 2u32.pow(self.doublings));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::settings::Millis;

    const RULES: BreakerSettings =
        BreakerSettings { window_ms: Millis(10_000), min_calls: 10, failure_percent: 50, open_ms: Millis(5_000) };

    const fn at(millis: u64) -> Moment {
        Moment::from_micros(1_000_000_000 + millis * 1000)
    }

    fn feed(breaker: &mut Breaker, from: u64, outcomes: impl IntoIterator<Item = bool>) {
        outcomes.into_iter().zip(from..).for_each(|(ok, millis)| breaker.record(&RULES, ok, at(millis)));
    }

    #[test]
    fn it_opens_at_the_share_and_not_below_the_least_count() {
        let mut breaker = Breaker::default();
        feed(&mut breaker, 0, [false; 9]);
        assert!(breaker.allows(at(10)));
        feed(&mut breaker, 10, [false]);
        assert!(!breaker.allows(at(11)));
        let mut healthy = Breaker::default();
        feed(&mut healthy, 0, (0..100).map(|n| n % 5 != 0));
        assert!(healthy.allows(at(200)));
    }

    #[test]
    fn failures_outside_the_window_are_forgotten() {
        let mut breaker = Breaker::default();
        feed(&mut breaker, 0, [false; 9]);
        feed(&mut breaker, 30_000, [false]);
        assert!(breaker.allows(at(30_001)));
    }

    #[test]
    fn one_probe_goes_out_and_decides() {
        let mut breaker = Breaker::default();
        feed(&mut breaker, 0, [false; 10]);
        assert!(!breaker.allows(at(4_999)));
        assert!(breaker.allows(at(5_010)));
        breaker.chosen(&RULES, at(5_010));
        assert!(!breaker.allows(at(5_011)), "one probe at a time");
        breaker.record(&RULES, false, at(5_020));
        assert!(!breaker.allows(at(14_000)), "the wait has doubled");
        breaker.chosen(&RULES, at(15_030));
        breaker.record(&RULES, true, at(15_040));
        assert!(breaker.allows(at(15_041)));
    }

    #[test]
    fn a_probe_whose_client_left_is_not_waited_for() {
        let mut breaker = Breaker::default();
        feed(&mut breaker, 0, [false; 10]);
        breaker.chosen(&RULES, at(5_010));
        breaker.abandoned();
        assert!(breaker.allows(at(5_011)));
    }
}
