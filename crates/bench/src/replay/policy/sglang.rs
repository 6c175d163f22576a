//! Cache-aware routing as SGLang's router documents it, with its defaults.
//!
//! If the numbers of calls in flight are far apart, the least loaded. Else the worker whose tree shares most of the
//! prompt, if that is more than a threshold of it; else the one with the smallest tree.

use kernel::Kind;

use super::record::Record;
use super::{Build, Policy, Seen, Wanted, least};

pub(super) const KIND: Kind<Build> = Kind {
    name: "SGLang cache-aware",
    about: "cache_threshold 0.3, balance_abs_threshold 64, balance_rel_threshold 1.5, evictions every 120 s",
    build: |workers| {
        let trees = std::iter::repeat_with(Record::default).take(workers).collect();
        Box::new(CacheAware { trees, evicted: 0, turn: 0 })
    },
};

const CACHE: f64 = 0.3;
const ABSOLUTE: u32 = 64;
const RELATIVE: f64 = 1.5;
const EVICT_EVERY: u64 = 120_000_000;
/// `max_tree_size`: 2²⁶ characters, in pieces of 128 tokens of four characters.
const TREE_PIECES: usize = (1 << 26) / 512;

#[derive(Debug)]
struct CacheAware {
    trees: Vec<Record>,
    evicted: u64,
    turn: usize,
}

impl Policy for CacheAware {
    fn choose(&mut self, wanted: &Wanted<'_>, seen: &[Seen], now: u64) -> usize {
        self.turn += 1;
        if now >= self.evicted + EVICT_EVERY {
            self.evicted = now;
            self.trees.iter_mut().for_each(|tree| tree.shrink(TREE_PIECES));
        }
        let busy = || seen.iter().map(|one| one.busy);
        let (least_busy, most) = (busy().min().unwrap_or(0), busy().max().unwrap_or(0));
        let imbalanced = most - least_busy > ABSOLUTE && f64::from(most) > RELATIVE * f64::from(least_busy);
        let known = |one: &Seen| self.trees.get(one.worker).map_or(0, |tree| tree.known(wanted.chain, 0));
        let size = |one: &Seen| self.trees.get(one.worker).map_or(0, Record::len);
        let chosen = if imbalanced {
            least(seen, self.turn, |one| f64::from(one.busy))
        } else {
            let (best, shared) = seen
                .iter()
                .map(|one| (one.worker, known(one)))
                .fold((0, 0), |best, one| if one.1 > best.1 { one } else { best });
            if shared as f64 > CACHE * wanted.chain.len() as f64 {
                best
            } else {
                least(seen, 0, |one| size(one) as f64)
            }
        };
        if let Some(tree) = self.trees.get_mut(chosen) {
            tree.add(wanted.chain, now);
        }
        chosen
    }
}
