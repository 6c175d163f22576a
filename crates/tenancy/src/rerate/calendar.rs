//! Days and months, reckoned from days since 1970 by arithmetic alone.

/// Milliseconds in a day.
pub(super) const DAY: i64 = 86_400_000;

/// The year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub(super) const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// The month a moment is in, as in `2026-11`.
pub(super) fn month(millis: i64) -> String {
    let (year, month, _) = civil(millis.div_euclid(DAY));
    format!("{year:04}-{month:02}")
}

/// How many days a month has.
pub(super) fn days_in(month: &str) -> Option<i64> {
    let (year, month) = month.split_once('-')?;
    let (year, month): (i64, i64) = (year.parse().ok()?, month.parse().ok()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        1..=12 => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::Day;

    #[test]
    fn days_are_those_of_the_calendar() {
        let mut day = Day::parse("2000-01-01").unwrap();
        while day < Day::parse("2100-04-01").unwrap() {
            let (year, month, of_month) = civil(day.start().millis() / DAY);
            assert_eq!(format!("{year:04}-{month:02}-{of_month:02}"), day.to_string());
            assert_eq!(super::month(day.start().millis()), day.month().to_string());
            assert_eq!(days_in(&day.month().to_string()), Some(i64::from(day.month().days())));
            day = day.next();
        }
        assert_eq!((days_in("2026-13"), days_in("x")), (None, None));
    }
}
