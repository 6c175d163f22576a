//! Points in time as people read and write them: RFC 3339, in UTC.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kernel::Timestamp;

/// As in `2026-11-25T16:40:00.123Z`.
pub fn text(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis()).map_or_else(|_| at.millis().to_string(), |at| at.to_string())
}

/// Reads `2026-11-25T16:40:00Z`, with any offset, or a day, which begins at midnight UTC.
pub fn read(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at.as_millisecond()));
    }
    let day = (text.len() == 10).then(|| text.parse::<Date>().ok())??;
    Some(Timestamp(day.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_day_begins_at_midnight() {
        for (written, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-25T16:40:00.123Z", 1_795_624_800_123),
            ("2026-11-25T17:40:00.123+01:00", 1_795_624_800_123),
            ("1970-01-02", 86_400_000),
        ] {
            assert_eq!(read(written), Some(Timestamp(millis)), "{written}");
        }
        assert_eq!(text(Timestamp(1_795_624_800_123)), "2026-11-25T16:40:00.123Z");
        assert!(
            ["", "tomorrow", "2026-13-01", "2026-11-25T16:40:00", "1795624800"].iter().all(|text| read(text).is_none())
        );
    }
}
