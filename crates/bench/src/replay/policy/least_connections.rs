//! The worker with the fewest calls in flight.

use kernel::Kind;

use super::{Build, Policy, Seen, Wanted, least};

pub(super) const KIND: Kind<Build> = Kind {
    name: "least connections",
    about: "the fewest calls in flight, equals in turn",
    build: |_| Box::new(LeastConnections::default()),
};

#[derive(Debug, Default)]
struct LeastConnections(usize);

impl Policy for LeastConnections {
    fn choose(&mut self, _: &Wanted<'_>, seen: &[Seen], _: u64) -> usize {
        self.0 += 1;
        least(seen, self.0, |one| f64::from(one.busy))
    }
}
