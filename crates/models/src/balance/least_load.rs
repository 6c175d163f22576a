//! `least_load`: the smallest share of its capacity in use.

use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::{Kind, Moment};

use super::{Balance, Build, Candidate, Pick, Wanted, least_in_turn};

pub(super) const KIND: Kind<Build> = Kind {
    name: "least_load",
    about: "The smallest share of its slots in use (of its weight, where slots are unlimited); equals in turn. The default.",
    build: || Box::new(LeastLoad::default()),
};

#[derive(Debug, Default)]
struct LeastLoad(AtomicUsize);

impl Balance for LeastLoad {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        // The call to come counts, so that weight and trust decide among the idle too.
        // Where only some have a limit, shares cannot be compared with counts: all go by weight then.
        let limited = candidates.iter().all(|candidate| candidate.limit.is_some());
        least_in_turn(candidates, turn, "least_load", |candidate| {
            let capacity = candidate.limit.filter(|_| limited).map_or(1.0, f64::from) * candidate.weight;
            f64::from(candidate.busy + 1) / capacity
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

    #[test]
    fn the_share_of_capacity_decides_and_not_the_count() {
        let mut pool = candidates(&[1.0, 1.0]);
        (pool[0].busy, pool[0].limit) = (4, Some(8));
        (pool[1].busy, pool[1].limit) = (6, Some(64));
        assert_eq!(pick(&LeastLoad::default(), &pool, None), 1);
    }
}
