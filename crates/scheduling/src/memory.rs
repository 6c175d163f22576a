//! The last decisions, for whoever asks why a call was placed as it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::core;
use kernel::explain::Decision;

/// A ring of decisions per data-plane thread, so that none waits for another.
#[derive(Debug)]
pub(crate) struct Memory(Vec<Mutex<VecDeque<Arc<Decision>>>>);

/// Bound: decisions remembered per ring, some 2 MiB; at a thousand calls a second those of the last four seconds, at
/// ten a second of the last seven minutes.
const DECISIONS: usize = 4096;
/// Bound: rings; more threads than this share them.
const RINGS: usize = 16;

impl Default for Memory {
    fn default() -> Self {
        Self((0..RINGS).map(|_| Mutex::default()).collect())
    }
}

impl Memory {
    pub(crate) fn keep(&self, decision: Arc<Decision>) {
        let Some(ring) = self.0.get(core::current() % RINGS) else { return };
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if ring.len() >= DECISIONS { ring.pop_front() } else { None };
        ring.push_back(decision);
        drop(ring);
        // Freed outside the lock.
        drop(oldest);
    }

    /// The decisions about a call, the oldest first.
    pub(crate) fn about(&self, id: &str) -> Vec<Arc<Decision>> {
        let mut found = Vec::new();
        for ring in &self.0 {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(ring.iter().filter(|decision| decision.id.as_str() == id).cloned());
        }
        found.sort_by_key(|decision| decision.at);
        found
    }
}
