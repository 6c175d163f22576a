//! How fast a line moves, and what follows for those who wait.

use std::time::Duration;

use kernel::Moment;

/// A moving mean of the time between two turns while somebody waits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drain {
    /// In microseconds.
    mean: f64,
    turns: u32,
    /// The last turn, if somebody has waited ever since.
    last: Option<Moment>,
}

/// What one interval counts: the last twenty or so decide.
const NEW: f64 = 0.05;
/// Bound: fewer turns tell nothing about the pace.
const TURNS_MIN: u32 = 8;
/// What a client is told to wait when nothing better is known, and at least.
pub(crate) const RETRY_MIN: Duration = Duration::from_secs(1);
/// Bound: nobody is sent away for longer, since the pace may change.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(60);

impl Drain {
    /// Turns were given to so many; `waiting` still wait.
    pub(crate) fn turned(&mut self, turns: usize, waiting: usize, now: Moment) {
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        if turns > 0 {
            if let Some(last) = self.last {
                let each = now.since(last).as_secs_f64() * 1e6 / f64::from(turns);
                let keep = (1.0 - NEW).powi(i32::try_from(turns).unwrap_or(i32::MAX));
                // The first few are a plain mean, so that a wild first interval is not believed for long.
                let keep = keep.min(f64::from(self.turns) / f64::from(self.turns.saturating_add(turns)));
                self.mean = self.mean * keep + each * (1.0 - keep);
                self.turns = self.turns.saturating_add(turns);
            }
            self.last = Some(now);
        } else if self.last.is_none() && waiting > 0 {
            self.last = Some(now);
        }
        if waiting == 0 {
            self.last = None;
        }
    }

    /// How long so many turns will take, as far as that is known. A line that has stood still for longer than it used to
    /// take will be late by that much.
    pub(crate) fn estimate(&self, turns: usize, now: Moment) -> Option<Duration> {
        if self.turns < TURNS_MIN {
            return None;
        }
        let standing = self.last.map_or(0.0, |last| now.since(last).as_secs_f64() * 1e6);
        // The turn that is overdue is not a new pace: slots whose calls end together give turns in bursts.
        let overdue = (standing - self.mean).max(0.0);
        Some(Duration::from_micros((self.mean * turns as f64 + overdue) as u64))
    }

    /// When a call that found so many ahead of it should come again.
    pub(crate) fn retry_after(&self, ahead: usize, now: Moment) -> Duration {
        self.estimate(ahead + 1, now).unwrap_or(RETRY_MIN).clamp(RETRY_MIN, RETRY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_micros(1_000_000 + millis * 1000)
    }

    #[test]
    fn the_pace_is_that_of_the_turns_while_somebody_waits() {
        let mut drain = Drain::default();
        drain.turned(0, 5, at(0));
        assert_eq!(drain.estimate(1, at(0)), None, "nothing is known yet");
        (1..=40).for_each(|turn| drain.turned(1, 5, at(turn * 100)));
        assert_eq!(drain.estimate(10, at(4_000)).unwrap().as_millis(), 1_000);
        assert_eq!(drain.retry_after(19, at(4_000)), Duration::from_secs(2));
        // A pause in which nobody waits is not slowness.
        drain.turned(1, 0, at(4_100));
        drain.turned(0, 1, at(90_000));
        drain.turned(1, 1, at(90_100));
        assert_eq!(drain.estimate(10, at(90_100)).unwrap().as_millis(), 1_000);
        assert_eq!(drain.estimate(10, at(92_100)).unwrap().as_millis(), 2_900, "it stands still, and is late by that");
        assert_eq!(drain.retry_after(10_000, at(90_100)), RETRY_MAX);
    }
}
