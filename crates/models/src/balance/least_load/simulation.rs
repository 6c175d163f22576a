//! A burst on eight instances whose figures are old: how long does the longest queue get?
//!
//! Held against a router that sees every queue as it is. The same seed gives the same history.

use std::collections::VecDeque;
use std::time::Duration;

use kernel::random::{Random, mix};
use kernel::{Moment, Tokens};

use super::super::{Balance, Candidate, Told, Wanted, least_in_turn};
use super::LeastLoad;
use crate::load::{Load, Reading};

const INSTANCES: usize = 8;
/// Calls an instance works on at once; more wait in it.
const BATCH: usize = 16;
/// A call takes a second on the average: 128 a second are what all can do.
const WORK_MS: f64 = 1_000.0;
/// Calls a second, before and after the burst, and during it.
const CALM: f64 = 80.0;
const BURST: f64 = 800.0;
const BURST_MS: std::ops::Range<u64> = 4_000..6_000;
/// Somebody else's batch job comes to the first instance.
const JOB_MS: u64 = 1_500;
const JOB_CALLS: usize = 120;
const END_MS: u64 = 10_000;
/// Every second a sample is taken, and it is a second old when we have it.
const SAMPLE_MS: u64 = 1_000;
const LATE_MS: u64 = 1_000;

/// One instance: calls it works on, by when they end, and calls that wait, by how long they will take.
#[derive(Default)]
struct Instance {
    running: Vec<(u64, bool)>,
    waiting: VecDeque<(u64, bool)>,
    load: Load,
}

impl Instance {
    fn calls(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// Of them, those that are ours.
    fn ours(&self) -> u32 {
        let ours = self.running.iter().chain(&self.waiting).filter(|(_, ours)| *ours).count();
        u32::try_from(ours).unwrap()
    }

    fn advance(&mut self, now: u64) {
        self.running.retain(|(ends, _)| *ends > now);
        while self.running.len() < BATCH
            && let Some((takes, ours)) = self.waiting.pop_front()
        {
            self.running.push((now + takes, ours));
        }
    }
}

/// Chooses, given what may be known and what is.
type Router<'a> = &'a mut dyn FnMut(&mut [Candidate], &[Instance], Moment) -> usize;

/// The longest queue that any instance had in one history.
fn longest_queue(seed: u64, router: Router<'_>) -> usize {
    let random = Random::seeded(mix(seed));
    let mut pool: Vec<Instance> = (0..INSTANCES).map(|_| Instance::default()).collect();
    let mut on_the_way: VecDeque<(u64, Vec<(Reading, u32)>)> = VecDeque::new();
    let mut longest = 0;
    let takes = |random: &Random| (-WORK_MS * (1.0 - random.unit()).ln()) as u64 + 1;
    for ms in 0..END_MS {
        let now = at(ms);
        pool.iter_mut().for_each(|one| one.advance(ms));
        if ms == JOB_MS {
            (0..JOB_CALLS).for_each(|_| pool[0].waiting.push_back((takes(&random), false)));
        }
        if ms % SAMPLE_MS == 0 {
            on_the_way.push_back((ms, pool.iter().map(|one| (reading(one), one.ours())).collect()));
        }
        if on_the_way.front().is_some_and(|(taken, _)| taken + LATE_MS <= ms) {
            let (taken, readings) = on_the_way.pop_front().unwrap();
            pool.iter().zip(readings).for_each(|(one, (reading, ours))| one.load.tell(reading, ours, at(taken)));
        }
        let rate = if BURST_MS.contains(&ms) { BURST } else { CALM };
        let mut due = rate / 1000.0;
        while random.unit() < due {
            due -= 1.0;
            let mut candidates: Vec<Candidate> =
                pool.iter().enumerate().map(|(nth, one)| candidate(nth, one, now)).collect();
            let taken = router(&mut candidates, &pool, now);
            pool[taken].waiting.push_back((takes(&random), true));
            pool[taken].advance(ms);
        }
        longest = pool.iter().map(|one| one.waiting.len()).max().unwrap().max(longest);
    }
    longest
}

fn at(ms: u64) -> Moment {
    Moment::from_micros(1_000_000_000 + ms * 1_000)
}

fn reading(instance: &Instance) -> Reading {
    Reading { waiting: instance.waiting.len() as f64, running: instance.running.len() as f64, kv_used: None }
}

fn candidate(index: usize, instance: &Instance, now: Moment) -> Candidate {
    let told = instance.load.told(Duration::from_millis(SAMPLE_MS), now);
    Candidate { index, busy: instance.ours(), told, ..super::super::tests::candidates(&[1.0])[0] }
}

fn fused(balance: &LeastLoad, candidates: &mut [Candidate], now: Moment) -> usize {
    let wanted = Wanted { affinity: None, tokens: Tokens(0), blocks: &[] };
    balance.pick(candidates, &wanted, now).position
}

/// The longest queue over some histories, in those of the omniscient router.
fn worst_ratio(mut router: impl FnMut(&mut [Candidate], Moment) -> usize) -> f64 {
    let ratio = |seed| {
        let mut turn = 0;
        let best = longest_queue(seed, &mut |candidates, pool, _| {
            turn += 1;
            least_in_turn(candidates, turn, "", |candidate| pool[candidate.index].calls() as f64).position
        });
        longest_queue(seed, &mut |candidates, _, now| router(candidates, now)) as f64 / best as f64
    };
    (0..5).map(ratio).fold(0.0, f64::max)
}

#[test]
fn with_old_figures_and_a_burst_no_queue_is_a_fifth_longer_than_an_omniscient_router_makes_it() {
    let balance = LeastLoad::default();
    let ratio = worst_ratio(|candidates, now| fused(&balance, candidates, now));
    assert!(ratio <= 1.2, "{ratio:.2}");
}

#[test]
fn neither_the_figures_alone_nor_our_count_alone_would_do() {
    let mut turn = 0;
    let told = worst_ratio(|candidates, _| {
        turn += 1;
        let calls = |told: Told| told.waiting + told.running;
        least_in_turn(candidates, turn, "", |candidate| candidate.told.map_or(0.0, calls)).position
    });
    assert!(told > 2.0, "everybody goes to whoever was idle: {told:.2}");
    let balance = LeastLoad::default();
    let counted = worst_ratio(|candidates, now| {
        candidates.iter_mut().for_each(|candidate| candidate.told = None);
        fused(&balance, candidates, now)
    });
    assert!(counted > 1.2, "the other's job is not seen: {counted:.2}");
}
