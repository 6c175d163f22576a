//! A histogram over fixed upper bounds.

use std::time::Duration;

use kernel::journal::{GAP_BOUNDS, Gaps};

/// Upper bounds of latencies, in microseconds: from a hit in memory to the longest call there is.
pub(super) const LATENCY_BOUNDS: [u64; 18] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    20_000_000,
    40_000_000,
    80_000_000,
    160_000_000,
    320_000_000,
];

/// Upper bounds of the time that calls wait for their turn, in microseconds.
pub(super) const DELAY_BOUNDS: [u64; 18] = [
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    300_000_000,
];

/// Counts of observations by upper bound; the last bucket is open.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    bounds: &'static [u64],
    counts: [u64; LATENCY_BOUNDS.len() + 1],
    /// In microseconds.
    sum: u64,
}

impl Histogram {
    /// For latencies.
    pub(super) fn of_latencies() -> Self {
        Self { bounds: &LATENCY_BOUNDS, counts: [0; _], sum: 0 }
    }

    /// For the time calls wait for their turn.
    pub(super) fn of_delays() -> Self {
        const { assert!(DELAY_BOUNDS.len() <= LATENCY_BOUNDS.len(), "the counts have room for both") };
        Self { bounds: &DELAY_BOUNDS, counts: [0; _], sum: 0 }
    }

    /// For the gaps between the pieces of streams.
    pub(super) fn of_gaps() -> Self {
        const { assert!(GAP_BOUNDS.len() <= LATENCY_BOUNDS.len(), "the counts have room for both") };
        Self { bounds: &GAP_BOUNDS, counts: [0; _], sum: 0 }
    }

    pub(super) fn observe(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| *bound < micros);
        self.add(at, 1, micros);
    }

    /// Adds the gaps of one stream.
    pub(super) fn add_gaps(&mut self, gaps: &Gaps) {
        gaps.counts.iter().enumerate().for_each(|(at, count)| self.add(at, u64::from(*count), 0));
        self.sum = self.sum.saturating_add(gaps.sum);
    }

    /// Adds what another one over the same bounds has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        other.counts.iter().enumerate().for_each(|(at, count)| self.add(at, *count, 0));
        self.sum = self.sum.saturating_add(other.sum);
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// In seconds.
    pub(super) fn sum(&self) -> f64 {
        self.sum as f64 / 1e6
    }

    /// Pairs of upper bound in seconds and count, as the encoder wants them: it adds them up itself.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }

    fn add(&mut self, at: usize, count: u64, sum: u64) {
        if let Some(bucket) = self.counts.get_mut(at) {
            *bucket += count;
        }
        self.sum = self.sum.saturating_add(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::of_latencies();
        for micros in [1_000, 1_001, 320_000_000, 320_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let filled: Vec<f64> = histogram.buckets().iter().filter(|(_, n)| *n == 1).map(|(bound, _)| *bound).collect();
        assert_eq!(filled, [0.001, 0.0025, 320.0, f64::INFINITY]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 640.002_002));
    }

    #[test]
    fn the_gaps_of_streams_add_up_bucket_by_bucket() {
        let mut gaps = Gaps::default();
        [500, 20_000, 20_001, 9_000_000].into_iter().for_each(|micros| gaps.add(Duration::from_micros(micros)));
        let (mut one, mut both) = (Histogram::of_gaps(), Histogram::of_gaps());
        one.add_gaps(&gaps);
        both.merge(&one);
        both.merge(&one);
        assert_eq!((both.count(), both.sum()), (8, 18.081_002));
        let filled: Vec<_> = both.buckets().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [(0.001, 2), (0.02, 2), (0.03, 2), (f64::INFINITY, 2)]);
    }
}
