//! What happened to a call, written as it happens and read once at the end.

use std::sync::Arc;
use std::time::Duration;

use crate::explain::Decision;
use crate::fleet::Deployment;
use crate::{Currency, Moment, Money, Usage};

/// One fact about a call, noted by the stage that knows it.
#[derive(Debug)]
pub enum Note {
    /// It joined a line: with so many ahead of it, which were thought to take so long.
    Joined(u32, Option<Duration>),
    /// It waited this long for a slot.
    Queued(Duration),
    /// It was put back into the line by a more urgent call, as if it had not been placed.
    PutBack,
    /// How its placement was decided.
    Decided(Arc<Decision>),
    /// It was placed: on which deployment, and on which instance by name. Each attempt notes one.
    Placed(Arc<Deployment>, Arc<str>),
    /// An attempt failed, in the operator's words.
    Failed(Arc<str>),
    /// The answer carried an error of the backend's own in its middle; in the operator's words.
    Broke(&'static str),
    /// The backend's head arrived.
    Headed(Moment),
    /// The first piece of the answer arrived.
    FirstByte(Moment),
    /// What was consumed.
    Used(Usage),
    /// What it costs, where that is known before the answer's head is written, and always at its end.
    Charged(Money, Currency),
    /// How pieces of a stream were spaced.
    Spaced(Box<Gaps>),
}

/// The journal of one call: notes folded into place as they come, so that writing one costs no allocation.
#[derive(Debug, Default)]
pub struct Journal {
    /// Time spent waiting for slots, over all attempts.
    pub queued: Duration,
    /// How many were ahead of it when it first joined a line, and how long they were thought to take.
    pub joined: Option<(u32, Option<Duration>)>,
    /// How often it was put back by more urgent calls.
    pub put_back: u32,
    /// How its last placement was decided.
    pub decision: Option<Arc<Decision>>,
    /// Attempts made.
    pub attempts: u32,
    /// Where the last attempt went.
    pub placed: Option<(Arc<Deployment>, Arc<str>)>,
    /// Failed attempts: instance and cause.
    pub failures: Vec<(Option<Arc<str>>, Arc<str>)>,
    /// Why an answer that came to its end is none.
    pub broke: Option<&'static str>,
    /// When the answer's head came.
    pub headed: Option<Moment>,
    /// When its first piece came.
    pub first_byte: Option<Moment>,
    /// What it consumed.
    pub usage: Option<Usage>,
    /// What it costs, over all attempts.
    pub cost: Option<(Money, Currency)>,
    /// How its pieces were spaced.
    pub gaps: Option<Box<Gaps>>,
}

impl Journal {
    /// Folds one fact in.
    pub fn write(&mut self, note: Note) {
        match note {
            Note::Joined(ahead, estimate) => drop(self.joined.get_or_insert((ahead, estimate))),
            Note::Queued(waited) => self.queued += waited,
            Note::PutBack => {
                self.put_back += 1;
                self.attempts = self.attempts.saturating_sub(1);
            }
            Note::Decided(decision) => self.decision = Some(decision),
            Note::Placed(deployment, instance) => {
                self.attempts += 1;
                self.placed = Some((deployment, instance));
            }
            Note::Failed(cause) => {
                let instance = self.placed.as_ref().map(|(_, name)| Arc::clone(name));
                self.failures.push((instance, cause));
            }
            Note::Broke(cause) => self.broke = Some(cause),
            Note::Headed(at) => self.headed = Some(at),
            Note::FirstByte(at) => self.first_byte = Some(at),
            // Who guesses from pieces alone knows less than who has counted the prompt as well, whoever comes last.
            Note::Used(guess) if guess.estimated && self.usage.is_some_and(|known| known.total() >= guess.total()) => {}
            Note::Used(usage) => self.usage = Some(usage),
            Note::Charged(amount, currency) => {
                let (so_far, _) = self.cost.unwrap_or_default();
                self.cost = Some((so_far + amount, currency));
            }
            Note::Spaced(gaps) => self.gaps = Some(gaps),
        }
    }
}

/// Upper bounds of the buckets of inter-piece gaps, in microseconds; the last bucket is open.
pub const GAP_BOUNDS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// A small histogram of the gaps between the pieces of one stream.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// Gaps per bucket of [`GAP_BOUNDS`], and one for all beyond.
    pub counts: [u32; GAP_BOUNDS.len() + 1],
    /// Their sum, in microseconds.
    pub sum: u64,
}

impl Gaps {
    /// Counts one gap.
    pub fn add(&mut self, gap: Duration) {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        let bucket = GAP_BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(micros);
    }
}
