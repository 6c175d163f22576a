//! The limit at work on a backend with a knee, in virtual time.
//!
//! The backend works on so many calls at once, and the rest wait in it: beyond that many its throughput is flat and only
//! the first token comes later. Prompts are short or long, answers of any length.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use kernel::Moment;
use kernel::random::{Random, mix};
use proptest::prelude::*;

use super::Awaited;
use super::gradient::Gradient;
use crate::settings::AdaptiveSettings;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;

struct Backend {
    rules: AdaptiveSettings,
    gradient: Gradient,
    random: Random,
    now: u64,
    /// Calls it can work on at once.
    knee: usize,
    /// Time to read a short prompt, and to write an answer on the average, in microseconds.
    reads: f64,
    writes: f64,
    /// One in so many prompts takes twenty times as long to read.
    long_every: u64,
    /// Calls that clients want answered at once; the limit lets in no more than it says.
    demand: usize,
    awaited: Awaited,
    /// Answers with 503 beyond so many calls, instead of letting them wait.
    refuses_beyond: usize,
    waiting: VecDeque<u64>,
    working: usize,
    events: BinaryHeap<Reverse<(u64, Event)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A call that was sent then gets its first piece.
    First(u64),
    /// A call that was sent then has its whole answer.
    Last(u64),
}

impl Backend {
    fn new(rules: AdaptiveSettings, knee: usize, seed: u64) -> Self {
        Self {
            gradient: Gradient::new(&rules),
            rules,
            random: Random::seeded(mix(seed)),
            now: 1_000 * SECOND,
            knee,
            reads: 0.2 * SECOND as f64,
            writes: 4.0 * SECOND as f64,
            long_every: 5,
            demand: usize::MAX,
            awaited: Awaited::FirstPiece,
            refuses_beyond: usize::MAX,
            waiting: VecDeque::new(),
            working: 0,
            events: BinaryHeap::new(),
        }
    }

    fn calls(&self) -> usize {
        self.working + self.waiting.len()
    }

    fn limit(&self) -> u32 {
        self.gradient.limit(&self.rules)
    }

    /// Lets clients call and the backend work for so long; the limit after every second of it.
    fn run(&mut self, span: u64) -> Vec<u32> {
        let (end, mut limits, mut next) = (self.now + span, Vec::new(), self.now);
        while self.now < end {
            let open = self.demand.min(self.limit() as usize);
            while self.calls() < open && self.admit() {}
            self.work();
            let Some(Reverse((at, event))) = self.events.pop() else { break };
            self.now = at;
            while next < at {
                limits.push(self.limit());
                next += SECOND;
            }
            self.happen(event);
        }
        limits
    }

    /// Whether the call was taken in.
    fn admit(&mut self) -> bool {
        if self.calls() >= self.refuses_beyond {
            self.gradient.failed(&self.rules, true, Moment::from_micros(self.now));
            return false;
        }
        self.waiting.push_back(self.now);
        true
    }

    fn work(&mut self) {
        while self.working < self.knee
            && let Some(sent) = self.waiting.pop_front()
        {
            self.working += 1;
            let long = if self.random.below(self.long_every as usize) == 0 { 20.0 } else { 1.0 };
            // Busy instances read a little more slowly: up to a tenth at the knee.
            let crowd = 1.0 + 0.1 * self.working as f64 / self.knee as f64;
            let first = self.now + (self.reads * long * crowd * (0.5 + 0.5 * self.exponential())) as u64;
            let last = first + (self.writes * self.exponential()) as u64;
            self.events.push(Reverse((first, Event::First(sent))));
            self.events.push(Reverse((last, Event::Last(sent))));
        }
    }

    /// One on the average.
    fn exponential(&self) -> f64 {
        -(1.0 - self.random.unit()).ln()
    }

    fn happen(&mut self, event: Event) {
        let (Event::First(sent) | Event::Last(sent)) = event;
        let (awaited, busy) = (self.awaited, u32::try_from(self.calls()).unwrap());
        if matches!(event, Event::Last(_)) {
            self.working -= 1;
        }
        if matches!(event, Event::First(_)) == (awaited == Awaited::FirstPiece) {
            let took = Duration::from_micros(self.now - sent);
            self.gradient.succeeded(&self.rules, (awaited, took), busy, Moment::from_micros(self.now));
        }
    }
}

fn from(initial: u32) -> AdaptiveSettings {
    AdaptiveSettings { initial, ..AdaptiveSettings::default() }
}

fn mean(limits: &[u32]) -> f64 {
    limits.iter().map(|limit| f64::from(*limit)).sum::<f64>() / limits.len() as f64
}

/// The mean is within 30 % of the knee, and so is the limit itself for three quarters of the time: what it is lowered for
/// a trial, or by chance, is soon made good.
#[track_caller]
fn assert_near(limits: &[u32], knee: usize, seed: u64) {
    let near = 0.7 * knee as f64..=1.3 * knee as f64;
    let within = limits.iter().filter(|limit| near.contains(&f64::from(**limit))).count();
    let mean = mean(limits);
    assert!(near.contains(&mean), "seed {seed}: {mean:.1} on the average, for {knee}");
    assert!(within * 4 >= limits.len() * 3, "seed {seed}: {within} s of {}, for {knee}", limits.len());
}

