//! The scorers of llm-d and the Gateway API inference extension, with the weights of its default profile: prefix 3,
//! queue 2, KV cache 2; the highest sum wins.
//!
//! Queue and cache are the workers' metrics there. Here they are what the gateway knows of them: calls whose answers have
//! not begun, and tokens of calls in flight.

use std::collections::HashMap;

use kernel::Kind;

use super::record::Record;
use super::{Build, Policy, Seen, Wanted, least};
use crate::replay::hardware::Hardware;
use crate::replay::trace::BLOCK;

pub(super) const KIND: Kind<Build> = Kind {
    name: "llm-d scorers",
    about: "prefix 3, queue 2, KV cache 2, highest score",
    build: |workers| {
        let room = Hardware::gpu_only().gpu_blocks as u64 * BLOCK;
        let workers = std::iter::repeat_with(Worker::default).take(workers).collect();
        Box::new(Scorers { workers, placed: HashMap::new(), room, turn: 0 })
    },
};

const PREFIX: f64 = 3.0;
const QUEUE: f64 = 2.0;
const KV: f64 = 2.0;
/// `lruCapacityPerServer`, in blocks.
const RECORD: usize = 31_250;

#[derive(Debug, Default)]
struct Worker {
    record: Record,
    waiting: u32,
    tokens: u64,
}

#[derive(Debug)]
struct Scorers {
    workers: Vec<Worker>,
    /// Where a call is, whether its answer has not begun, and its tokens.
    placed: HashMap<usize, (usize, bool, u64)>,
    room: u64,
    turn: usize,
}

impl Policy for Scorers {
    fn choose(&mut self, wanted: &Wanted<'_>, seen: &[Seen], now: u64) -> usize {
        self.turn += 1;
        let workers = || seen.iter().filter_map(|one| self.workers.get(one.worker));
        let least_waiting = workers().map(|worker| worker.waiting).min().unwrap_or(0);
        let most = workers().map(|worker| worker.waiting).max().unwrap_or(0);
        let score = |worker: &Worker| {
            let prefix = worker.record.known(wanted.chain, 0) as f64 / wanted.chain.len().max(1) as f64;
            let queue = if most == least_waiting {
                1.0
            } else {
                f64::from(most - worker.waiting) / f64::from(most - least_waiting)
            };
            let kv = 1.0 - (worker.tokens as f64 / self.room as f64).min(1.0);
            PREFIX * prefix + QUEUE * queue + KV * kv
        };
        let chosen = least(seen, self.turn, |one| self.workers.get(one.worker).map_or(0.0, |worker| -score(worker)));
        if let Some(worker) = self.workers.get_mut(chosen) {
            worker.record.add(wanted.chain, now);
            worker.record.shrink(RECORD);
            worker.waiting += 1;
            worker.tokens += wanted.call.input;
            self.placed.insert(wanted.number, (chosen, true, wanted.call.input));
        }
        chosen
    }

    fn begun(&mut self, number: usize) {
        if let Some((worker, waits, _)) = self.placed.get_mut(&number)
            && let Some(worker) = self.workers.get_mut(*worker)
            && std::mem::take(waits)
        {
            worker.waiting -= 1;
        }
    }

    fn ended(&mut self, number: usize) {
        self.begun(number);
        if let Some((worker, _, tokens)) = self.placed.remove(&number)
            && let Some(worker) = self.workers.get_mut(worker)
        {
            worker.tokens -= tokens;
        }
    }
}
