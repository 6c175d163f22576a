//! How one of several usable instances is chosen. One file and one row per way.

mod consistent_hash;
mod least_connections;
mod least_load;
mod p2c_ewma;
mod prefix_aware;
mod round_robin;
mod weighted_round_robin;

use kernel::{Kind, Moment, Tokens};

pub use crate::load::Told;

/// What a choice may look at: one instance that is usable, untried and has room for the call.
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
    /// Work on prompts it was sent and has not begun to answer, as [`Pick::unread`] estimated it.
    pub unread: Tokens,
    /// How long it is thought to take, in microseconds.
    pub micros: f64,
    /// What it said last of its load itself, if it was asked and has answered lately.
    pub told: Option<Told>,
    /// Out: what the balance made of it, the least wins. For explanations.
    pub score: f64,
}

/// What a choice may look at beside the instances.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The call's session or user, hashed.
    pub affinity: Option<u64>,
    /// Tokens it will occupy, prompt and answer, as far as can be told before.
    pub tokens: Tokens,
    /// The prompt as a chain of hashes, one per block of text, each over all up to its end; different for every tenant.
    /// Empty unless the balance asks for it.
    pub blocks: &'a [u64],
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its position in the candidates.
    pub position: usize,
    /// Why it, in a word; for explanations.
    pub reason: &'static str,
    /// Work it will have with the prompt before it answers, in tokens read; 0 from a balance that does not look.
    pub unread: Tokens,
}

impl Pick {
    /// A choice that says nothing of the work.
    pub const fn new(position: usize, reason: &'static str) -> Self {
        Self { position, reason, unread: Tokens(0) }
    }
}

/// A way of choosing. Keeps what it must remember (turns, random state) itself.
pub trait Balance: Send + Sync + std::fmt::Debug {
    /// The one to take of `candidates` (never empty).
    fn pick(&self, candidates: &mut [Candidate], wanted: &Wanted<'_>, now: Moment) -> Pick;

    /// Whether it wants to see [`Wanted::blocks`].
    fn reads_prompts(&self) -> bool {
        false
    }

    /// The call has got its slot on the instance with this identity.
    fn placed(&self, _identity: u64, _wanted: &Wanted<'_>, _now: Moment) {}
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
    prefix_aware::KIND,
];

/// What a model gets that names none.
pub(crate) const DEFAULT: Kind<Build> = least_load::KIND;

/// Scores every candidate and picks the least; the first of equals.
fn least(candidates: &mut [Candidate], reason: &'static str, score: impl Fn(&Candidate) -> f64) -> Pick {
    least_in_turn(candidates, 0, reason, score)
}

/// The same, taking turns among equals instead of favouring the first.
fn least_in_turn(
    candidates: &mut [Candidate],
    turn: usize,
    reason: &'static str,
    score: impl Fn(&Candidate) -> f64,
) -> Pick {
    let count = candidates.len().max(1);
    let first = turn % count;
    let (mut best, mut position) = (f64::INFINITY, first);
    for at in (first..count).chain(0..first) {
        let Some(candidate) = candidates.get_mut(at) else { continue };
        candidate.score = score(candidate);
        if candidate.score < best {
            (best, position) = (candidate.score, at);
        }
    }
    Pick::new(position, reason)
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
            unread: Tokens(0),
            micros: 1000.0,
            told: None,
            score: f64::NAN,
        };
        weights.iter().enumerate().map(one).collect()
    }

    /// Whom it picks, by position.
    pub(super) fn pick(balance: &dyn Balance, candidates: &[Candidate], affinity: Option<u64>) -> usize {
        let wanted = Wanted { affinity, tokens: Tokens(0), blocks: &[] };
        balance.pick(&mut candidates.to_vec(), &wanted, Moment::now()).position
    }

    #[test]
    fn every_kind_has_a_name_of_its_own_and_picks_within_bounds() {
        let names: std::collections::HashSet<_> = kernel::kind::names(KINDS).into_iter().collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            let balance = (kind.build)();
            for count in 1..6 {
                for affinity in [None, Some(9)] {
                    assert!(pick(&*balance, &candidates(&vec![1.0; count]), affinity) < count, "{}", kind.name);
                }
            }
        }
    }
}
