//! The nonces that signatures have spent, for as long as the signatures would be good.
//!
//! Kept in this process only: each replica knows its own, and a restart forgets them, so until a signature expires it
//! could be used once more elsewhere, unless nonces are [shared](super::shared). What is full refuses; it never forgets.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use kernel::{KeyId, Result, random};

use super::{replayed, too_many};

/// Bound: nonces kept for one key; with signatures that last a minute that is a thousand requests per second.
const KEY_MAX: usize = 65_536;
/// Bound: nonces kept for all keys together, some 80 MiB.
const ALL_MAX: usize = 2 << 20;
const SHARDS: usize = 32;
/// Nonces are forgotten together with those that expire in the same span, in seconds.
const SPAN: i64 = 16;

/// All nonces.
pub(in crate::credential) struct Nonces {
    shards: [Mutex<HashMap<KeyId, Spent>>; SHARDS],
    all: AtomicUsize,
    most: (usize, usize),
}

/// The nonces of one key, by the span in which they expire. Never more spans than a signature's longest life has.
#[derive(Default)]
struct Spent(Vec<(i64, HashSet<u128>)>);

impl Nonces {
    /// Spends a nonce of a key.
    ///
    /// # Errors
    /// 401 where it was spent before; 429 where no more can be kept.
    pub(super) fn spend(&self, key: &KeyId, nonce: &str, expires: i64, now: i64) -> Result<()> {
        let at = usize::try_from(random::hash(key.as_str().as_bytes()) % SHARDS as u64).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is an index of an array of SHARDS")]
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        if self.all.load(Ordering::Relaxed) >= self.most.1 {
            // Keys that are not used any more give theirs back here.
            shard.retain(|_, spent| {
                self.all.fetch_sub(spent.forget(now), Ordering::Relaxed);
                !spent.0.is_empty()
            });
        }
        if !shard.contains_key(key) {
            shard.insert(key.clone(), Spent::default());
        }
        let Some(spent) = shard.get_mut(key) else { return Err(too_many()) };
        self.all.fetch_sub(spent.forget(now), Ordering::Relaxed);
        let print =
            digest(&SHA256, nonce.as_bytes()).as_ref().first_chunk().map_or(0, |print| u128::from_le_bytes(*print));
        if spent.0.iter().any(|(_, nonces)| nonces.contains(&print)) {
            return Err(replayed());
        }
        if spent.0.iter().map(|(_, nonces)| nonces.len()).sum::<usize>() >= self.most.0
            || self.all.load(Ordering::Relaxed) >= self.most.1
        {
            return Err(too_many());
        }
        let span = expires.div_euclid(SPAN);
        match spent.0.iter_mut().find(|(known, _)| *known == span) {
            Some((_, nonces)) => drop(nonces.insert(print)),
            None => spent.0.push((span, HashSet::from([print]))),
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Spent {
    /// Forgets what has expired; gives how many that were.
    fn forget(&mut self, now: i64) -> usize {
        let mut count = 0;
        self.0.retain(|(span, nonces)| {
            let over = (span + 1) * SPAN <= now;
            count += if over { nonces.len() } else { 0 };
            !over
        });
        count
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), all: AtomicUsize::new(0), most: (KEY_MAX, ALL_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(nonces: &Nonces, key: &str, nonce: &str, expires: i64, now: i64) -> u16 {
        match nonces.spend(&KeyId::new(key), nonce, expires, now) {
            Ok(()) => 200,
            Err(error) => wire::status::of(&error),
        }
    }

    #[test]
    fn a_nonce_counts_once_per_key_for_as_long_as_its_signature_is_good() {
        let nonces = Nonces::default();
        let check = |key, nonce, now| spend(&nonces, key, nonce, 1060, now);
        assert_eq!(check("a", "n1", 1000), 200);
        assert_eq!(check("a", "n1", 1059), 401);
        assert_eq!((check("a", "n2", 1059), check("b", "n1", 1059)), (200, 200));
        assert_eq!(spend(&nonces, "a", "n1", 1100, 1059), 401, "another expiry makes it no other nonce");
        assert_eq!(spend(&nonces, "a", "n1", 1200, 1100), 200, "its signature has expired long ago");
    }

    #[test]
    fn what_is_full_refuses_and_takes_again_when_nonces_expire() {
        let nonces = Nonces { most: (2, 3), ..Nonces::default() };
        let check = |key, nonce, now| spend(&nonces, key, nonce, now + 60, now);
        assert_eq!((check("a", "1", 1000), check("a", "2", 1000), check("a", "3", 1000)), (200, 200, 429));
        assert_eq!(check("a", "1", 1000), 401, "nothing was forgotten");
        assert_eq!((check("b", "1", 1000), check("b", "2", 1000), check("c", "1", 1000)), (200, 429, 429));
        assert_eq!(check("a", "3", 1100), 200);
    }
}
