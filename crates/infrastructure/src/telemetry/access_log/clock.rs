//! Wall-clock times as text, `2025-01-31T12:34:56.789Z`.
//!
//! Requests of one batch may have come minutes apart, but hardly ever on different days: the date is worked out once,
//! the rest is plain arithmetic.

use std::io::Write;
use std::time::{Duration, SystemTime};

const DAY: u64 = 24 * 60 * 60;

/// Writes times, remembering the last date.
#[derive(Default)]
pub(super) struct Clock {
    /// Days since 1970, and that day as text up to and including its `T`.
    today: Option<(u64, String)>,
}

impl Clock {
    /// Appends a time; nothing when it has no date that can be written.
    pub(super) fn write(&mut self, to: &mut Vec<u8>, at: SystemTime) {
        let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else { return write_ancient(to, at) };
        let (day, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
        if self.today.as_ref().is_none_or(|(known, _)| *known != day) {
            self.today = date(day).map(|text| (day, text));
        }
        let Some((_, date)) = &self.today else { return };
        to.extend_from_slice(date.as_bytes());
        let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60].map(two_digits);
        let [m, i, l] = three_digits(since.subsec_millis());
        let text = [hour[0], hour[1], b':', minute[0], minute[1], b':', second[0], second[1], b'.', m, i, l, b'Z'];
        to.extend_from_slice(&text);
    }
}

fn date(day: u64) -> Option<String> {
    let midnight = jiff::Timestamp::from_second(i64::try_from(day.checked_mul(DAY)?).ok()?).ok()?;
    midnight.to_string().split_inclusive('T').next().map(str::to_owned)
}

/// A clock set before 1970 is wrong, but no reason to hide what it says.
#[cold]
fn write_ancient(to: &mut Vec<u8>, at: SystemTime) {
    if let Ok(at) = jiff::Timestamp::try_from(at) {
        drop(write!(to, "{at:.3}"));
    }
}

/// The last two digits of a number.
fn two_digits(number: u64) -> [u8; 2] {
    [number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8)
}

/// The last three digits of a number.
pub(super) fn three_digits(number: u32) -> [u8; 3] {
    [number / 100 % 10, number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8)
}

/// Milliseconds with three digits behind the point.
pub(super) fn write_millis(to: &mut Vec<u8>, span: Duration) {
    let millis = span.as_secs().saturating_mul(1000).saturating_add(u64::from(span.subsec_millis()));
    to.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
    let [a, b, c] = three_digits(span.subsec_micros());
    to.extend_from_slice(&[b'.', a, b, c]);
}
