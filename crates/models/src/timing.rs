//! A moving idea of how long an instance takes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::Moment;

/// Peak-sensitive exponentially weighted moving average (as in Finagle and linkerd): a slower answer counts
/// at once, faster ones are believed gradually.
#[derive(Debug)]
pub(crate) struct PeakEwma(Mutex<Estimate>);

#[derive(Debug, Clone, Copy)]
struct Estimate {
    micros: f64,
    at: Moment,
}

/// Time for an old observation to lose 63 % of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// What is believed of an instance never seen.
const INITIAL_MICROS: f64 = 30_000.0;
/// What a failure counts as: long enough to be avoided, short enough to be forgiven within a minute.
pub(crate) const FAILURE: Duration = Duration::from_secs(5);

impl PeakEwma {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Estimate { micros: INITIAL_MICROS, at: Moment::default() }))
    }

    /// Takes one observation.
    pub(crate) fn observe(&self, took: Duration, now: Moment) {
        let mut estimate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = took.as_secs_f64() * 1e6;
        let keep = (-now.since(estimate.at).as_secs_f64() / DECAY.as_secs_f64()).exp();
        let micros = if seen > estimate.micros { seen } else { estimate.micros * keep + seen * (1.0 - keep) };
        *estimate = Estimate { micros, at: now };
    }

    /// What is believed now, in microseconds; it sinks while nothing is observed, so that a punished instance gets
    /// another chance.
    pub(crate) fn micros(&self, now: Moment) -> f64 {
        let estimate = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = (-now.since(estimate.at).as_secs_f64() / DECAY.as_secs_f64()).exp();
        estimate.micros * keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgiven_gradually() {
        let ewma = PeakEwma::new();
        let at = |secs: u64| Moment::from_micros(secs * 1_000_000);
        ewma.observe(Duration::from_secs(5), at(100));
        assert!(ewma.micros(at(100)) > 4_900_000.0);
        ewma.observe(Duration::from_millis(10), at(105));
        let after = ewma.micros(at(105));
        assert!((2_000_000.0..4_900_000.0).contains(&after), "{after}");
        assert!(ewma.micros(at(165)) < 20_000.0);
    }
}
