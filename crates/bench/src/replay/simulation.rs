//! A trace played against a fleet under one policy, in virtual time.
//!
//! Nothing here reads a clock or draws an unseeded lot: the same trace, speed and policy give the same result to the bit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hardware::Hardware;
use super::line::Line;
use super::policy::{Policy, Seen, Wanted};
use super::trace::Trace;
use super::worker::{Tally, Worker};

/// What is played, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) trace: &'a Trace,
    /// The prompts as the gateway sees them, call by call.
    pub(crate) chains: &'a [Vec<u64>],
    pub(crate) hardware: Hardware,
    pub(crate) workers: usize,
    /// Calls the gateway has in flight to a worker at most.
    pub(crate) in_flight: u32,
    /// How many times faster than recorded calls arrive.
    pub(crate) speed: f64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Played {
    /// Seconds from each call's arrival to its first token.
    pub(crate) first_tokens: Vec<f64>,
    pub(crate) workers: Vec<Tally>,
    /// Mean number of calls in flight at each worker, while calls arrived.
    pub(crate) in_flight: Vec<f64>,
    /// Seconds until the last answer ended.
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Stepped(usize),
    Arrived(usize),
}

struct Simulation<'a> {
    setup: &'a Setup<'a>,
    policy: &'a mut dyn Policy,
    line: &'a mut dyn Line,
    workers: Vec<Worker>,
    busy: Vec<u32>,
    /// Where each call was sent.
    places: Vec<usize>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    first_tokens: Vec<f64>,
    /// Calls in flight × microseconds.
    areas: Vec<f64>,
    last: u64,
}

/// Plays it.
pub(crate) fn play(setup: &Setup<'_>, policy: &mut dyn Policy, line: &mut dyn Line) -> Played {
    let calls = &setup.trace.calls;
    let arrivals = (0..calls.len()).map(|call| Reverse((arrival(setup, call), Event::Arrived(call))));
    let mut simulation = Simulation {
        policy,
        line,
        workers: (0..setup.workers).map(|_| Worker::new(setup.hardware)).collect(),
        busy: vec![0; setup.workers],
        places: vec![usize::MAX; calls.len()],
        events: arrivals.collect(),
        first_tokens: vec![f64::NAN; calls.len()],
        areas: vec![0.0; setup.workers],
        last: 0,
        setup,
    };
    let arriving = calls.len().checked_sub(1).map_or(0, |last| arrival(setup, last));
    while let Some(Reverse((now, event))) = simulation.events.pop() {
        simulation.pass(now, arriving);
        match event {
            Event::Arrived(call) => simulation.line.push(call, now),
            Event::Stepped(worker) => simulation.stepped(worker, now),
        }
        simulation.place(now);
    }
    let from = calls.first().map_or(0, |_| arrival(setup, 0));
    Played {
        first_tokens: simulation.first_tokens,
        workers: simulation.workers.iter().map(|worker| worker.tally).collect(),
        in_flight: simulation.areas.iter().map(|area| area / (arriving - from).max(1) as f64).collect(),
        seconds: (simulation.last - from) as f64 / 1e6,
    }
}

/// When a call arrives, in microseconds. A second later than zero, which is before anything happened.
fn arrival(setup: &Setup<'_>, call: usize) -> u64 {
    1_000_000 + setup.trace.calls.get(call).map_or(0, |call| (call.at as f64 / setup.speed) as u64)
}

// === impl Simulation ===

impl Simulation<'_> {
    /// Time passes.
    fn pass(&mut self, now: u64, arriving: u64) {
        let passed = now.min(arriving).saturating_sub(self.last);
        self.areas.iter_mut().zip(&self.busy).for_each(|(area, busy)| *area += f64::from(*busy) * passed as f64);
        self.last = now;
    }

    fn stepped(&mut self, worker: usize, now: u64) {
        let Some(done) = self.workers.get_mut(worker).map(|worker| worker.end(&self.setup.trace.calls)) else { return };
        for call in done.begun {
            self.policy.begun(call);
            let arrived = arrival(self.setup, call);
            if let Some(first) = self.first_tokens.get_mut(call) {
                *first = (now - arrived) as f64 / 1e6;
            }
        }
        for call in done.ended {
            self.policy.ended(call);
            self.line.ended(call);
            if let Some(busy) = self.places.get(call).and_then(|place| self.busy.get_mut(*place)) {
                *busy -= 1;
            }
        }
        self.go_on(worker, now);
    }

    /// Places whoever is next, as long as there are places.
    fn place(&mut self, now: u64) {
        loop {
            let free = self.busy.iter().enumerate().filter(|(_, busy)| **busy < self.setup.in_flight);
            let seen: Vec<Seen> = free.map(|(worker, busy)| Seen { worker, busy: *busy }).collect();
            if seen.is_empty() {
                return;
            }
            let Some(number) = self.line.pop(now) else { return };
            let (Some(call), Some(chain)) = (self.setup.trace.calls.get(number), self.setup.chains.get(number)) else {
                return;
            };
            let worker = self.policy.choose(&Wanted { number, call, chain }, &seen, now);
            if let (Some(busy), Some(place)) = (self.busy.get_mut(worker), self.places.get_mut(number)) {
                *busy += 1;
                *place = worker;
            }
            if let Some(to) = self.workers.get_mut(worker) {
                to.push(number);
            }
            self.go_on(worker, now);
        }
    }

    fn go_on(&mut self, worker: usize, now: u64) {
        let took = self.workers.get_mut(worker).and_then(|worker| worker.begin(&self.setup.trace.calls));
        self.events.extend(took.map(|took| Reverse((now + took, Event::Stepped(worker)))));
    }
}
