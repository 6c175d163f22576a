//! `least_connections`: who has the fewest calls for its weight, as nginx's `least_conn`.

use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::{Kind, Moment};

use super::{Balance, Build, Candidate, Pick, Wanted, least_in_turn};

pub(super) const KIND: Kind<Build> = Kind {
    name: "least_connections",
    about: "The fewest calls in flight for its weight; equals in turn.",
    build: || Box::new(LeastConnections::default()),
};

#[derive(Debug, Default)]
struct LeastConnections(AtomicUsize);

impl Balance for LeastConnections {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        // Counting the call to come lets weight, and the trust that failures have cost, decide among the idle too.
        least_in_turn(candidates, turn, "least_connections", |candidate| {
            f64::from(candidate.busy + 1) / candidate.weight
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

    #[test]
    fn the_idlest_for_its_weight_is_taken_and_equals_take_turns() {
        let mut pool = candidates(&[1.0, 2.0, 1.0]);
        (pool[0].busy, pool[1].busy, pool[2].busy) = (2, 3, 2);
        let balance = LeastConnections::default();
        assert_eq!(pick(&balance, &pool, None), 1);
        let idle = candidates(&[1.0; 3]);
        let picks: std::collections::HashSet<usize> = (0..3).map(|_| pick(&balance, &idle, None)).collect();
        assert_eq!(picks.len(), 3);
    }
}
