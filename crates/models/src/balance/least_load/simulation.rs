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

/// Who sent a call: one of our replicas, or somebody else.
type Owner = Option<usize>;

/// One instance: calls it works on, by when they end, and calls that wait, by how long they will take.
struct Instance {
    running: Vec<(u64, Owner)>,
    waiting: VecDeque<(u64, Owner)>,
    /// What it told each replica, and how many calls it has of each.
    loads: Vec<Load>,
    owned: Vec<u32>,
}

impl Instance {
    fn new(replicas: usize) -> Self {
        let loads = std::iter::repeat_with(Load::default).take(replicas).collect();
        Self { running: Vec::new(), waiting: VecDeque::new(), loads, owned: vec![0; replicas] }
    }

    fn send(&mut self, takes: u64, owner: Owner) {
        owner.iter().for_each(|replica| self.owned[*replica] += 1);
        self.waiting.push_back((takes, owner));
    }

    fn calls(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    fn advance(&mut self, now: u64) {
        for (_, owner) in self.running.extract_if(.., |(ends, _)| *ends <= now) {
            owner.iter().for_each(|replica| self.owned[*replica] -= 1);
        }
        while self.running.len() < BATCH
            && let Some((takes, owner)) = self.waiting.pop_front()
        {
            self.running.push((now + takes, owner));
        }
    }
}

/// What an instance says of itself, and how many calls each replica counts there at that moment.
type Snapshot = (Reading, Vec<u32>);
/// Chooses for a replica, given what it may know and what is.
type Router<'a> = &'a mut dyn FnMut(usize, &mut [Candidate], &[Instance], Moment) -> usize;

/// The longest queue that any instance had in one history.
fn longest_queue(seed: u64, replicas: usize, router: Router<'_>) -> usize {
    let random = Random::seeded(mix(seed));
    let mut pool: Vec<Instance> = (0..INSTANCES).map(|_| Instance::new(replicas)).collect();
    let mut on_the_way: VecDeque<(u64, Vec<Snapshot>)> = VecDeque::new();
    let mut longest = 0;
    let takes = |random: &Random| (-WORK_MS * (1.0 - random.unit()).ln()) as u64 + 1;
    for ms in 0..END_MS {
        let now = at(ms);
        pool.iter_mut().for_each(|one| one.advance(ms));
        if ms == JOB_MS {
            (0..JOB_CALLS).for_each(|_| pool[0].send(takes(&random), None));
        }
        if ms % SAMPLE_MS == 0 {
            on_the_way.push_back((ms, pool.iter().map(|one| (reading(one), one.owned.clone())).collect()));
        }
        if on_the_way.front().is_some_and(|(taken, _)| taken + LATE_MS <= ms) {
            let (taken, readings) = on_the_way.pop_front().unwrap();
            for (one, (reading, ours)) in pool.iter().zip(readings) {
                one.loads.iter().zip(ours).for_each(|(load, ours)| load.tell(reading, ours, at(taken)));
            }
        }
        let rate = if BURST_MS.contains(&ms) { BURST } else { CALM };
        let mut due = rate / 1000.0;
        while random.unit() < due {
            due -= 1.0;
            let replica = random.below(replicas);
            let seen = |(nth, one): (usize, &Instance)| candidate(nth, one, replica, now);
            let mut candidates: Vec<Candidate> = pool.iter().enumerate().map(seen).collect();
            let taken = router(replica, &mut candidates, &pool, now);
            pool[taken].send(takes(&random), Some(replica));
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

fn candidate(index: usize, instance: &Instance, replica: usize, now: Moment) -> Candidate {
    let told = instance.loads[replica].told(Duration::from_millis(SAMPLE_MS), now);
    Candidate { index, busy: instance.owned[replica], told, ..super::super::tests::candidates(&[1.0])[0] }
}

fn fused(balance: &LeastLoad, candidates: &mut [Candidate], now: Moment) -> usize {
    let wanted = Wanted { affinity: None, tokens: Tokens(0), blocks: &[] };
    balance.pick(candidates, &wanted, now).position
}

/// The longest queue over some histories, in those of the omniscient router.
fn worst_ratio(replicas: usize, mut router: impl FnMut(usize, &mut [Candidate], Moment) -> usize) -> f64 {
    let ratio = |seed| {
        let mut turn = 0;
        let best = longest_queue(seed, replicas, &mut |_, candidates, pool, _| {
            turn += 1;
            least_in_turn(candidates, turn, "", |candidate| pool[candidate.index].calls() as f64).position
        });
        longest_queue(seed, replicas, &mut |replica, candidates, _, now| router(replica, candidates, now)) as f64
            / best as f64
    };
    (0..5).map(ratio).fold(0.0, f64::max)
}

#[test]
fn with_old_figures_and_a_burst_no_queue_is_a_fifth_longer_than_an_omniscient_router_makes_it() {
    let balance = LeastLoad::default();
    let ratio = worst_ratio(1, |_, candidates, now| fused(&balance, candidates, now));
    assert!(ratio <= 1.2, "{ratio:.2}");
}

#[test]
fn neither_the_figures_alone_nor_our_count_alone_would_do() {
    let mut turn = 0;
    let told = worst_ratio(1, |_, candidates, _| {
        turn += 1;
        let calls = |told: Told| told.waiting + told.running;
        least_in_turn(candidates, turn, "", |candidate| candidate.told.map_or(0.0, calls)).position
    });
    assert!(told > 2.0, "everybody goes to whoever was idle: {told:.2}");
    let balance = LeastLoad::default();
    let counted = worst_ratio(1, |_, candidates, now| {
        candidates.iter_mut().for_each(|candidate| candidate.told = None);
        fused(&balance, candidates, now)
    });
    assert!(counted > 1.2, "the other's job is not seen: {counted:.2}");
}

#[test]
fn replicas_that_see_each_other_only_in_old_figures_do_not_herd_either() {
    // What one replica sees idle the others see as well, and each makes up for all of it: the more there are, the further
    // it goes.
    for (replicas, most) in [(2, 1.2), (4, 1.5)] {
        let balances: Vec<LeastLoad> = (0..replicas).map(|_| LeastLoad::default()).collect();
        let ratio = worst_ratio(replicas, |replica, candidates, now| fused(&balances[replica], candidates, now));
        assert!(ratio <= most, "{replicas} replicas: {ratio:.2}");
    }
}
