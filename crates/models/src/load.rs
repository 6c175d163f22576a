//! What an instance itself says of its load, beside the calls we know it has from us.
//!
//! A backend may have other callers, and its figures are always of some moments ago. So a sample is kept together with
//! how many calls of ours the instance had at that moment: what it has beyond those is other people's, and is added to
//! what we count ourselves, which is never late. Knows nothing of choosing; that is `balance::least_load`.

mod dialect;
mod exposition;
pub(crate) mod sampler;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::Moment;

pub(crate) use sampler::Sampling;

/// The last sample of one instance.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<Option<Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    reading: Reading,
    ours: u32,
    at: Moment,
}

/// What a backend says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reading {
    /// Calls that wait in it.
    pub(crate) waiting: f64,
    /// Calls it works on.
    pub(crate) running: f64,
    /// The share of its KV cache in use, where it says so.
    pub(crate) kv_used: Option<f64>,
}

/// A sample as it is to be taken now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// Calls that waited in the instance.
    pub waiting: f64,
    /// Calls it worked on.
    pub running: f64,
    /// The share of its KV cache that was in use, where it says so.
    pub kv_used: Option<f64>,
    /// Calls of ours it had at that moment. The calls it has from us now, less these, are those we have started and not
    /// ended since.
    pub ours: u32,
    /// How long ago it was asked.
    pub age: Duration,
    /// How far it is still to be believed, from 1 down to 0.
    pub trust: f64,
}

/// Up to this age, in intervals, a sample is as good as it can be: the next is not due yet.
const FRESH: f64 = 1.0;
/// At this age it counts for nothing any more: three samples in a row have failed, and what calls other people have there
/// is anybody's guess. It fades on the way, because a figure that is dropped, or kept, all at once sends everybody to one
/// instance at that moment.
const GONE: f64 = 4.0;
/// From this share of a KV cache in use a call that comes will wait, or push another one out. Bound: vLLM begins to
/// preempt when no block is free, and a twentieth of a cache is less than one long prompt takes.
const KV_FULL: f64 = 0.95;

// === impl Load ===

impl Load {
    /// Takes a sample: asked at `at`, when the instance had `ours` calls from us.
    pub(crate) fn tell(&self, reading: Reading, ours: u32, at: Moment) {
        *self.lock() = Some(Sample { reading, ours, at });
    }

    /// The last sample, where samples are taken at this interval; `None` when it is no longer worth anything.
    pub(crate) fn told(&self, interval: Duration, now: Moment) -> Option<Told> {
        let Sample { reading, ours, at } = (*self.lock())?;
        let age = now.since(at);
        let intervals = age.as_secs_f64() / interval.as_secs_f64().max(1e-3);
        let trust = ((GONE - intervals) / (GONE - FRESH)).clamp(0.0, 1.0);
        let Reading { waiting, running, kv_used } = reading;
        (trust > 0.0).then_some(Told { waiting, running, kv_used, ours, age, trust })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Told ===

impl Told {
    /// Calls it had that were not ours. A call of ours that has not reached it yet, or that it has forgotten already,
    /// must not be counted against the others: never below zero.
    pub fn others(&self) -> f64 {
        (self.waiting + self.running - f64::from(self.ours)).max(0.0)
    }

    /// How far it is to be believed that its KV cache is nearly full: 0 when it is not.
    pub fn fullness(&self) -> f64 {
        if self.kv_used.is_some_and(|used| used >= KV_FULL) { self.trust } else { 0.0 }
    }

    /// Name, help and value of what is to be shown of it.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
        let always = [
            ("sluice_instance_told_waiting", "Calls waiting in the instance, as it says itself.", self.waiting),
            ("sluice_instance_told_running", "Calls the instance works on, as it says itself.", self.running),
            (
                "sluice_instance_told_age_seconds",
                "How long ago the instance was asked for its load.",
                self.age.as_secs_f64(),
            ),
        ];
        let kv_used = self.kv_used.map(|used| {
            ("sluice_instance_told_kv_used", "Share of its KV cache in use, as the instance says itself.", used)
        });
        always.into_iter().chain(kv_used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(waiting: f64, running: f64, ours: u32, age_ms: u64) -> Option<Told> {
        let (load, at) = (Load::default(), Moment::from_micros(1_000_000_000));
        load.tell(Reading { waiting, running, kv_used: None }, ours, at);
        load.told(SECOND, at + Duration::from_millis(age_ms))
    }

    #[test]
    fn a_sample_is_believed_for_one_interval_then_fades_and_is_gone_after_four() {
        for (age_ms, trust) in [(0, 1.0), (1_000, 1.0), (1_750, 0.75), (2_500, 0.5), (3_997, 0.001)] {
            let found = told(1.0, 1.0, 0, age_ms).unwrap();
            assert!((found.trust - trust).abs() < 1e-9, "{age_ms} ms: {}", found.trust);
        }
        assert_eq!(told(1.0, 1.0, 0, 4_000), None);
        assert_eq!(Load::default().told(SECOND, Moment::from_micros(5)), None);
    }

    #[test]
    fn others_calls_are_what_it_has_beyond_ours_and_never_less_than_none() {
        for (waiting, running, ours, others) in [(3.0, 8.0, 4, 7.0), (0.0, 2.0, 2, 0.0), (0.0, 1.0, 9, 0.0)] {
            assert_eq!(told(waiting, running, ours, 0).unwrap().others(), others);
        }
    }
}
