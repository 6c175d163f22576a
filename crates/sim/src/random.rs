//! Seeded randomness: splitmix64, small enough to read and the same on every machine.
//!
//! Every draw of the simulator comes from here, never from the operating system, so that a run can be
//! repeated. Fit for test data, not for secrets.

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

/// A running 64-bit FNV-1a digest of what is fed to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

// === impl Random ===

impl Random {
    /// The stream that belongs to a pair of numbers, such as a seed and an arrival number.
    pub(crate) fn of(seed: u64, salt: u64) -> Self {
        Self(scramble(seed ^ scramble(salt.wrapping_add(1))))
    }

    /// The next number, uniform over all 64 bits.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.0)
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn fraction(&mut self) -> f64 {
        // An f64 holds 53 bits exactly.
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }
}

fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

// === impl Digest ===

impl Digest {
    pub(crate) fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    /// Feeds one part. Parts are kept apart: `ab`, `c` differs from `a`, `bc`.
    pub(crate) fn feed(&mut self, part: &[u8]) {
        for byte in part.iter().chain(&[0xFF]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_spread_evenly() {
        let mut random = Random::of(7, 0);
        let mut buckets = [0_u32; 10];
        for _ in 0..10_000 {
            buckets[(random.fraction() * 10.0) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }

    #[test]
    fn neighbouring_salts_give_unrelated_streams() {
        let firsts: std::collections::HashSet<u64> = (0..1000).map(|salt| Random::of(0, salt).draw()).collect();
        assert_eq!(firsts.len(), 1000);
    }

    #[test]
    fn a_bound_is_never_reached() {
        let mut random = Random::of(1, 1);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}
