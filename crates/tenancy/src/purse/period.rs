//! Periods of the calendar as numbers, in UTC: cheap enough for every call.

use jiff::tz::TimeZone;
use kernel::Timestamp;
use kernel::contract::Period;

const DAY_MS: i64 = 86_400_000;

/// Which day, or month, a time falls in: goes up by one with each.
pub(crate) fn number(per: Period, at: Timestamp) -> i64 {
    let day = at.millis().div_euclid(DAY_MS);
    match per {
        Period::Day => day,
        Period::Month => month(day),
        Period::Total => 0,
    }
}

/// When a period begins.
pub(crate) fn begin(per: Period, number: i64) -> Timestamp {
    match per {
        Period::Day => Timestamp(number * DAY_MS),
        Period::Month => Timestamp(first_day(number) * DAY_MS),
        Period::Total => Timestamp(0),
    }
}

/// When the next one begins, as in `2026-12-01T00:00:00Z`; `None`: never.
pub(crate) fn renews(per: Period, at: Timestamp) -> Option<String> {
    if per == Period::Total {
        return None;
    }
    let next = begin(per, number(per, at) + 1);
    let next = jiff::Timestamp::from_millisecond(next.millis()).ok()?;
    Some(next.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Months since the year 0, of a day since 1970 (Hinnant's `civil_from_days`).
const fn month(day: i64) -> i64 {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    // Its years begin in March.
    let (year, month) = (year + era * 400, if month < 10 { month + 2 } else { month - 10 });
    (year + (month < 2) as i64) * 12 + month
}

/// The first day of a month (`days_from_civil`).
const fn first_day(month: i64) -> i64 {
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
    let year = year - (month <= 2) as i64;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        let mut at = jiff::civil::date(1999, 12, 25);
        while at.year() < 2105 {
            let stamp = Timestamp(at.to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond());
            let month = i64::from(at.year()) * 12 + i64::from(at.month()) - 1;
            assert_eq!(number(Period::Month, stamp), month, "{at}");
            assert_eq!(number(Period::Month, Timestamp(stamp.millis() + DAY_MS - 1)), month, "{at}");
            let first = at.first_of_month().to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond();
            assert_eq!(begin(Period::Month, month), Timestamp(first), "{at}");
            assert_eq!(begin(Period::Day, number(Period::Day, stamp)), stamp);
            at = at.tomorrow().unwrap();
        }
    }

    #[test]
    fn it_is_told_when_a_budget_starts_anew() {
        let at = Timestamp(1_795_000_000_000); // 2026-11-18
        assert_eq!(renews(Period::Day, at).as_deref(), Some("2026-11-19T00:00:00Z"));
        assert_eq!(renews(Period::Month, at).as_deref(), Some("2026-12-01T00:00:00Z"));
        assert_eq!(renews(Period::Total, at), None);
    }
}
