//! How many tenants a ledger is asked about at once, and how long it is left in peace then.
//!
//! What adding up a tenant's charges takes nobody knows before: it depends on how many there are. So it begins with few, asks
//! about more as long as that is quick, and about fewer where it is not. A tenant that takes too long by itself is put off, and
//! holds up nobody else. Pure, but for the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Account;

/// Bound: tenants asked about in one question: a database takes so many names.
const AT_ONCE_MAX: usize = 500;
/// How many to begin with. Bound: where it takes long, but no time-out, no fewer: a server that is far away answers about one
/// no sooner.
const AT_ONCE: usize = 16;
/// Bound: what a question should take, because nothing is posted meanwhile.
const QUICK: Duration = Duration::from_secs(1);
/// Bound: how long a question about several may take before fewer are asked about.
const TOGETHER: Duration = Duration::from_secs(3);
/// How many times fewer then. Bound: a store reads on in what nobody waits for any more, so the one that takes long must be
/// found in three or four questions.
const FEWER: usize = 8;
/// Bound: how long one about a single tenant may take before it is put off.
const ALONE: Duration = Duration::from_secs(10);
/// How long one that takes too long is put off, twice as long each time, and at most.
const OFF_MIN: Duration = Duration::from_secs(60);
const OFF_MAX: Duration = Duration::from_secs(900);
/// How often all that call are asked about again, at most.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// The rest after that, by what it took: so it costs the ledger a tenth of its time.
const REST: u32 = 10;
/// Bound: how much later at most a budget sees what other nodes have spent and a balance what was paid in, however long asking
/// takes.
const REFRESH_MAX: Duration = Duration::from_secs(300);

/// How loading goes. One for each that loads.
pub struct Pace {
    at_once: usize,
    off: Vec<Off>,
    /// When all are to be asked about again.
    due: Instant,
    /// What that has taken so far, while it is under way.
    spent: Option<Duration>,
}

/// A tenant that takes too long.
pub(super) struct Off {
    pub(super) account: Arc<Account>,
    until: Instant,
    wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_once: AT_ONCE, off: Vec::new(), due: Instant::now() + REFRESH_MIN, spent: None }
    }
}

impl Pace {
    /// For who wants to be told at once, however long it takes.
    #[cfg(test)]
    pub(super) fn widest() -> Self {
        Self { at_once: AT_ONCE_MAX, ..Self::default() }
    }

    /// How many to ask about next.
    pub(super) fn at_once(&self) -> usize {
        self.at_once
    }

    /// How long a question about so many may take.
    pub(super) fn patience(&self, count: usize) -> Duration {
        if count == 1 { ALONE } else { TOGETHER }
    }

    /// A question about so many was answered.
    pub(super) fn answered(&mut self, count: usize, took: Duration) {
        self.spend(took);
        if took > QUICK {
            self.at_once = (count / 2).max(AT_ONCE).min(self.at_once);
        } else if took < QUICK / 2 && count >= self.at_once {
            self.at_once = (self.at_once * 2).min(AT_ONCE_MAX);
        }
    }

    /// A question about so many, more than one, was not answered.
    pub(super) fn failed(&mut self, count: usize, took: Duration) {
        self.spend(took);
        self.at_once = (count / FEWER).max(1);
    }

    /// One is put off; `before`: so long it was the last time.
    pub(super) fn put_off(&mut self, account: Arc<Account>, before: Option<Duration>, took: Duration) -> Duration {
        self.spend(took);
        let wait = before.map_or(OFF_MIN, |before| (before * 2).min(OFF_MAX));
        self.off.push(Off { account, until: Instant::now() + wait, wait });
        // The others were not to blame.
        self.at_once = self.at_once.max(2);
        wait
    }

    /// Whether one that was put off is to be asked about again.
    pub fn has_due(&self) -> bool {
        let now = Instant::now();
        self.off.iter().any(|off| off.until <= now)
    }

    /// It, if there is one, and how long it was put off.
    pub(super) fn take_due(&mut self) -> Option<(Arc<Account>, Duration)> {
        let now = Instant::now();
        let at = self.off.iter().position(|off| off.until <= now)?;
        let off = self.off.swap_remove(at);
        Some((off.account, off.wait))
    }

    /// How many are put off.
    pub fn off(&self) -> usize {
        self.off.len()
    }

    /// Whether all that call are to be asked about again.
    pub fn refresh_due(&self) -> bool {
        self.spent.is_none() && self.due <= Instant::now()
    }

    /// All are about to be asked about again.
    pub(super) fn refresh(&mut self) {
        self.spent = Some(Duration::ZERO);
    }

    /// All have been asked about.
    pub(super) fn through(&mut self) {
        if let Some(spent) = self.spent.take() {
            self.due = Instant::now() + (spent * REST).clamp(REFRESH_MIN, REFRESH_MAX);
        }
    }

    fn spend(&mut self, took: Duration) {
        if let Some(spent) = &mut self.spent {
            *spent += took;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn asking_again_takes_a_tenth_of_the_time_and_comes_at_least_so_often() {
        for (took, rests) in [(0, 5), (400, 5), (1_000, 10), (9_000, 90), (600_000, 300)] {
            let mut pace = Pace::default();
            pace.refresh();
            for _ in 0..2 {
                pace.answered(16, Duration::from_millis(took / 2));
                assert!(!pace.refresh_due(), "it is under way");
            }
            pace.through();
            tokio::time::advance(Duration::from_secs(rests) - Duration::from_millis(2)).await;
            assert!(!pace.refresh_due(), "{took}");
            tokio::time::advance(Duration::from_millis(4)).await;
            assert!(pace.refresh_due(), "{took}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_asked_about_as_can_be_told_quickly() {
        let mut pace = Pace::default();
        let mut ask = |each: f64| {
            for _ in 0..20 {
                let count = pace.at_once();
                let took = Duration::from_secs_f64(each * count as f64);
                match took <= pace.patience(count) {
                    true => pace.answered(count, took),
                    false => pace.failed(count, took),
                }
            }
            pace.at_once()
        };
        assert_eq!(ask(0.000_1), AT_ONCE_MAX);
        assert!((50..=100).contains(&ask(0.01)), "about a second's worth");
        assert!((1..=3).contains(&ask(1.0)));
        assert_eq!(ask(0.000_1), AT_ONCE_MAX);
        // One that is far away answers about few no sooner.
        (0..20).for_each(|_| pace.answered(pace.at_once(), Duration::from_secs(2)));
        assert_eq!(pace.at_once(), AT_ONCE);
    }
}
