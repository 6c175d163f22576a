//! Of two workers at random the one with fewer calls in flight (Mitzenmacher 2001).

use kernel::Kind;
use kernel::random::Random;

use super::{Build, Policy, Seen, Wanted};

pub(super) const KIND: Kind<Build> = Kind {
    name: "P2C",
    about: "of two at random the one with fewer calls in flight",
    build: |_| Box::new(PowerOfTwo(Random::seeded(0x2C))),
};

#[derive(Debug)]
struct PowerOfTwo(Random);

impl Policy for PowerOfTwo {
    fn choose(&mut self, _: &Wanted<'_>, seen: &[Seen], _: u64) -> usize {
        let count = seen.len().max(1);
        let first = self.0.below(count);
        let second = (first + 1 + self.0.below(count.saturating_sub(1))) % count;
        let two = [seen.get(first), seen.get(second)];
        two.into_iter().flatten().min_by_key(|one| one.busy).map_or(0, |one| one.worker)
    }
}
