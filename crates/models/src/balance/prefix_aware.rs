//! `prefix_aware`: where the beginning of the prompt has been read already, unless waiting there costs more.
//!
//! A model server keeps what it made of a prompt and need not read the same beginning twice. So a call is best placed
//! where most of its prompt is known, but only as long as the work that waits there is less than the work saved. Both
//! are put in one unit, tokens to be read, and the least sum wins: affinity cannot make a hot spot, because what queues
//! at an instance counts against it token for token. What it reads of prompts is hashes; it keeps no text.

mod index;
mod landmarks;
mod roll;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::{Kind, Moment, Tokens};

use self::index::{Index, SLOTS};
use self::roll::Roll;
use super::{Balance, Build, Candidate, Pick, Wanted, least_in_turn};

pub(super) const KIND: Kind<Build> = Kind {
    name: "prefix_aware",
    about: "Where most of the prompt is in the cache already, weighed against the work that waits there; tenants share nothing.",
    build: || Box::new(PrefixAware::new(INDEX_BYTES)),
};

/// Bound: memory of the index of one deployment, taken as it fills. Enough for 8,000 conversations of 12,000 tokens,
/// which is more than eight nodes of eight GPUs keep in their caches.
const INDEX_BYTES: usize = 32 << 20;
/// An instance is thought to have forgotten a block one to two of these after it was last sent there: caches of busy
/// model servers turn over within minutes, and idle ones have nothing to lose by a wrong guess.
const ERA: Duration = Duration::from_secs(600);
/// Tokens in a block of text, roughly.
const BLOCK_TOKENS: f64 = 128.0;
/// Attention grows with the text before a token: at this many it doubles the work of reading one. It is N / (2 · d · L)
/// of a model with N parameters, L layers of width d: 30,000 for Llama 3.1 8B, 53,000 for 70B.
const ATTENTION_DOUBLES_AT: f64 = 40_000.0;
/// What a call in flight counts, beside its unread prompt, in tokens to be read: it is in every batch until its end.
const CALL_TOKENS: f64 = 128.0;
/// What a token to be read counts by a token that waits to be read. More than one: it delays not this call alone, but
/// everyone behind it, and what is read in a second place pushes something else out of the cache there. In replays of
/// public traces (`sluice-bench replay`) p99 rises by a twentieth from 2 to 8, and hits by a tenth.
const REREAD: f64 = 8.0;
/// How far above the mean of calls in flight an instance may be and still be chosen for its cache: the ε = 1/4 of
/// consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018), as HAProxy and Vimeo use it.
const ABOVE_MEAN: f64 = 1.25;
/// Calls beyond that bound which are overlooked: with few in flight one more is a large part of the mean, and a batch
/// that is four larger is hardly slower.
const SPARE_CALLS: f64 = 4.0;

#[derive(Debug)]
struct PrefixAware(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    index: Index,
    roll: Roll,
    turn: usize,
}

/// Known blocks by position in the candidates.
type Depths = smallvec::SmallVec<[usize; 16]>;

// === impl PrefixAware ===

impl PrefixAware {
    fn new(bytes: usize) -> Self {
        Self(Mutex::new(Memory { index: Index::new(bytes, ERA), roll: Roll::default(), turn: 0 }))
    }
}

impl Balance for PrefixAware {
    fn pick(&self, candidates: &mut [Candidate], wanted: &Wanted<'_>, now: Moment) -> Pick {
        let (depths, turn) = {
            let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            memory.turn = memory.turn.wrapping_add(1);
            (memory.depths(candidates, wanted.blocks, now), memory.turn)
        };
        let total = wanted.blocks.len();
        let share = allowed_per_weight(candidates);
        let trust = |(one, depth): (&Candidate, &usize)| if is_within(one, share) { *depth } else { 0 };
        let known: Depths = candidates.iter().zip(&depths).map(trust).collect();
        for (candidate, depth) in candidates.iter_mut().zip(&known) {
            let waiting = candidate.unread.0 as f64 + f64::from(candidate.busy) * CALL_TOKENS;
            candidate.score = (waiting + reading(*depth, total) * REREAD) / candidate.weight;
        }
        let mut pick = least_in_turn(candidates, turn, "least_work", |candidate| candidate.score);
        if known.get(pick.position).is_some_and(|depth| *depth > 0) {
            pick.reason = "prefix";
        }
        let depth = depths.get(pick.position).copied().unwrap_or(0);
        pick.unread = Tokens(reading(depth, total) as u64);
        pick
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn placed(&self, identity: u64, wanted: &Wanted<'_>, now: Moment) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = memory.roll.known(identity) {
            memory.index.add(wanted.blocks, number, now);
        }
    }
}

// === impl Memory ===

impl Memory {
    fn depths(&mut self, candidates: &[Candidate], blocks: &[u64], now: Moment) -> Depths {
        self.roll.open(now);
        let mut depths = Depths::from_elem(0, candidates.len());
        let (mut asked, mut positions) = (0, [0usize; SLOTS]);
        for (position, candidate) in candidates.iter().enumerate() {
            if let Some(number) = self.roll.number(candidate.identity, 2 * ERA)
                && let Some(place) = positions.get_mut(number)
            {
                *place = position;
                asked |= 1 << number;
            }
        }
        self.index.depths(blocks, asked, now, |mut set, depth| {
            while set != 0 {
                let position = positions.get(set.trailing_zeros() as usize);
                if let Some(known) = position.and_then(|position| depths.get_mut(*position)) {
                    *known = depth;
                }
                set &= set - 1;
            }
        });
        depths
    }
}

