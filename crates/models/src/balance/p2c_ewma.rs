//! `p2c_ewma`: of two at random, the one thought to be faster.

use kernel::{Kind, Moment, random::Random};

use super::{Balance, Build, Candidate, Pick, Wanted};

pub(super) const KIND: Kind<Build> = Kind {
    name: "p2c_ewma",
    about: "Of two instances at random the one with less time times load (peak EWMA), as linkerd and Finagle do.",
    build: || Box::new(PowerOfTwo(Random::seeded(0x51_01_CE))),
};

#[derive(Debug)]
struct PowerOfTwo(Random);

impl Balance for PowerOfTwo {
    fn pick(&self, candidates: &mut [Candidate], _: &Wanted<'_>, _: Moment) -> Pick {
        let count = candidates.len();
        if count < 2 {
            return Pick::new(0, "alone");
        }
        let first = self.0.below(count);
        let second = (first + 1 + self.0.below(count - 1)) % count;
        let mut cost = |position: usize| {
            candidates.get_mut(position).map_or(f64::MAX, |c| {
                c.score = c.micros * f64::from(c.busy + 1) / c.weight;
                c.score
            })
        };
        let position = if cost(second) < cost(first) { second } else { first };
        Pick::new(position, "faster_of_two")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, pick};
    use super::*;

    #[test]
    fn a_slow_instance_is_mostly_avoided() {
        let mut pool = candidates(&[1.0, 1.0, 1.0, 1.0]);
        pool[0].micros = 500_000.0;
        let balance = PowerOfTwo(Random::seeded(3));
        let slow = (0..10_000).filter(|_| pick(&balance, &pool, None) == 0).count();
        assert_eq!(slow, 0, "with two distinct choices the slower one never wins");
    }
}
