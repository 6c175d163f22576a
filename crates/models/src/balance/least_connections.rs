//! `least_connections`: who has the fewest calls for its weight, as nginx's `least_conn`.

use kernel::{Kind, Moment};

use super::weighted_round_robin::Smooth;
use super::{Balance, Build, Candidate, Pick, Wanted};

pub(super) const KIND: Kind<Build> = Kind {
    name: "least_connections",
    about: "The fewest calls in flight for its weight; equals in turn by weight, as nginx does it.",
    build: || Box::new(LeastConnections::default()),
};

/// Among equals turns are taken as by `weighted_round_robin`, so that idle instances share by weight too; whoever is no
/// equal keeps its place in that turn.
#[derive(Debug, Default)]
struct LeastConnections(Smooth);

impl Balance for LeastConnections {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        let share = |candidate: &Candidate| f64::from(candidate.busy) / candidate.weight;
        let least = candidates.iter().map(share).fold(f64::INFINITY, f64::min);
        let position = self.0.next(candidates, |candidate| share(candidate) <= least);
        candidates.iter_mut().for_each(|candidate| candidate.score = share(candidate));
        Pick::new(position, "least_connections")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

    #[test]
    fn the_idlest_for_its_weight_is_taken() {
        let mut pool = candidates(&[1.0, 2.0, 1.0]);
        (pool[0].busy, pool[1].busy, pool[2].busy) = (2, 3, 2);
        assert_eq!(pick(&LeastConnections::default(), &pool, None), 1);
    }
}
