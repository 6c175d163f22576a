//! `consistent_hash`: a session stays where it is, unless too many others are there.

use kernel::{Kind, Moment, random, random::Random};

use super::{Balance, Build, Candidate, Pick, Wanted, least};

pub(super) const KIND: Kind<Build> = Kind {
    name: "consistent_hash",
    about: "The same session (x-session-id, else prompt_cache_key or user) stays on the same instance, or goes to its next best while that one has a quarter more than its share of the calls; without one, at random by weight.",
    build: || Box::new(Rendezvous(Random::seeded(0xC0_FF_EE))),
};

/// How far above the mean an instance may be loaded (ε of "Consistent Hashing with Bounded Loads", Mirrokni, Thorup and
/// Zadimoghaddam 2018). Bound: a quarter, as Vimeo ran it in HAProxy (`hash-balance-factor 125`): less moves sessions
/// that need not move, more lets one instance queue while others idle.
const EXCESS: f64 = 0.25;

/// Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by Schindelhauer and Schomaker 2005): everybody
/// draws a lot for the session, the best lot wins. When an instance goes, only its own sessions move; when it
/// returns, exactly those come back. No ring to keep.
///
/// An instance that has its fill is passed over and the next best lot wins: the same one for the same session each
/// time, and only for as long as the load lasts.
#[derive(Debug)]
struct Rendezvous(Random);

/// How many calls each candidate may have, the call to come included.
#[derive(Debug, Clone, Copy)]
struct Fill {
    /// Calls per unit of weight.
    each: f64,
}

impl Balance for Rendezvous {
    fn pick(&self, candidates: &mut [Candidate], wanted: &Wanted<'_>, _: Moment) -> Pick {
        let key = wanted.affinity.unwrap_or_else(|| self.0.next());
        let lot = |candidate: &Candidate| {
            let unit = ((random::mix(key ^ candidate.identity) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -unit.ln() / candidate.weight
        };
        let fill = Fill::of(candidates);
        let home = candidates.iter().map(lot).fold(f64::INFINITY, f64::min);
        let reason = if wanted.affinity.is_some() { "session" } else { "lot" };
        let mut pick = least(candidates, reason, |one| if fill.is_reached(one) { f64::INFINITY } else { lot(one) });
        if wanted.affinity.is_some() && candidates.get(pick.position).is_some_and(|taken| taken.score > home) {
            pick.reason = "session_overflow";
        }
        pick
    }
}

impl Fill {
    /// From what all of them have. Some candidate is always below it: all together may have more than all have.
    fn of(candidates: &[Candidate]) -> Self {
        let calls: f64 = 1.0 + candidates.iter().map(|candidate| f64::from(candidate.busy)).sum::<f64>();
        let weight: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        Self { each: (1.0 + EXCESS) * calls / weight }
    }

    /// Whether one more call would be too many.
    fn is_reached(self, candidate: &Candidate) -> bool {
        // Rounding errors must not lift a whole number to the next.
        f64::from(candidate.busy) + 1.0 > (self.each * candidate.weight - 1e-9).ceil()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_sessions_of_a_lost_instance_move() {
        let (balance, all) = (Rendezvous(Random::seeded(1)), candidates(&[1.0; 5]));
        let without: Vec<Candidate> = all.iter().copied().filter(|candidate| candidate.index != 2).collect();
        for session in 0..5_000u64 {
            let key = Some(random::mix(session));
            let (before, after) = (all[pick(&balance, &all, key)].index, without[pick(&balance, &without, key)].index);
            assert!(before == 2 || before == after);
        }
    }

    #[test]
    fn sessions_spread_by_weight() {
        let (balance, pool) = (Rendezvous(Random::seeded(1)), candidates(&[3.0, 1.0]));
        let first = (0..20_000u64).filter(|session| pick(&balance, &pool, Some(random::mix(*session))) == 0).count();
        assert!((14_600..15_400).contains(&first), "{first} of 20000");
    }

    #[test]
    fn a_busy_home_is_left_for_the_next_best_lot_and_taken_again_when_its_calls_have_ended() {
        let (balance, mut pool) = (Rendezvous(Random::seeded(1)), candidates(&[1.0; 4]));
        let session = Some(7);
        let home = pick(&balance, &pool, session);
        let rest: Vec<Candidate> = pool.iter().copied().filter(|candidate| candidate.index != home).collect();
        let second = rest[pick(&balance, &rest, session)].index;
        // With the call to come there are nine: 1.25 × 9 / 4 rounds up to three each.
        pool.iter_mut().for_each(|candidate| candidate.busy = 1);
        pool[home].busy = 5;
        assert_eq!(pick(&balance, &pool, session), second);
        pool[home].busy = 1;
        assert_eq!(pick(&balance, &pool, session), home);
    }

    #[test]
    fn one_hot_session_alone_fills_every_instance_evenly() {
        let (balance, mut pool) = (Rendezvous(Random::seeded(1)), candidates(&[1.0; 8]));
        for _ in 0..800 {
            let taken = pick(&balance, &pool, Some(1));
            pool[taken].busy += 1;
        }
        assert!(pool.iter().all(|candidate| candidate.busy <= 125), "{pool:?}");
    }

    /// A call begins for a session, or the nth that is under way ends.
    fn steps() -> impl Strategy<Value = Vec<(bool, u16)>> {
        proptest::collection::vec((proptest::bool::weighted(0.6), any::<u16>()), 1..300)
    }

    proptest! {
        #[test]
        fn nobody_is_filled_beyond_its_bound_and_no_session_moves_further_than_it_must(
            weights in proptest::collection::vec(1u32..9, 1..9), steps in steps()
        ) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let (balance, mut pool, empty) = (Rendezvous(Random::seeded(1)), candidates(&weights), candidates(&weights));
            let mut running: Vec<usize> = Vec::new();
            for (begins, number) in steps {
                if !begins {
                    if !running.is_empty() {
                        let at = running.swap_remove(usize::from(number) % running.len());
                        pool[at].busy -= 1;
                    }
                    continue;
                }
                // Few sessions, so that some are hot.
                let session = Some(random::mix(u64::from(number % 5)));
                let taken = pick(&balance, &pool, session);
                let total: u32 = pool.iter().map(|candidate| candidate.busy).sum::<u32>() + 1;
                // In whole numbers: ceil(1.25 × total × weight / weights).
                let bound = |at: usize| (5 * total * weights[at] as u32).div_ceil(4 * weights.iter().sum::<f64>() as u32);
                prop_assert!(pool[taken].busy < bound(taken));
                // Every instance the session would rather have been on is full to the bound.
                let mut rest = empty.clone();
                while !rest.is_empty() {
                    let best = rest.remove(pick(&balance, &rest, session)).index;
                    if best == taken {
                        break;
                    }
                    prop_assert!(pool[best].busy >= bound(best), "{best} had room, {taken} was taken");
                }
                pool[taken].busy += 1;
                running.push(taken);
            }
        }
    }
}
