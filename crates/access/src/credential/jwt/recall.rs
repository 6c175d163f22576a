//! Tokens that were verified: the second call with one costs a hash and a look-up.
//!
//! Known by their SHA-256, so that memory holds nothing that could be shown again. Two maps take turns: when the newer
//! one is full it becomes the older, and the older is forgotten; what is still used moves over when it is found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use kernel::{Caller, CredentialKind};

use super::Verified;
use crate::credential::Desk;

/// Bound: tokens remembered in each of the maps of each shard: 2 × 16 × 2048, at some 2 KiB each.
const SHARD_MAX: usize = 2048;
const SHARDS: usize = 16;

/// The hash of a token.
pub(super) type Print = [u8; 32];

/// Verified tokens.
pub(super) struct Recall {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    newer: HashMap<Print, (Remembered, i64)>,
    older: HashMap<Print, (Remembered, i64)>,
}

/// What is known of a token.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) verified: Arc<Verified>,
    pub(super) caller: Caller,
    pub(super) by: CredentialKind,
    /// The directory that says so.
    pub(super) serial: u64,
}

/// The hash of a token.
pub(super) fn print(token: &str) -> Print {
    let mut print = [0; 32];
    print.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    print
}

// === impl Recall ===

impl Recall {
    /// Whose a token is that was verified before and still would be.
    pub(super) fn find(&self, print: &Print, now: i64, desk: Desk<'_>) -> Option<(Caller, CredentialKind)> {
        let serial = desk.directory.identities().serial();
        let mut shard = self.shard(print);
        let remembered = shard.find(print, now)?;
        if remembered.serial != serial {
            match again(remembered, desk) {
                Some(newer) => *remembered = newer,
                None => {
                    shard.forget(print);
                    return None;
                }
            }
        }
        if !remembered.verified.stands() {
            shard.forget(print);
            return None;
        }
        Some((remembered.caller.clone(), remembered.by))
    }

    /// Remembers a token until it ends.
    pub(super) fn keep(&self, print: Print, remembered: Remembered, until: i64, now: i64) {
        self.shard(&print).keep(print, remembered, until, now);
    }

    fn shard(&self, print: &Print) -> std::sync::MutexGuard<'_, Shard> {
        // Invariant: the remainder is less than the number of shards.
        let at = usize::from(print[0]) % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is an index of an array of SHARDS")]
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same token by the rules of another directory; `None` where it must be verified anew.
fn again(remembered: &Remembered, desk: Desk<'_>) -> Option<Remembered> {
    let verified = Arc::clone(&remembered.verified);
    let (name, identities) = (verified.issuer.name(), desk.directory.identities());
    let bindings = identities.issuer(name);
    let same = !bindings.is_empty() && Arc::ptr_eq(&desk.credentials.state.tokens.issuers.get(name), &verified.issuer);
    let caller = super::owner(bindings, &verified.claims, true).ok().filter(|_| same)?;
    let by = super::kind(verified.access_token, &caller);
    Some(Remembered { verified, caller, by, serial: identities.serial() })
}

// === impl Shard ===

impl Shard {
    fn find(&mut self, print: &Print, now: i64) -> Option<&mut Remembered> {
        if !self.newer.contains_key(print) {
            let (remembered, until) = self.older.remove(print)?;
            self.keep(*print, remembered, until, now);
        }
        let (remembered, until) = self.newer.get_mut(print)?;
        (*until > now).then_some(remembered)
    }

    fn keep(&mut self, print: Print, remembered: Remembered, until: i64, now: i64) {
        if self.newer.len() >= SHARD_MAX {
            self.newer.retain(|_, (_, until)| *until > now);
            if self.newer.len() >= SHARD_MAX / 2 {
                self.older = std::mem::take(&mut self.newer);
            }
        }
        self.newer.insert(print, (remembered, until));
    }

    fn forget(&mut self, print: &Print) {
        self.newer.remove(print);
        self.older.remove(print);
    }
}

impl Default for Recall {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}
