//! How a gateway chooses a worker. One file and one row per way.
//!
//! A policy knows what a gateway can know: what it sent where, when an answer began and when it ended. None sees into a
//! worker. Those that are not Sluice's own are written after the published descriptions.

mod dynamo;
mod house;
mod least_connections;
mod llm_d;
mod p2c;
mod record;
mod round_robin;
mod sglang;

use kernel::Kind;

use super::trace::Call;

/// A call to be placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Its number in the trace.
    pub(crate) number: usize,
    pub(crate) call: &'a Call,
    /// Its prompt as a chain of hashes.
    pub(crate) chain: &'a [u64],
}

/// A worker that has a place free.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) worker: usize,
    /// Calls it has in flight.
    pub(crate) busy: u32,
}

/// A way of choosing. Times are in microseconds.
pub(crate) trait Policy {
    /// The worker to send the call to, one of `seen` (never empty). It is sent there.
    fn choose(&mut self, wanted: &Wanted<'_>, seen: &[Seen], now: u64) -> usize;

    /// The answer has begun.
    fn begun(&mut self, _number: usize) {}

    /// The answer has ended.
    fn ended(&mut self, _number: usize) {}
}

/// Makes a policy for so many workers.
pub(crate) type Build = fn(usize) -> Box<dyn Policy>;

/// Every policy there is.
pub(crate) const KINDS: &[Kind<Build>] = &[
    house::PREFIX_AWARE,
    house::LEAST_LOAD,
    round_robin::KIND,
    least_connections::KIND,
    p2c::KIND,
    sglang::KIND,
    dynamo::KIND,
    llm_d::KIND,
];

/// The policy that is measured against the others.
pub(crate) const OURS: &str = house::PREFIX_AWARE.name;

/// Those it must beat; the rest is shown beside it.
pub(crate) const RIVALS: [&str; 4] =
    [round_robin::KIND.name, least_connections::KIND.name, p2c::KIND.name, sglang::KIND.name];

/// The worker with the least cost, taking turns among equals.
fn least(seen: &[Seen], turn: usize, cost: impl Fn(&Seen) -> f64) -> usize {
    let first = turn % seen.len().max(1);
    let in_turn = seen.iter().cycle().skip(first).take(seen.len());
    in_turn.min_by(|a, b| cost(a).total_cmp(&cost(b))).map_or(0, |one| one.worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_name_of_its_own_and_chooses_one_that_is_free() {
        let names: std::collections::HashSet<_> = kernel::kind::names(KINDS).into_iter().collect();
        assert_eq!(names.len(), KINDS.len());
        let call = Call { at: 0, input: 5120, output: 9, tenant: 0, blocks: (0..10).collect() };
        let chain = call.chain();
        for kind in KINDS {
            let mut policy = (kind.build)(8);
            for number in 0..40 {
                let seen: Vec<Seen> =
                    (0..8).filter(|worker| (worker + number) % 3 > 0).map(|worker| Seen { worker, busy: 3 }).collect();
                let chosen = policy.choose(&Wanted { number, call: &call, chain: &chain }, &seen, 1_000_000);
                assert!(seen.iter().any(|one| one.worker == chosen), "{}", kind.name);
                policy.begun(number);
                policy.ended(number);
            }
        }
    }
}
