//! Which time an invoice is for: whole days of the calendar, in UTC.
//!
//! Fees go by the day and charges by the millisecond; with periods of whole days both fall to exactly one invoice. Sums
//! are kept by the hour, and a day is whole hours.

use std::fmt;
use std::ops::RangeInclusive;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kernel::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A day of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

/// A month of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(Date);

/// Days in a row; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    /// The first day.
    pub from: Day,
    /// The day after the last.
    pub until: Day,
}

/// Milliseconds in a day: UTC has no other days here.
const DAY: i64 = 86_400_000;
/// Bound: before it there was no Sluice, and after it four digits of a year do not do.
const YEARS: RangeInclusive<i16> = 2000..=9998;
/// Bound: a year and a day: longer ones cannot be read, and every day of a period is looked at.
const DAYS_MAX: i64 = 366;

// === impl Day ===

impl Day {
    /// Reads `2026-11-25`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let date = plain.then(|| text.parse::<Date>().ok())??;
        YEARS.contains(&date.year()).then_some(Self(date))
    }

    /// The day a point of time lies in.
    pub fn of(at: Timestamp) -> Self {
        let at = jiff::Timestamp::from_millisecond(at.millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Self(at.to_zoned(TimeZone::UTC).date())
    }

    /// Its midnight.
    pub fn start(self) -> Timestamp {
        let start = self.0.to_zoned(TimeZone::UTC).map_or(0, |start| start.timestamp().as_millisecond());
        Timestamp(start)
    }

    /// The midnight after it.
    pub fn end(self) -> Timestamp {
        Timestamp(self.start().millis() + DAY)
    }

    /// The day after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.tomorrow().unwrap_or(self.0))
    }

    /// The month it is in.
    pub fn month(self) -> Month {
        Month(self.0.first_of_month())
    }
}

// === impl Month ===

impl Month {
    /// Reads `2026-11`.
    pub fn parse(text: &str) -> Option<Self> {
        Day::parse(&format!("{text}-01")).map(Day::month)
    }

    /// How many days it has.
    pub fn days(self) -> u32 {
        u32::from(self.0.days_in_month().unsigned_abs())
    }

    /// All of it.
    pub fn period(self) -> Period {
        let after = self.0.last_of_month().tomorrow().unwrap_or(self.0);
        Period { from: Day(self.0), until: Day(after) }
    }

    /// The one before.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.yesterday().map_or(self.0, Date::first_of_month))
    }
}

// === impl Period ===

impl Period {
    /// From one day to another, which is left out; `None` where there is no day between, or more than a year.
    pub fn new(from: Day, until: Day) -> Option<Self> {
        let days = (until.start().millis() - from.start().millis()) / DAY;
        (1..=DAYS_MAX).contains(&days).then_some(Self { from, until })
    }

    /// Its days.
    pub fn days(self) -> impl Iterator<Item = Day> {
        std::iter::successors(Some(self.from), |day| Some(day.next())).take_while(move |day| *day < self.until)
    }

    /// Whether the two have a day in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.from < other.until && other.from < self.until
    }

    /// From its first midnight.
    pub fn start(self) -> Timestamp {
        self.from.start()
    }

    /// To the midnight after its last day, left out.
    pub fn end(self) -> Timestamp {
        self.until.start()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("must be a day, as in 2026-11-25"))
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("must be a month, as in 2026-11"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_written_and_found_by_time() {
        let day = Day::parse("2026-11-25").unwrap();
        assert_eq!((day.to_string().as_str(), day.start().millis()), ("2026-11-25", 1_795_564_800_000));
        assert_eq!((Day::of(day.start()), Day::of(Timestamp(day.end().millis() - 1))), (day, day));
        assert_eq!((Day::of(day.end()), day.next()), (day.next(), Day::parse("2026-11-26").unwrap()));
        for text in ["", "2026-11", "2026-02-29", "26-11-25", "2026-11-25T00", "1999-12-31", "+026-11-25"] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn months_know_their_days_and_neighbours() {
        let check = |text: &str, days: u32, before: &str| {
            let month = Month::parse(text).unwrap();
            assert_eq!(
                (month.to_string(), month.days(), month.before().to_string()),
                (text.into(), days, before.into())
            );
            assert_eq!(month.period().days().count(), days as usize);
        };
        check("2024-02", 29, "2024-01");
        check("2026-02", 28, "2026-01");
        check("2027-01", 31, "2026-12");
        assert_eq!((Month::parse("2026-13"), Month::parse("2026")), (None, None));
    }

    #[test]
    fn a_period_has_a_day_and_no_more_than_a_year() {
        let day = |text: &str| Day::parse(text).unwrap();
        assert_eq!(Period::new(day("2026-11-25"), day("2026-11-25")), None);
        assert_eq!(Period::new(day("2026-11-25"), day("2027-11-27")), None);
        let period = Period::new(day("2026-11-25"), day("2026-11-27")).unwrap();
        assert_eq!(period.days().map(|day| day.to_string()).collect::<Vec<_>>(), ["2026-11-25", "2026-11-26"]);
        assert!(period.overlaps(Month::parse("2026-11").unwrap().period()));
        assert!(!period.overlaps(Month::parse("2026-12").unwrap().period()));
    }
}
