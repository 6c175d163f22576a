//! Calls that did not have to wait, from their end until they are counted.
//!
//! While nobody waits it does not matter who has had what. So that two data-plane threads need not hand the books to each
//! other for every call, such a call is charged when it ends, and many at once: when a shelf is full, when somebody begins to
//! wait, and every time the queue is looked after. What is still under way when somebody begins to wait is charged when it
//! ends: that is within the bound of what may be under way at once.

use std::sync::{Mutex, PoisonError};

use kernel::{Ctx, Usage, core};

/// A shelf per data-plane thread.
#[derive(Debug)]
pub(super) struct Shelves(Vec<Mutex<Vec<Ended>>>);

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ctx: Ctx,
    /// What became of it: what the backend counted; nothing was counted; nothing was done.
    pub(crate) did: Did,
    /// What the model read, in bytes.
    pub(crate) bytes: usize,
    /// Why it went where it went.
    pub(crate) reason: Option<&'static str>,
}

/// What a backend did for a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Did {
    /// This much.
    Counted(Usage),
    /// Something that nobody counted.
    Something,
    /// Nothing.
    Nothing,
}

/// Bound: shelves; more threads than this share them.
const SHELVES: usize = 16;
/// Bound: calls on a shelf. Enough that counting them costs each little.
const FULL: usize = 32;

impl Default for Shelves {
    fn default() -> Self {
        Self((0..SHELVES).map(|_| Mutex::default()).collect())
    }
}

impl Shelves {
    /// Puts a call on this thread's shelf; gives all that is there when it is full, or at once if `now`.
    pub(super) fn put(&self, ended: Ended, now: bool) -> Vec<Ended> {
        let Some(shelf) = self.0.get(core::current() % SHELVES) else { return vec![ended] };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.push(ended);
        if now || shelf.len() >= FULL { std::mem::take(&mut *shelf) } else { Vec::new() }
    }

    /// Takes all that is on any shelf.
    pub(super) fn clear(&self) -> Vec<Ended> {
        let take =
            |shelf: &Mutex<Vec<Ended>>| std::mem::take(&mut *shelf.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.iter().flat_map(take).collect()
    }
}
