//! One rate limit's level: GCRA, exact in integers.
//!
//! GCRA keeps a theoretical arrival time; this is the same rule kept as what is owed, so that no period has to be divided
//! by a rate that does not divide it: one unit owes as many parts as its period has microseconds, and with each
//! microsecond as many parts are paid back as the rate has units. A changed limit keeps what is owed.

use std::time::Duration;

use kernel::Moment;

/// Bound: beyond it nobody's traffic comes, and a minute's worth, in parts, would no longer fit its word.
const UNITS_MAX: u64 = 50_000_000_000;

/// How many units per period; at once as many as one period's worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    units: u64,
    /// Microseconds.
    period: u64,
}

/// What is owed of one limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cell {
    /// In parts; see the head of this file.
    owed: u64,
    at: Moment,
}

/// Where a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    /// Units that could be taken now.
    pub(super) left: u64,
    /// Until it is full again.
    pub(super) full: Duration,
    /// Until one unit could be taken.
    pub(super) next: Duration,
}

// === impl Rate ===

impl Rate {
    pub(super) const SECOND: u64 = 1_000_000;
    pub(super) const MINUTE: u64 = 60 * Self::SECOND;

    pub(super) fn new(units: u64, period: u64) -> Self {
        Self { units: units.min(UNITS_MAX), period }
    }

    pub(super) const fn units(self) -> u64 {
        self.units
    }

    /// Microseconds.
    pub(super) const fn period(self) -> u64 {
        self.period
    }

    /// One of so many equal shares; never nothing.
    pub(super) fn share(self, of: u32) -> Self {
        Self { units: (self.units / u64::from(of.max(1))).max(1), ..self }
    }

    /// Until so many units have come back, rounded up; for ever where none do.
    pub(super) fn time(self, units: u64) -> Duration {
        self.pays(self.parts(units))
    }

    /// The same, rounded down.
    pub(super) fn spare(self, units: u64) -> Duration {
        Duration::from_micros(self.parts(units).checked_div(self.units).unwrap_or(0))
    }

    /// Units that come back in a span.
    pub(super) fn back(self, span: Duration) -> u64 {
        let parts = span.as_micros().saturating_mul(u128::from(self.units));
        u64::try_from(parts.checked_div(u128::from(self.period)).unwrap_or(0)).unwrap_or(u64::MAX)
    }

    fn pays(self, parts: u64) -> Duration {
        match (parts, self.units) {
            (0, _) => Duration::ZERO,
            (_, 0) => Duration::from_micros(u64::MAX),
            (parts, units) => Duration::from_micros(parts.div_ceil(units)),
        }
    }

    /// In one word: as many units as a rate may have are in no period more than it holds.
    fn parts(self, units: u64) -> u64 {
        units.saturating_mul(self.period)
    }
}

// === impl Cell ===

impl Cell {
    /// Where it stands.
    pub(super) fn stand(&self, rate: Rate, now: Moment) -> Stand {
        let owed = self.owed(rate, now);
        let room = rate.parts(rate.units);
        let left = room.saturating_sub(owed).checked_div(rate.period).unwrap_or(0);
        Stand { left, full: rate.pays(owed), next: rate.pays(over(owed, rate)) }
    }

    /// Until one more unit may be taken; zero: now. What takes more than is left leaves the rest owed, so nothing is too
    /// large to pass and nothing passes unpaid.
    pub(super) fn wait(&self, rate: Rate, now: Moment) -> Duration {
        rate.pays(over(self.owed(rate, now), rate))
    }

    /// Takes units, or with a negative number gives them back: never more than there were.
    pub(super) fn add(&mut self, rate: Rate, units: i64, now: Moment) {
        let owed = self.owed(rate, now);
        let parts = rate.parts(units.unsigned_abs());
        self.owed = if units < 0 { owed.saturating_sub(parts) } else { owed.saturating_add(parts) };
        self.at = self.at.max(now);
    }

    /// Forgets what is owed beyond the whole of it.
    pub(super) fn cap(&mut self, rate: Rate) {
        self.owed = self.owed.min(rate.parts(rate.units));
    }

    /// Units owed, rounded up.
    pub(super) fn used(&self, rate: Rate, now: Moment) -> u64 {
        self.owed(rate, now).div_ceil(rate.period.max(1))
    }

    fn owed(&self, rate: Rate, now: Moment) -> u64 {
        let passed = now.as_micros().saturating_sub(self.at.as_micros());
        self.owed.saturating_sub(passed.saturating_mul(rate.units))
    }
}

/// What must be paid back before one more unit may be taken.
fn over(owed: u64, rate: Rate) -> u64 {
    owed.saturating_add(rate.period).saturating_sub(rate.parts(rate.units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_micros(micros)
    }

    #[test]
    fn one_periods_worth_passes_at_once_and_then_one_per_part_of_it() {
        let (rate, mut cell) = (Rate::new(3, Rate::SECOND), Cell::default());
        for left in (0..3).rev() {
            assert_eq!(cell.wait(rate, at(5)), Duration::ZERO);
            cell.add(rate, 1, at(5));
            assert_eq!(cell.stand(rate, at(5)).left, left);
        }
        // A third of a second is no whole number of microseconds.
        assert_eq!(cell.wait(rate, at(5)), Duration::from_micros(333_334));
        assert_eq!(cell.wait(rate, at(5 + 333_333)), Duration::from_micros(1));
        assert_eq!(cell.wait(rate, at(5 + 333_334)), Duration::ZERO);
        assert_eq!(cell.stand(rate, at(5)).full, Duration::from_secs(1));
    }

    #[test]
    fn what_is_taken_beyond_the_rest_is_owed_and_what_is_given_back_is_never_more_than_that() {
        let (rate, mut cell) = (Rate::new(60, Rate::MINUTE), Cell::default());
        cell.add(rate, 90, at(0));
        assert_eq!(
            cell.stand(rate, at(0)),
            Stand { left: 0, full: Duration::from_secs(90), next: Duration::from_secs(31) }
        );
        cell.add(rate, -200, at(0));
        assert_eq!(cell.stand(rate, at(0)).left, 60);
        assert_eq!(cell.used(rate, at(0)), 0);
    }

    #[test]
    fn a_changed_limit_keeps_what_is_owed() {
        let (slow, fast) = (Rate::new(10, Rate::SECOND), Rate::new(100, Rate::SECOND));
        let mut cell = Cell::default();
        cell.add(slow, 8, at(0));
        assert_eq!((cell.stand(slow, at(0)).left, cell.stand(fast, at(0)).left), (2, 92));
        assert_eq!(cell.stand(fast, at(40_000)).left, 96, "paid back at the new rate");
    }

    #[test]
    fn a_clock_read_earlier_pays_nothing_back_twice() {
        let (rate, mut cell) = (Rate::new(1, Rate::SECOND), Cell::default());
        cell.add(rate, 1, at(1_000_000));
        cell.add(rate, 1, at(900_000));
        assert_eq!(cell.wait(rate, at(1_000_000)), Duration::from_secs(2));
    }

    #[test]
    fn nothing_overflows() {
        let (rate, mut cell) = (Rate::new(u64::MAX, Rate::MINUTE), Cell::default());
        cell.add(rate, i64::MAX, at(0));
        assert!(cell.wait(rate, at(0)) > Duration::ZERO);
        assert_eq!(Rate::new(0, Rate::SECOND).time(1), Duration::from_micros(u64::MAX));
        assert_eq!(cell.wait(rate, at(u64::MAX)), Duration::ZERO);
    }
}
