//! Ids that nobody else has and that are in order of time: UUIDs of version 7.
//!
//! Made here and not by the library, which asks the system for chance each time: a call makes two. They need no secrecy.

use uuid::{Builder, Uuid};

use crate::random::Random;
use crate::{Moment, Timestamp};

/// Makes them, without asking the system for more than its seeds.
#[derive(Debug)]
pub struct Uuids([Random; 2]);

impl Uuids {
    /// Seeds a maker.
    pub fn new() -> Self {
        Self([(); 2].map(|()| Random::seeded(seed())))
    }

    /// The next one, for a point of time.
    pub fn next(&self, at: Timestamp) -> Uuid {
        let [high, low] = &self.0;
        let chance = (u128::from(high.next()) << 64 | u128::from(low.next())).to_le_bytes();
        let bytes = chance.first_chunk::<10>().copied().unwrap_or_default();
        Builder::from_unix_timestamp_millis(u64::try_from(at.millis()).unwrap_or(0), &bytes).into_uuid()
    }
}

impl Default for Uuids {
    fn default() -> Self {
        Self::new()
    }
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    // Without system randomness ids are still unique in this process: they count on from the clock.
    if getrandom::fill(&mut seed).is_err() {
        seed = (Moment::now().as_micros() ^ Timestamp::now().millis().unsigned_abs()).to_le_bytes();
    }
    u64::from_le_bytes(seed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unlike_and_in_order_of_time() {
        let (one, other) = (Uuids::new(), Uuids::new());
        let at = Timestamp(1_790_000_000_000);
        let ids: BTreeSet<Uuid> = (0..10_000).flat_map(|_| [one.next(at), other.next(at)]).collect();
        assert_eq!(ids.len(), 20_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.to_string().starts_with("01a0c4")));
        let later = one.next(Timestamp(at.millis() + 1));
        assert!(ids.iter().all(|id| *id < later));
    }
}
