//! A streamed answer as it is charged.

use std::task::{Context, Poll};

use kernel::store::ledger::Ending;
use kernel::{Delta, Deltas, Error, Result, Tokens, Usage};

use super::tab::{self, Tab};
use crate::tokens::{Texts, Words};

/// Counts what is handed on, holds it back when it cannot be paid for, and closes the tab before the last of it.
pub(super) struct Flow {
    deltas: Box<dyn Deltas>,
    /// `None` once it is closed.
    tab: Option<Box<Tab>>,
    /// Pieces handed on: about a token each.
    pieces: u64,
    words: Words,
    /// Pieces that the daybook knows of.
    noted: u64,
}

/// How much more must have been handed on until the daybook is told: a hundredth, and at least so many tokens. It is what
/// a killed process can cost.
const NOTE_MIN: u64 = 2;
const NOTE_SHARE: u64 = 100;

/// Bound: an event with one token in it is smaller, frame and all. What is larger is looked into.
const EVENT_MAX: usize = 512;
/// Bytes of a token: what of a text a token has at least on average, so that none is given away.
const TOKEN_BYTES: u64 = 4;

/// About how many tokens are handed on: one for each event, but for large ones as many as their words make.
fn tokens(delta: &Delta, texts: Texts) -> u64 {
    let events = u64::from(delta.pieces);
    if delta.bytes.len() <= EVENT_MAX.saturating_mul(delta.pieces as usize) || events == 0 {
        return events;
    }
    let mut bytes = 0;
    texts(&delta.bytes, &mut |text| bytes += text.len() as u64);
    events.max(bytes / TOKEN_BYTES)
}

impl Flow {
    pub(super) fn new(tab: Box<Tab>, deltas: Box<dyn Deltas>) -> Self {
        Self { deltas, tab: Some(tab), pieces: 0, words: Words::default(), noted: 0 }
    }

    /// Looks at a piece before it is handed on.
    fn take(&mut self, delta: Delta) -> Result<Delta> {
        let Some(tab) = &mut self.tab else { return Ok(delta) };
        let pieces = self.pieces + tokens(&delta, tab.till.reading.answer);
        if delta.pieces > 0 {
            if let Err(spent) = tab.cover(Tokens(pieces)) {
                return Err(self.cut_off(spent));
            }
            if self.noted == 0 || pieces - self.noted >= NOTE_MIN.max(self.noted / NOTE_SHARE) {
                tab.progress(Tokens(pieces));
                self.noted = pieces;
            }
        }
        if delta.pieces > 0 {
            self.words.add(&delta.bytes, &tab.counting, tab.till.reading.answer);
            self.pieces = pieces;
        }
        if delta.last {
            self.end();
        }
        Ok(delta)
    }

    /// The backend has ended its answer, properly or with word that it cannot go on.
    fn end(&mut self) {
        let broke = self.tab.as_ref().is_some_and(|tab| tab.broke());
        self.close(if broke { Ending::UpstreamBroke } else { Ending::Complete });
    }

    /// Nothing more is handed on: what was is what it costs.
    fn cut_off(&mut self, spent: Error) -> Error {
        self.deltas = Box::new(Ended);
        self.close(Ending::CutOff);
        spent
    }

    /// Closes the tab, if it is open, by what the backend says or what was handed on.
    fn close(&mut self, ending: Ending) {
        let Some(tab) = self.tab.take() else { return };
        let usage = tab.told();
        if self.pieces == 0 && usage.is_none() {
            // Not a word came. That is nobody's debt unless it was the client who did not wait: dropped, the tab knows.
            match ending {
                Ending::ClientGone => drop(tab),
                Ending::Complete => tab.close_empty(),
                _ => tab.void(),
            }
            return;
        }
        let usage = match usage {
            // What was held back is not charged, whatever the backend says of it.
            Some(usage) if ending == Ending::CutOff => {
                Usage { output: usage.output.min(Tokens(self.pieces)), estimated: true, ..usage }
            }
            Some(usage) => usage,
            None => self.counted(&tab),
        };
        tab.close(ending, usage);
    }

    fn counted(&self, tab: &Tab) -> Usage {
        tab.counted(self.words.count(&tab.counting).unwrap_or(Tokens(self.pieces)))
    }
}

impl Deltas for Flow {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        let next = std::task::ready!(self.deltas.poll_next(cx));
        Poll::Ready(match next {
            Some(Ok(delta)) => Some(self.take(delta)),
            Some(Err(error)) => {
                self.close(tab::ending(&error));
                Some(Err(error))
            }
            None => {
                self.end();
                None
            }
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if self.tab.is_some() {
            // The backend's stream says what it knows when it is given up: it may have told what was consumed.
            self.deltas = Box::new(Ended);
            // A client that has read of the backend's error waits for no end.
            let ending = self.tab.as_ref().map_or(Ending::ClientGone, |tab| match tab.broke() {
                true => Ending::UpstreamBroke,
                false => tab.left(),
            });
            self.close(ending);
        }
    }
}

/// A stream that is over.
struct Ended;

impl Deltas for Ended {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        Poll::Ready(None)
    }
}
