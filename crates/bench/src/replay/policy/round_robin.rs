//! Every worker in turn.

use kernel::Kind;

use super::{Build, Policy, Seen, Wanted};

pub(super) const KIND: Kind<Build> =
    Kind { name: "round robin", about: "every worker in turn", build: |_| Box::new(RoundRobin::default()) };

#[derive(Debug, Default)]
struct RoundRobin(usize);

impl Policy for RoundRobin {
    fn choose(&mut self, _: &Wanted<'_>, seen: &[Seen], _: u64) -> usize {
        self.0 += 1;
        seen.get(self.0 % seen.len().max(1)).map_or(0, |one| one.worker)
    }
}
