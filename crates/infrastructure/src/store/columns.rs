//! Values as columns, and columns as values.

use std::borrow::Cow;

use kernel::store::ledger::PostingId;
use kernel::time::Timestamp;
use kernel::{Currency, Money};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::failure::Failure;
use super::session::Statement;

/// 10⁻¹² units in one.
const UNIT: i128 = 1_000_000_000_000;

/// Reads a row's columns from left to right.
pub(super) struct Columns<'r> {
    row: &'r AnyRow,
    next: usize,
}

/// Values one after the other, from wherever they come.
pub(super) trait Fields {
    /// A text that may be missing.
    fn maybe_text(&mut self) -> Result<Option<Cow<'_, str>>, Failure>;

    /// A number that may be missing.
    fn maybe_number(&mut self) -> Result<Option<i64>, Failure>;

    /// A text.
    fn text(&mut self) -> Result<Cow<'_, str>, Failure> {
        self.maybe_text()?.ok_or_else(|| Failure::broken("a text is missing"))
    }

    /// A number.
    fn number(&mut self) -> Result<i64, Failure> {
        self.maybe_number()?.ok_or_else(|| Failure::broken("a number is missing"))
    }

    /// A yes or no.
    fn flag(&mut self) -> Result<bool, Failure> {
        Ok(self.number()? != 0)
    }

    /// A point in time.
    fn time(&mut self) -> Result<Timestamp, Failure> {
        self.number().map(Timestamp)
    }

    /// A point in time that may be missing.
    fn maybe_time(&mut self) -> Result<Option<Timestamp>, Failure> {
        Ok(self.maybe_number()?.map(Timestamp))
    }
}

/// Money as the two numbers it is kept as.
///
/// Two numbers of 64 bits can be added up by either database, in one statement and under its locks; the decimal text of
/// a number of 128 bits can by neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    /// Whole units, rounded down.
    pub(super) units: i64,
    /// What is above them in 10⁻¹² units: 0 to 999,999,999,999.
    pub(super) pico: i64,
}

// === impl Columns ===

impl<'r> Columns<'r> {
    /// From the first one.
    pub(super) const fn of(row: &'r AnyRow) -> Self {
        Self { row, next: 0 }
    }

    fn take<T>(&mut self) -> Result<T, Failure>
    where
        T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
    {
        let value = self.row.try_get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    /// A text.
    pub(super) fn text(&mut self) -> Result<&'r str, Failure> {
        self.take()
    }

    /// A text that may be missing.
    pub(super) fn maybe_text(&mut self) -> Result<Option<&'r str>, Failure> {
        self.take()
    }

    /// A number.
    pub(super) fn number(&mut self) -> Result<i64, Failure> {
        self.take()
    }

    /// A number that may be missing.
    pub(super) fn maybe_number(&mut self) -> Result<Option<i64>, Failure> {
        self.take()
    }

    /// A number of things.
    pub(super) fn count(&mut self) -> Result<u64, Failure> {
        let number = self.number()?;
        u64::try_from(number).map_err(|_| Failure::broken(format!("{number} of something")))
    }

    /// A yes or no.
    pub(super) fn flag(&mut self) -> Result<bool, Failure> {
        Ok(self.number()? != 0)
    }

    /// A point in time.
    pub(super) fn time(&mut self) -> Result<Timestamp, Failure> {
        self.number().map(Timestamp)
    }

    /// Money: two columns.
    pub(super) fn money(&mut self) -> Result<Money, Failure> {
        let (units, pico) = (self.number()?, self.number()?);
        Ok(Parts { units, pico }.money())
    }

    /// A currency.
    pub(super) fn currency(&mut self) -> Result<Currency, Failure> {
        let text = self.text()?;
        Currency::parse(text).ok_or_else(|| Failure::broken(format!("`{text}` is no currency")))
    }

    /// The id of a charge or transfer.
    pub(super) fn posting(&mut self) -> Result<PostingId, Failure> {
        posting(self.text()?)
    }
}

impl Fields for Columns<'_> {
    fn maybe_text(&mut self) -> Result<Option<Cow<'_, str>>, Failure> {
        Ok(Columns::maybe_text(self)?.map(Cow::Borrowed))
    }

    fn maybe_number(&mut self) -> Result<Option<i64>, Failure> {
        Columns::maybe_number(self)
    }
}

/// Reads the id of a charge or transfer.
pub(super) fn posting(text: &str) -> Result<PostingId, Failure> {
    let id = Uuid::parse_str(text).map_err(|_| Failure::broken(format!("`{text}` is no id of a posting")))?;
    Ok(PostingId(id))
}

// === impl Parts ===

impl Parts {
    /// Splits an amount.
    ///
    /// # Errors
    /// More than 9 × 10¹⁸ units, which nobody means.
    pub(super) fn of(money: Money) -> Result<Self, Failure> {
        let beyond = || Failure::broken(format!("an amount of {money} is more than can be kept"));
        let units = i64::try_from(money.pico().div_euclid(UNIT)).map_err(|_| beyond())?;
        let pico = i64::try_from(money.pico().rem_euclid(UNIT)).map_err(|_| beyond())?;
        Ok(Self { units, pico })
    }

    /// The amount.
    pub(super) const fn money(self) -> Money {
        Money::from_pico(self.units as i128 * UNIT + self.pico as i128)
    }
}

/// A text from outside as both databases take it: PostgreSQL refuses a zero byte, and one such text must not hold up the
/// batch it is in.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A count as both databases take it.
///
/// Bound: what one charge can count is cut off at 10¹², so that the sum of millions of such stays within 64 bits. No call
/// has so many tokens; a broken backend may say so.
pub(super) fn counted(count: u64) -> i64 {
    const COUNT_MAX: u64 = 1_000_000_000_000;
    i64::try_from(count.min(COUNT_MAX)).unwrap_or(i64::MAX)
}

/// Binds money: two values.
pub(super) fn bind_money<'q>(statement: Statement<'q>, parts: Parts) -> Statement<'q> {
    statement.bind(parts.units).bind(parts.pico)
}

/// Bytes as lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads what [`hex`] writes.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_split_and_joined_exactly() {
        for pico in [0, 1, -1, UNIT, -UNIT, UNIT - 1, -UNIT - 1, 1_234_567 * UNIT + 89, i128::from(i64::MAX) * UNIT] {
            let parts = Parts::of(Money::from_pico(pico)).unwrap();
            assert!((0..i64::try_from(UNIT).unwrap()).contains(&parts.pico));
            assert_eq!(parts.money().pico(), pico);
        }
        assert!(Parts::of(Money::MAX).is_err());
    }

    #[test]
    fn a_hash_is_read_back_from_its_hex() {
        let hash: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 8 + 3).unwrap());
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        assert_eq!((unhex(""), unhex(&"0".repeat(63)), unhex(&"g".repeat(64))), (None, None, None));
    }
}