/// The work of reading a prompt of which `known` blocks are in the cache, in tokens without a text before them.
fn reading(known: usize, total: usize) -> f64 {
    // The unfinished block at the end is always read.
    let (from, to) = (known as f64 * BLOCK_TOKENS, (total as f64 + 0.5) * BLOCK_TOKENS);
    (to - from) + (to * to - from * from) / (2.0 * ATTENTION_DOUBLES_AT)
}

/// Calls in flight that an instance may have and still be chosen for its cache, per unit of weight.
fn allowed_per_weight(candidates: &[Candidate]) -> f64 {
    let sum = |of: fn(&Candidate) -> f64| candidates.iter().map(of).sum::<f64>();
    ABOVE_MEAN * (sum(|one| f64::from(one.busy)) + 1.0) / sum(|one| one.weight)
}

fn is_within(candidate: &Candidate, allowed_per_weight: f64) -> bool {
    // Rounded up, as bounded loads have it: somebody is always within.
    f64::from(candidate.busy + 1) <= (allowed_per_weight * candidate.weight).ceil() + SPARE_CALLS
}

#[cfg(test)]
mod tests {
    use kernel::random::mix;
    use proptest::prelude::*;

    use super::super::tests::candidates;
    use super::*;

    const NOW: Moment = Moment::from_micros(1_000_000);

    fn prompt(tenant: u64, blocks: u64) -> Vec<u64> {
        (0..blocks)
            .scan(mix(tenant), |link, block| {
                *link = mix(*link ^ block);
                Some(*link)
            })
            .collect()
    }

    fn wanted(blocks: &[u64]) -> Wanted<'_> {
        Wanted { affinity: None, tokens: Tokens(0), blocks }
    }

    fn place(balance: &PrefixAware, pool: &[Candidate], blocks: &[u64]) -> (Pick, u64) {
        let pick = balance.pick(&mut pool.to_vec(), &wanted(blocks), NOW);
        balance.placed(pool[pick.position].identity, &wanted(blocks), NOW);
        (pick, pool[pick.position].identity)
    }

    #[test]
    fn a_conversation_stays_where_it_is_and_is_read_once() {
        let (balance, pool) = (PrefixAware::new(1 << 20), candidates(&[1.0; 8]));
        let (first, home) = place(&balance, &pool, &prompt(1, 40));
        assert_eq!(first.reason, "least_work");
        for turn in 41..60 {
            let (pick, at) = place(&balance, &pool, &prompt(1, turn));
            assert_eq!((pick.reason, at), ("prefix", home));
            assert!(pick.unread.0 * 4 < first.unread.0, "{pick:?} after {first:?}");
        }
    }

    #[test]
    fn prompts_nobody_knows_take_turns() {
        let (balance, pool) = (PrefixAware::new(1 << 20), candidates(&[1.0; 8]));
        let at: std::collections::HashSet<u64> = (0..8).map(|n| place(&balance, &pool, &prompt(n, 9)).1).collect();
        assert_eq!(at.len(), 8);
    }

    #[test]
    fn it_waits_for_a_cache_only_as_long_as_reading_again_would_cost() {
        let (balance, mut pool) = (PrefixAware::new(1 << 20), candidates(&[1.0; 2]));
        let (first, home) = place(&balance, &pool, &prompt(1, 100));
        let holder = pool.iter().position(|one| one.identity == home).unwrap();
        pool[holder].unread = Tokens(first.unread.0 * 6);
        assert_eq!(place(&balance, &pool, &prompt(1, 100)).1, home);
        let (mut other, blocks) = (pool.clone(), prompt(1, 100));
        other[holder].unread = Tokens(first.unread.0 * 9);
        assert_eq!(balance.pick(&mut other, &wanted(&blocks), NOW).reason, "least_work");
    }

    #[test]
    fn the_same_prompt_of_two_tenants_is_two_prompts() {
        let (balance, pool) = (PrefixAware::new(1 << 20), candidates(&[1.0; 4]));
        place(&balance, &pool, &prompt(1, 50));
        let (pick, _) = place(&balance, &pool, &prompt(2, 50));
        assert_eq!(pick.reason, "least_work");
    }

    #[test]
    fn an_instance_that_is_not_a_candidate_is_nobodys_first_choice() {
        let (balance, pool) = (PrefixAware::new(1 << 20), candidates(&[1.0; 4]));
        let (_, home) = place(&balance, &pool, &prompt(1, 50));
        let mut rest: Vec<Candidate> = pool.iter().copied().filter(|one| one.identity != home).collect();
        // The first is loaded: an index that falls back to it would show.
        rest[0].busy = 20;
        for _ in 0..6 {
            let pick = balance.pick(&mut rest.clone(), &wanted(&prompt(1, 50)), NOW);
            assert!(pick.position > 0 && pick.reason == "least_work", "{pick:?}");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_chosen_for_a_cache_beyond_the_bound(
            busy in proptest::collection::vec(0u32..40, 1..20), calls in proptest::collection::vec(0u64..4, 1..60)
        ) {
            let (balance, mut pool) = (PrefixAware::new(1 << 20), candidates(&vec![1.0; busy.len()]));
            pool.iter_mut().zip(&busy).for_each(|(one, busy)| one.busy = *busy);
            for call in calls {
                let total: u32 = pool.iter().map(|one| one.busy).sum();
                let bound = (1.25 * f64::from(total + 1) / pool.len() as f64).ceil() + SPARE_CALLS;
                let (pick, _) = place(&balance, &pool, &prompt(call, 30));
                if pick.reason == "prefix" {
                    prop_assert!(f64::from(pool[pick.position].busy + 1) <= bound);
                }
                pool[pick.position].busy += 1;
            }
        }
    }
}