#[test]
fn it_finds_the_knee_from_below_and_from_above() {
    for seed in 0..2 {
        for knee in [8, 48, 200] {
            for initial in [4, 16, 400] {
                let mut backend = Backend::new(from(initial), knee, seed);
                backend.run(30 * MINUTE);
                assert_near(&backend.run(10 * MINUTE), knee, seed);
            }
        }
    }
}

#[test]
fn it_follows_a_knee_that_moves() {
    for seed in 0..6 {
        let mut backend = Backend::new(from(16), 48, seed);
        for knee in [48, 16, 96, 24] {
            backend.knee = knee;
            backend.run(15 * MINUTE);
            assert_near(&backend.run(5 * MINUTE), knee, seed);
        }
    }
}

#[test]
fn hours_of_full_load_do_not_make_a_queue_normal() {
    for seed in 0..4 {
        let mut backend = Backend::new(from(16), 32, seed);
        // Reading is most of the work: the knee is a soft one, and each window's queue only a little longer.
        (backend.reads, backend.writes, backend.long_every) = (3.0 * SECOND as f64, SECOND as f64, 1_000);
        backend.run(4 * 60 * MINUTE);
        let mean = mean(&backend.run(30 * MINUTE));
        assert!((0.7 * 32.0..=1.3 * 32.0).contains(&mean), "seed {seed}: {mean:.1} on the average");
    }
}

#[test]
fn longer_prompts_are_no_queue() {
    for seed in 0..6 {
        let mut backend = Backend::new(from(16), 32, seed);
        backend.run(10 * MINUTE);
        // All of them at once, and for good.
        backend.reads *= 8.0;
        backend.run(5 * MINUTE);
        assert_near(&backend.run(10 * MINUTE), 32, seed);
        backend.reads /= 8.0;
        backend.run(5 * MINUTE);
        assert_near(&backend.run(10 * MINUTE), 32, seed);
        // A third of them is, twenty times.
        backend.long_every = 3;
        backend.run(5 * MINUTE);
        assert_near(&backend.run(10 * MINUTE), 32, seed);
    }
}

#[test]
fn whole_answers_do_as_well() {
    for seed in 0..6 {
        let mut backend = Backend::new(from(8), 40, seed);
        backend.awaited = Awaited::Whole;
        backend.run(20 * MINUTE);
        assert_near(&backend.run(20 * MINUTE), 40, seed);
    }
}

#[test]
fn a_backend_that_refuses_what_is_too_much_is_sent_no_more_than_it_takes() {
    for seed in 0..6 {
        let mut backend = Backend::new(from(64), 200, seed);
        backend.refuses_beyond = 40;
        backend.run(10 * MINUTE);
        assert_near(&backend.run(10 * MINUTE), 40, seed);
    }
}

#[test]
fn a_limit_that_is_not_in_use_stays_where_it_is() {
    let mut backend = Backend::new(from(64), 48, 1);
    backend.demand = 20;
    assert!(backend.run(30 * MINUTE).into_iter().all(|limit| limit == 64));
}

proptest! {
    #[test]
    fn it_never_leaves_its_bounds(
        bounds in (1u32..40, 0u32..40, 0u32..400),
        events in proptest::collection::vec((0u64..3_000, 0u64..20_000, 0u32..600, 0u8..8), 0..400)
    ) {
        let (min, initial, max) = (bounds.0, bounds.0 + bounds.1, bounds.0 + bounds.1 + bounds.2);
        let rules = AdaptiveSettings { min, initial, max, ..AdaptiveSettings::default() };
        let (mut gradient, mut now) = (Gradient::new(&rules), Moment::from_micros(SECOND));
        prop_assert_eq!(gradient.limit(&rules), initial);
        for (passes, took, busy, kind) in events {
            now = now + Duration::from_millis(passes);
            let took = Duration::from_millis(took);
            match kind {
                0 => gradient.failed(&rules, true, now),
                1 => gradient.failed(&rules, false, now),
                2 => gradient.succeeded(&rules, (Awaited::Whole, took), busy, now),
                _ => gradient.succeeded(&rules, (Awaited::FirstPiece, took), busy, now),
            }
            prop_assert!((min..=max).contains(&gradient.limit(&rules)));
        }
    }
}

#[test]
fn one_overload_is_answered_once_however_many_calls_it_hits() {
    let rules = from(100);
    let mut gradient = Gradient::new(&rules);
    let now = Moment::from_micros(100 * SECOND);
    (0..50).for_each(|_| gradient.failed(&rules, true, now));
    assert_eq!(gradient.limit(&rules), 75);
    gradient.failed(&rules, true, now + Duration::from_secs(2));
    assert_eq!(gradient.limit(&rules), 56);
}

#[test]
fn a_failure_now_and_then_is_no_overload() {
    let mut backend = Backend::new(from(16), 48, 1);
    backend.run(10 * MINUTE);
    for _ in 0..60 {
        backend.gradient.failed(&backend.rules, false, Moment::from_micros(backend.now));
        backend.run(10 * SECOND);
    }
    assert_near(&backend.run(5 * MINUTE), 48, 1);
}
