//! `consistent_hash`: a session stays where it is.

use kernel::{Kind, Moment, random, random::Random};

use super::{Balance, Build, Candidate, Pick, Wanted, least};

pub(super) const KIND: Kind<Build> = Kind {
    name: "consistent_hash",
    about: "The same session (x-session-id, else prompt_cache_key or user) stays on the same instance; without one, at random by weight.",
    build: || Box::new(Rendezvous(Random::seeded(0xC0_FF_EE))),
};

/// Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by Schindelhauer and Schomaker 2005): everybody
/// draws a lot for the session, the best lot wins. When an instance goes, only its own sessions move; when it
/// returns, exactly those come back. No ring to keep.
#[derive(Debug)]
struct Rendezvous(Random);

impl Balance for Rendezvous {
    fn pick(&self, candidates: &mut [Candidate], wanted: &Wanted<'_>, _: Moment) -> Pick {
        let key = wanted.affinity.unwrap_or_else(|| self.0.next());
        least(candidates, "session", |candidate| {
            let unit = ((random::mix(key ^ candidate.identity) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -unit.ln() / candidate.weight
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

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
}
