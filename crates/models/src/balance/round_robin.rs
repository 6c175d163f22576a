//! `round_robin`: everybody in turn, weights ignored.

use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::{Kind, Moment};

use super::{Balance, Build, Candidate, Pick, Wanted};

pub(super) const KIND: Kind<Build> = Kind {
    name: "round_robin",
    about: "Every instance in turn; weights are ignored.",
    build: || Box::new(RoundRobin::default()),
};

#[derive(Debug, Default)]
struct RoundRobin(AtomicUsize);

impl Balance for RoundRobin {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        // The turn goes by place in the deployment, not in the list of candidates: one instance missing must not
        // shift everybody's turn.
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let highest = candidates.iter().map(|candidate| candidate.index).max().unwrap_or(0);
        let wanted = turn % (highest + 1);
        let position = candidates.iter().position(|candidate| candidate.index >= wanted).unwrap_or(0);
        Pick::new(position, "turn")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

    #[test]
    fn everybody_has_a_turn() {
        let (balance, candidates) = (RoundRobin::default(), candidates(&[1.0, 5.0, 1.0]));
        let picks: Vec<usize> = (0..6).map(|_| pick(&balance, &candidates, None)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }
}
