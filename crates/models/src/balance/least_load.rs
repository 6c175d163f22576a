//! `least_load`: the smallest share of its capacity in use.

#[cfg(test)]
mod simulation;

use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::{Kind, Moment};

use super::{Balance, Build, Candidate, Pick, Told, Wanted, least_in_turn};

pub(super) const KIND: Kind<Build> = Kind {
    name: "least_load",
    about: "The smallest share of its slots in use (of its weight, where slots are unlimited), calls of others included where `load` tells them; equals in turn. The default.",
    build: || Box::new(LeastLoad::default()),
};

#[derive(Debug, Default)]
struct LeastLoad(AtomicUsize);

/// What is taken for the load of an instance: the calls we count, which is never late, and those of others, as far as
/// they are known.
///
/// What a backend says, and what we have sent since and not got back, come to the same as the calls we count now and
/// what it had then beyond ours: so its figures, however old, never make us forget a call we have just sent, and never
/// lead everybody to the one that was idle a second ago.
#[derive(Debug, Clone, Copy)]
struct Loads {
    /// Whether all have a limit. Where only some do, shares cannot be compared with counts: all go by weight then.
    limited: bool,
    /// Calls of others per unit of capacity, on the average of those who told.
    others: f64,
}

impl Balance for LeastLoad {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let loads = Loads::of(candidates);
        // Whoever has its KV cache nearly full counts as loaded as the most loaded that has not. No more than that: its
        // figures are old as well, and with most of them full the others must not get everything.
        let open = candidates.iter().filter(|candidate| fullness(candidate) == 0.0);
        let most = open.map(|candidate| loads.share(candidate)).fold(0.0, f64::max);
        least_in_turn(candidates, turn, "least_load", |candidate| {
            let share = loads.share(candidate);
            share + fullness(candidate) * (most - share).max(0.0)
        })
    }
}

fn fullness(candidate: &Candidate) -> f64 {
    candidate.told.as_ref().map_or(0.0, Told::fullness)
}

// === impl Loads ===

impl Loads {
    fn of(candidates: &[Candidate]) -> Self {
        let mut loads = Self { limited: candidates.iter().all(|candidate| candidate.limit.is_some()), others: 0.0 };
        let (mut calls, mut capacity) = (0.0, 0.0);
        for (candidate, told) in candidates.iter().filter_map(|one| Some((one, one.told?))) {
            calls += told.trust * told.others();
            capacity += told.trust * loads.capacity(candidate);
        }
        if capacity > 0.0 {
            loads.others = calls / capacity;
        }
        loads
    }

    fn capacity(&self, candidate: &Candidate) -> f64 {
        candidate.limit.filter(|_| self.limited).map_or(1.0, f64::from) * candidate.weight
    }

    /// Calls of others at the instance. Of whom nothing is known, or nothing any more, the average is assumed: silence
    /// must draw no calls, for an instance too busy to answer is silent too, and must repel none.
    fn others(&self, candidate: &Candidate) -> f64 {
        let assumed = self.others * self.capacity(candidate);
        candidate.told.map_or(assumed, |told| assumed + told.trust * (told.others() - assumed))
    }

    /// The share of its capacity in use. The call to come counts, so that weight and trust decide among the idle too.
    fn share(&self, candidate: &Candidate) -> f64 {
        (f64::from(candidate.busy) + self.others(candidate) + 1.0) / self.capacity(candidate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{candidates, pick};
    use super::*;

    /// Told just now: so many running, of which so many are ours.
    fn told(running: f64, ours: u32) -> Told {
        Told { waiting: 0.0, running, kv_used: None, ours, age: Duration::ZERO, trust: 1.0 }
    }

    /// How often each of them is picked in a number of tries with nothing changing.
    fn picks(pool: &[Candidate], tries: usize) -> Vec<usize> {
        let balance = LeastLoad::default();
        let mut picks = vec![0; pool.len()];
        (0..tries).for_each(|_| picks[pick(&balance, pool, None)] += 1);
        picks
    }

    #[test]
    fn the_share_of_capacity_decides_and_not_the_count() {
        let mut pool = candidates(&[1.0, 1.0]);
        (pool[0].busy, pool[0].limit) = (4, Some(8));
        (pool[1].busy, pool[1].limit) = (6, Some(64));
        assert_eq!(pick(&LeastLoad::default(), &pool, None), 1);
    }

    #[test]
    fn calls_of_others_count_and_our_own_are_not_counted_twice() {
        let mut pool = candidates(&[1.0, 1.0]);
        (pool[0].busy, pool[0].told) = (3, Some(told(3.0, 3)));
        (pool[1].busy, pool[1].told) = (0, Some(told(4.0, 0)));
        assert_eq!(picks(&pool, 4), [4, 0], "3 of ours against 4 of others");
        pool[0].busy = 5;
        assert_eq!(picks(&pool, 4), [0, 4], "two more were sent since");
    }

    #[test]
    fn our_own_calls_count_whatever_the_instance_says() {
        let mut pool = candidates(&[1.0, 1.0]);
        (pool[0].busy, pool[0].told) = (9, Some(told(0.0, 9)));
        (pool[1].busy, pool[1].told) = (8, Some(told(8.0, 8)));
        assert_eq!(picks(&pool, 4), [0, 4]);
    }

    #[test]
    fn an_old_sample_loses_its_weight_gradually() {
        let mut pool = candidates(&[1.0, 1.0]);
        pool[1].told = Some(told(0.0, 0));
        // 20 of others at the first. Against 10 of ours at the second the first wins once it is believed by less than half:
        // what is not believed is taken to be as at the second, none.
        pool[1].busy = 10;
        for (trust, taken) in [(1.0, 1), (0.6, 1), (0.3, 0), (0.0, 0)] {
            pool[0].told = Some(Told { trust, ..told(20.0, 0) });
            assert_eq!(picks(&pool, 1)[taken], 1, "trust {trust}");
        }
    }

    #[test]
    fn silence_neither_draws_calls_nor_repels_them() {
        // Others have ten calls at each of those who tell; two say nothing.
        let mut pool = candidates(&[1.0; 4]);
        (pool[0].told, pool[1].told) = (Some(told(10.0, 0)), Some(told(10.0, 0)));
        assert_eq!(picks(&pool, 40), [10; 4]);
        // By weight, too.
        let mut pool = candidates(&[1.0, 4.0]);
        pool[0].told = Some(told(10.0, 0));
        pool[0].busy = 1;
        pool[1].busy = 6;
        assert_eq!(picks(&pool, 4), [0, 4], "11 + 1 of 1 against 40 + 6 + 1 of 4");
    }

    #[test]
    fn a_full_kv_cache_counts_as_loaded_but_sends_not_everybody_to_the_one_that_has_room() {
        let mut pool = candidates(&[1.0; 3]);
        pool[0].told = Some(Told { kv_used: Some(0.96), ..told(0.0, 0) });
        (pool[1].busy, pool[2].busy) = (4, 6);
        assert_eq!(picks(&pool, 4), [0, 4, 0]);
        // With all but one full, that one has no more than its turn.
        pool[1].told = pool[0].told;
        assert_eq!(picks(&pool, 30), [10, 10, 10]);
        // With all of them full it is as if none were.
        pool[2].told = pool[0].told;
        assert_eq!(picks(&pool, 4), [4, 0, 0]);
        pool[0].told = Some(Told { kv_used: Some(0.94), ..told(0.0, 0) });
        assert_eq!(picks(&pool, 4), [4, 0, 0]);
    }
}
