//! The word to the operator that the daybook is full, and that it is so no more.
//!
//! At the first refusal, then now and then while it lasts, and once when it is over. Pure: knows no log and no clock.

use std::time::{Duration, Instant};

/// Between two words that it is still so.
const AGAIN: Duration = Duration::from_secs(10);

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It is full, and so much more has found no room.
    Full {
        /// Attempts since it was last told.
        refused: u64,
    },
    /// There is room again.
    Over {
        /// Attempts that had found none in all.
        refused: u64,
        /// For how long.
        lasted: Duration,
    },
}

/// Whether it is full, as far as that was told.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    told: Instant,
    /// Refused since it was told, and in all.
    fresh: u64,
    all: u64,
}

// === impl Alarm ===

impl Alarm {
    /// So many more have found no room; `short`: files cannot be made. Gives what is to be told of it.
    pub(super) fn look(&mut self, refused: u64, short: bool, now: Instant) -> Option<Word> {
        let Some(state) = &mut self.0 else {
            if refused == 0 {
                return None;
            }
            self.0 = Some(State { since: now, told: now, fresh: 0, all: refused });
            return Some(Word::Full { refused });
        };
        state.fresh += refused;
        state.all += refused;
        if refused == 0 && !short {
            let over = Word::Over { refused: state.all, lasted: now.duration_since(state.since) };
            self.0 = None;
            return Some(over);
        }
        if now.duration_since(state.told) < AGAIN {
            return None;
        }
        state.told = now;
        Some(Word::Full { refused: std::mem::take(&mut state.fresh) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_then_now_and_then_and_once_that_it_is_over() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(alarm.look(0, true, at(0)), None, "nobody was refused");
        assert_eq!(alarm.look(1, true, at(8)), Some(Word::Full { refused: 1 }));
        let told = (1..=3000).filter_map(|step| alarm.look(2, true, at(8 + step * 8)));
        assert_eq!(told.collect::<Vec<_>>(), [Word::Full { refused: 2500 }; 2], "in 24 seconds");
        assert_eq!(alarm.look(0, true, at(24_016)), None, "it is still full, though nobody calls");
        let lasted = Duration::from_millis(24_016);
        assert_eq!(alarm.look(0, false, at(24_024)), Some(Word::Over { refused: 6001, lasted }));
        assert_eq!(alarm.look(0, false, at(24_032)), None);
        assert_eq!(alarm.look(3, false, at(24_040)), Some(Word::Full { refused: 3 }), "and again");
    }
}
