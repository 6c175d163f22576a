//! The cost of Dynamo's KV router, as its documentation gives it: `overlap_score_weight` × blocks to be read + blocks in
//! use, weight 1, temperature 0.
//!
//! Blocks to be read are those of prompts under way on the worker and of this one, less what it has; blocks in use are
//! those of all calls in flight with this one. Its record of what a worker has is the approximate one for backends that
//! send no events, with its time to live of 120 s.

use std::collections::HashMap;

use kernel::Kind;

use super::record::Record;
use super::{Build, Policy, Seen, Wanted, least};

pub(super) const KIND: Kind<Build> = Kind {
    name: "Dynamo cost",
    about: "overlap_score_weight 1.0, temperature 0, record without events, time to live 120 s",
    build: |workers| {
        let workers = std::iter::repeat_with(Worker::default).take(workers).collect();
        Box::new(Dynamo { workers, placed: HashMap::new(), turn: 0 })
    },
};

const OVERLAP_WEIGHT: f64 = 1.0;
const TIME_TO_LIVE: u64 = 120_000_000;

#[derive(Debug, Default)]
struct Worker {
    record: Record,
    to_read: usize,
    in_use: usize,
}

#[derive(Debug)]
struct Dynamo {
    workers: Vec<Worker>,
    /// Where a call is, what of it is to be read and what is in use.
    placed: HashMap<usize, (usize, usize, usize)>,
    turn: usize,
}

impl Policy for Dynamo {
    fn choose(&mut self, wanted: &Wanted<'_>, seen: &[Seen], now: u64) -> usize {
        self.turn += 1;
        let all = wanted.chain.len();
        let since = now.saturating_sub(TIME_TO_LIVE);
        let missing = |worker: &Worker| all - worker.record.known(wanted.chain, since);
        let cost = |one: &Seen| {
            self.workers.get(one.worker).map_or(f64::MAX, |worker| {
                OVERLAP_WEIGHT * (worker.to_read + missing(worker)) as f64 + (worker.in_use + all) as f64
            })
        };
        let chosen = least(seen, self.turn, cost);
        if let Some(worker) = self.workers.get_mut(chosen) {
            let missing = all - worker.record.known(wanted.chain, since);
            worker.to_read += missing;
            worker.in_use += all;
            worker.record.add(wanted.chain, now);
            self.placed.insert(wanted.number, (chosen, missing, all));
        }
        chosen
    }

    fn begun(&mut self, number: usize) {
        if let Some((worker, to_read, _)) = self.placed.get_mut(&number)
            && let Some(worker) = self.workers.get_mut(*worker)
        {
            worker.to_read -= std::mem::take(to_read);
        }
    }

    fn ended(&mut self, number: usize) {
        self.begun(number);
        if let Some((worker, _, in_use)) = self.placed.remove(&number)
            && let Some(worker) = self.workers.get_mut(worker)
        {
            worker.in_use -= in_use;
        }
    }
}
