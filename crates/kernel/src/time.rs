//! The clock of the data path: monotonic, in microseconds, one word wide.
//!
//! State machines take `now` as an argument and never read a clock themselves, so that a test can replay
//! any history. Only stages that touch the outside call [`Moment::now`].

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on the process's monotonic clock, in microseconds since its first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

/// One second, so that "before anything happened" can be told from "at the start".
const AHEAD: u64 = 1_000_000;

/// The clock's zero, as the standard library and as the system has it.
fn start() -> &'static (Instant, u64) {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    START.get_or_init(|| (Instant::now(), monotonic()))
}

/// The system's monotonic clock in microseconds: the one `Instant` reads, without the care `Instant` takes for clocks that
/// go back. A call reads it some twenty times.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1000
}

impl Moment {
    /// Reads the clock (about 20 ns).
    pub fn now() -> Self {
        let (_, zero) = *start();
        Self(AHEAD + monotonic().saturating_sub(zero))
    }

    /// The same point on the standard library's clock, for timers.
    pub fn instant(self) -> Instant {
        start().0 + Duration::from_micros(self.0.saturating_sub(AHEAD))
    }

    /// A moment at a known offset; for tests and simulations.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Time left until `self` as seen from now; zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.since(Self::now())
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A point of the wall clock, in milliseconds since 1970, UTC: for what outlives the process and for people. It may jump;
/// spans are measured with [`Moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads the wall clock.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// The same point.
    pub fn of(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds since 1970, UTC.
    pub const fn millis(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_and_its_instant_are_the_same_point() {
        let moment = Moment::now() + Duration::from_secs(5);
        let ahead = moment.instant().saturating_duration_since(Instant::now());
        assert!((4_900..=5_000).contains(&ahead.as_millis()), "{ahead:?}");
        assert!(Moment::from_micros(0).instant() <= Instant::now());
    }
}
