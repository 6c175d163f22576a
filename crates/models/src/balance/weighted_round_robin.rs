//! `weighted_round_robin`: nginx's smooth weighted round robin.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kernel::{Kind, Moment};

use super::{Balance, Build, Candidate, Pick, Wanted};

pub(super) const KIND: Kind<Build> = Kind {
    name: "weighted_round_robin",
    about: "In turn by weight, smoothly interleaved, as nginx does it.",
    build: || Box::new(Smooth::default()),
};

/// Current weights by instance. Each pick adds everybody's weight to theirs, takes the highest, and sets it back by
/// the total: so 5:1:1 gives a a b a c a a instead of a a a a a b c.
#[derive(Debug, Default)]
pub(super) struct Smooth(Mutex<HashMap<usize, f64>>);

impl Smooth {
    /// The position of whose turn it is among those of `candidates` that `may` be taken.
    pub(super) fn next(&self, candidates: &mut [Candidate], may: impl Fn(&Candidate) -> bool) -> usize {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0.0;
        let mut best: Option<(usize, f64)> = None;
        for (position, candidate) in candidates.iter_mut().enumerate() {
            if !may(candidate) {
                continue;
            }
            let value = current.entry(candidate.index).or_default();
            *value += candidate.weight;
            candidate.score = -*value;
            total += candidate.weight;
            // Shares of weights do not add up exactly: a difference that small is none, and the first of equals wins.
            if best.is_none_or(|(_, highest)| *value > highest + 1e-9) {
                best = Some((position, *value));
            }
        }
        let position = best.map_or(0, |(position, _)| position);
        if let Some(value) = candidates.get(position).and_then(|candidate| current.get_mut(&candidate.index)) {
            *value -= total;
        }
        position
    }
}

impl Balance for Smooth {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        Pick::new(self.next(candidates, |_| true), "turn")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

    fn sequence(weights: &[f64], picks: usize) -> String {
        let (balance, candidates) = (Smooth::default(), candidates(weights));
        let letter = |_| char::from(b'a' + u8::try_from(pick(&balance, &candidates, None)).unwrap());
        (0..picks).map(letter).collect()
    }

    #[test]
    fn the_sequences_are_those_of_nginx() {
        // 5:1:1 is the example in nginx's own commit that introduced the algorithm.
        assert_eq!(sequence(&[5.0, 1.0, 1.0], 7), "aabacaa");
        assert_eq!(sequence(&[4.0, 2.0, 1.0], 7), "abacaba");
        assert_eq!(sequence(&[1.0, 1.0], 6), "ababab");
    }
}
