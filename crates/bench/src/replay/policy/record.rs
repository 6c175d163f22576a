//! What was sent to a worker: pieces of prompts and when, for the policies that keep such a record per worker.

use std::collections::{HashMap, VecDeque};

/// Pieces by when they were last sent there.
#[derive(Debug, Default)]
pub(super) struct Record {
    sent: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
}

impl Record {
    /// How many of the chain's first pieces were sent there, and not before `since`.
    pub(super) fn known(&self, chain: &[u64], since: u64) -> usize {
        chain.iter().take_while(|piece| self.sent.get(piece).is_some_and(|at| *at >= since)).count()
    }

    pub(super) fn add(&mut self, chain: &[u64], now: u64) {
        for piece in chain.iter().rev() {
            self.sent.insert(*piece, now);
            self.order.push_back((now, *piece));
        }
    }

    /// Forgets the oldest until so many are left.
    pub(super) fn shrink(&mut self, pieces: usize) {
        while self.sent.len() > pieces {
            let Some((at, piece)) = self.order.pop_front() else { return };
            if self.sent.get(&piece) == Some(&at) {
                self.sent.remove(&piece);
            }
        }
    }

    /// Pieces in it.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }
}
