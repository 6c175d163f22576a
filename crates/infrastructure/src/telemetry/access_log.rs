//! The access log: one JSON line per request.
//!
//! Lines are formatted in rounds and handed to a thread of their own, because standard output may be a pipe nobody
//! reads: then lines are counted and dropped, and nothing else waits.

mod clock;
mod json;
mod line;
#[cfg(test)]
mod tests;

use std::io::Write;

use kernel::Receipt;

use self::clock::Clock;
use super::drain::{Bounds, Drain};

/// Bound: what waits to be written; two seconds and more of full load.
const BACKLOG: Bounds = Bounds { pieces: 1024, bytes: 32 * 1024 * 1024 };
/// Lines that are handed on together.
const BATCH_LINES: usize = 256;
/// Room for a line, in bytes, that is rarely exceeded.
const LINE_ROOM: usize = 512;

/// Writes receipts as lines. Dropping it writes what is left, for half a second at most.
pub struct AccessLog(Drain);

impl AccessLog {
    /// A log that writes to `output`.
    ///
    /// # Errors
    /// When its thread cannot be made.
    pub fn to(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        Ok(Self(Drain::start("sluice-access-log", output, BACKLOG)?))
    }

    /// Formats receipts and hands them on; drops and counts them when the writer is behind.
    pub(super) fn write(&self, receipts: &[Receipt]) {
        let mut clock = Clock::default();
        for receipts in receipts.chunks(BATCH_LINES) {
            let count = receipts.iter().filter(|receipt| receipt.logged).count();
            let (room, lines) = (count * LINE_ROOM, count as u64);
            if !self.0.has_room(room) {
                self.0.lose(lines);
                continue;
            }
            let mut batch = Vec::with_capacity(room);
            receipts
                .iter()
                .filter(|receipt| receipt.logged)
                .for_each(|receipt| line::write(&mut batch, receipt, &mut clock));
            self.0.offer(batch, lines);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.lost()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.0.close();
    }
}
