//! How many calls an instance may have at once, found out by watching it.
//!
//! Kept with the instance's vitals, so that a reload forgets nothing. The limit itself is that of its slots; this only
//! moves it. How is in `gradient`.

mod gradient;
#[cfg(test)]
mod simulation;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::{Moment, Slots};

use self::gradient::Gradient;
use crate::settings::AdaptiveSettings;

/// What has been found out about one instance so far.
#[derive(Debug, Default)]
pub(crate) struct Adaptive(Mutex<Option<Gradient>>);

/// What was waited for. The two take times of different kinds and are never compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The first piece of a stream.
    FirstPiece,
    /// A whole answer, which says nothing before it is done.
    Whole,
}

/// Causes of failure that say that it was too much, and not just that something went wrong.
const OVERLOADED: [&str; 4] = ["status_429", "status_503", "timeout", "first_byte_timeout"];

impl Adaptive {
    /// The limit to begin with under these rules: where it stood before, if it was adaptive before.
    pub(crate) fn begin(&self, rules: &AdaptiveSettings) -> u32 {
        self.lock().get_or_insert_with(|| Gradient::new(rules)).limit(rules)
    }

    /// Forgets everything: the limit is given now.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// What was awaited came after so long.
    pub(crate) fn succeeded(
        &self,
        rules: &AdaptiveSettings,
        slots: &Slots,
        (awaited, took): (Awaited, Duration),
        now: Moment,
    ) {
        self.turn(rules, slots, |gradient| gradient.succeeded(rules, (awaited, took), slots.busy(), now));
    }

    /// A call failed by the instance's own fault.
    pub(crate) fn failed(&self, rules: &AdaptiveSettings, slots: &Slots, cause: &str, now: Moment) {
        self.turn(rules, slots, |gradient| gradient.failed(rules, OVERLOADED.contains(&cause), now));
    }

    fn turn(&self, rules: &AdaptiveSettings, slots: &Slots, turn: impl FnOnce(&mut Gradient)) {
        let mut state = self.lock();
        // None while a config without it is in force: calls of the one before may still end.
        if let Some(gradient) = &mut *state {
            turn(gradient);
            slots.set_limit(Some(gradient.limit(rules)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Gradient>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
