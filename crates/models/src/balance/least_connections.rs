//! `least_connections`: who has the fewest calls for its weight, as nginx's `least_conn`.

use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::{Kind, Moment};

use super::{Balance, Build, Candidate, least_in_turn};

pub(super) const KIND: Kind<Build> = Kind {
    name: "least_connections",
    about: "The fewest calls in flight for its weight; equals in turn.",
    build: || Box::new(LeastConnections::default()),
};

#[derive(Debug, Default)]
struct LeastConnections(AtomicUsize);

impl Balance for LeastConnections {
    fn pick(&self, candidates: &[Candidate], _: Option<u64>, _: Moment) -> usize {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        // Counting the call to come lets weight, and the trust that failures have cost, decide among the idle too.
        least_in_turn(candidates, turn, |candidate| f64::from(candidate.busy + 1) / candidate.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;

    #[test]
    fn the_idlest_for_its_weight_is_taken_and_equals_take_turns() {
        let mut pool = candidates(&[1.0, 2.0, 1.0]);
        (pool[0].busy, pool[1].busy, pool[2].busy) = (2, 3, 2);
        let balance = LeastConnections::default();
        assert_eq!(balance.pick(&pool, None, Moment::now()), 1);
        let idle = candidates(&[1.0; 3]);
        let picks: std::collections::HashSet<usize> =
            (0..3).map(|_| balance.pick(&idle, None, Moment::now())).collect();
        assert_eq!(picks.len(), 3);
    }
}
