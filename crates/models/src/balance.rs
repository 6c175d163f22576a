//! How one of several usable instances is chosen. One file and one row per way.

mod consistent_hash;
mod least_connections;
mod least_load;
mod p2c_ewma;
mod round_robin;
mod weighted_round_robin;

use kernel::{Kind, Moment};

/// What a choice may look at: one instance that is usable, untried and has a free slot.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its place in the deployment: stable for as long as the config is.
    pub index: usize,
    /// Stable over reloads and restarts.
    pub identity: u64,
    /// Configured weight, less what failures and slow start take away; above zero.
    pub weight: f64,
    /// Calls it has now.
    pub busy: u32,
    /// Calls it may have; `None` without a limit.
    pub limit: Option<u32>,
    /// How long it is thought to take, in microseconds.
    pub micros: f64,
}

/// A way of choosing. Keeps what it must remember (turns, random state) itself.
pub trait Balance: Send + Sync + std::fmt::Debug {
    /// The position in `candidates` (never empty) of the one to take. `affinity` is the call's session or user,
    /// hashed.
    fn pick(&self, candidates: &[Candidate], affinity: Option<u64>, now: Moment) -> usize;
}

/// Makes a fresh balancer.
pub type Build = fn() -> Box<dyn Balance>;

/// Every way there is.
pub const KINDS: &[Kind<Build>] = &[
    least_load::KIND,
    round_robin::KIND,
    weighted_round_robin::KIND,
    least_connections::KIND,
    p2c_ewma::KIND,
    consistent_hash::KIND,
];

/// What a model gets that names none.
pub(crate) const DEFAULT: Kind<Build> = least_load::KIND;

/// The position of the least `score`; the first of equals.
fn least(candidates: &[Candidate], score: impl Fn(&Candidate) -> f64) -> usize {
    let scored = candidates.iter().map(score).enumerate();
    scored.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(position, _)| position)
}

/// The same, taking turns among equals instead of favouring the first.
fn least_in_turn(candidates: &[Candidate], turn: usize, score: impl Fn(&Candidate) -> f64) -> usize {
    let count = candidates.len().max(1);
    let rotated = (0..count).map(|step| (turn + step) % count);
    let scored = rotated.filter_map(|position| candidates.get(position).map(|candidate| (position, score(candidate))));
    scored.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn candidates(weights: &[f64]) -> Vec<Candidate> {
        let one = |(index, weight): (usize, &f64)| Candidate {
            index,
            identity: kernel::random::mix(index as u64),
            weight: *weight,
            busy: 0,
            limit: None,
            micros: 1000.0,
        };
        weights.iter().enumerate().map(one).collect()
    }

    #[test]
    fn every_kind_has_a_name_of_its_own_and_picks_within_bounds() {
        let names: std::collections::HashSet<_> = kernel::kind::names(KINDS).into_iter().collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            let balance = (kind.build)();
            for count in 1..6 {
                for affinity in [None, Some(9)] {
                    let pick = balance.pick(&candidates(&vec![1.0; count]), affinity, Moment::now());
                    assert!(pick < count, "{}", kind.name);
                }
            }
        }
    }
}
