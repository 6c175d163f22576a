//! Money: fixed point, exact, never a float.
//!
//! An amount counts 10⁻¹² units of its currency in 128 bits, so that a price per million tokens with six decimals is a
//! whole number per token, and sums of charges round nowhere. Rounding happens once, where an invoice line is made.

use std::borrow::Cow;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount of money: 10⁻¹² units of some currency. Which currency stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Money(i128);

/// A currency by its ISO 4217 code, in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Decimals an amount can have.
const DECIMALS: usize = 12;
/// 10⁻¹² units in one unit.
const UNIT: i128 = 1_000_000_000_000;
/// Bound: no single amount is larger: a thousand million million units. Sums of 10¹¹ such still fit.
const AMOUNT_MAX: i128 = UNIT * 1_000_000_000_000_000;

/// Currencies whose smallest unit is not a hundredth, and how many decimals they have (ISO 4217).
const MINOR: &[(&str, u32)] = &[
    ("bhd", 3),
    ("bif", 0),
    ("clp", 0),
    ("djf", 0),
    ("gnf", 0),
    ("iqd", 3),
    ("isk", 0),
    ("jod", 3),
    ("jpy", 0),
    ("kmf", 0),
    ("krw", 0),
    ("kwd", 3),
    ("lyd", 3),
    ("omr", 3),
    ("pyg", 0),
    ("rwf", 0),
    ("tnd", 3),
    ("ugx", 0),
    ("uyi", 0),
    ("vnd", 0),
    ("vuv", 0),
    ("xaf", 0),
    ("xof", 0),
    ("xpf", 0),
];

// === impl Money ===

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than anybody has.
    pub const MAX: Self = Self(i128::MAX);

    /// An amount in 10⁻¹² units.
    pub const fn from_pico(pico: i128) -> Self {
        Self(pico)
    }

    /// In 10⁻¹² units.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// Whole units, for tests and bounds.
    pub const fn from_units(units: i64) -> Self {
        Self(units as i128 * UNIT)
    }

    /// Reads a decimal number: `12`, `-0.002`. Digits beyond the twelfth decimal must be zeros.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || (digits.contains('.') && fraction.is_empty()) || !plain(whole) || !plain(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > DECIMALS || whole.len() > 16 {
            return None;
        }
        let scale = 10_i128.pow(u32::try_from(DECIMALS - fraction.len()).ok()?);
        let part = if fraction.is_empty() { 0 } else { fraction.parse::<i128>().ok()? * scale };
        let pico = whole.parse::<i128>().ok()?.checked_mul(UNIT)?.checked_add(part)?;
        (pico <= AMOUNT_MAX).then_some(Self(if negative { -pico } else { pico }))
    }

    /// So many times the amount. Saturates, far beyond what anybody pays.
    pub const fn times(self, count: u64) -> Self {
        let (amount, count) = (self.0, count as i128);
        // What fits one word, times a word, fits two: nearly every price does, and need not be checked with four products.
        if amount == amount as i64 as i128 { Self(amount * count) } else { Self(amount.saturating_mul(count)) }
    }

    /// The amount for one, where this is for `count`; `None` where it is not exact.
    pub const fn per(self, count: u64) -> Option<Self> {
        if count == 0 || self.0 % count as i128 != 0 { None } else { Some(Self(self.0 / count as i128)) }
    }

    /// How often `other` fits into it: 0 where either is not positive.
    pub const fn holds(self, other: Self) -> u64 {
        if self.0 <= 0 || other.0 <= 0 {
            return 0;
        }
        let times = self.0 / other.0;
        if times > u64::MAX as i128 { u64::MAX } else { times as u64 }
    }

    /// The difference, but not below zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        let left = self.0.saturating_sub(other.0);
        Self(if left < 0 { 0 } else { left })
    }

    /// Whether it is more than nothing.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Rounded to what the currency can pay, half to even.
    #[must_use]
    pub fn round(self, currency: Currency) -> Self {
        let step = 10_i128.pow(DECIMALS as u32 - currency.decimals());
        let (whole, rest) = (self.0.div_euclid(step), self.0.rem_euclid(step));
        let up = match (rest * 2).cmp(&step) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Greater => 1,
            std::cmp::Ordering::Equal => whole & 1,
        };
        Self((whole + up) * step)
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Money {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Money {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// A plain decimal number without trailing zeros: `0.002`, `-12`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, size) = if self.0 < 0 { ("-", self.0.unsigned_abs()) } else { ("", self.0.unsigned_abs()) };
        let (whole, rest) = (size / UNIT.unsigned_abs(), size % UNIT.unsigned_abs());
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{rest:0DECIMALS$}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        let wrong =
            || de::Error::custom("must be a decimal number in quotes with at most 12 decimals, as in \"0.002\"");
        Self::parse(&text).ok_or_else(wrong)
    }
}

impl JsonSchema for Money {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,12})?$" })
    }
}

// === impl Currency ===

impl Currency {
    /// US dollars: what prices are in unless they say otherwise.
    pub const USD: Self = Self(*b"usd");

    /// Reads a code of three letters, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 3] = text.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_alphabetic).then(|| Self(code.map(|byte| byte.to_ascii_lowercase())))
    }

    /// The code in lower case, as in configs.
    pub fn as_str(&self) -> &str {
        // Invariant: only ASCII letters are let in.
        std::str::from_utf8(&self.0).unwrap_or("usd")
    }

    /// How many decimals its smallest unit has.
    pub fn decimals(self) -> u32 {
        MINOR.iter().find(|(code, _)| *code == self.as_str()).map_or(2, |(_, decimals)| *decimals)
    }
}

impl Default for Currency {
    fn default() -> Self {
        Self::USD
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("must be a currency code of three letters, as in usd"))
    }
}

impl JsonSchema for Currency {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z]{3}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, pico) in [
            ("0", 0),
            ("12", 12 * UNIT),
            ("0.002", 2_000_000_000),
            ("-1.5", -1_500_000_000_000),
            ("0.000000000001", 1),
            ("1000000000000000", AMOUNT_MAX),
        ] {
            let money = Money::parse(text).unwrap();
            assert_eq!((money.pico(), money.to_string().as_str()), (pico, text));
        }
        assert_eq!(Money::parse("1.50").unwrap().to_string(), "1.5");
        for text in ["", ".", "1.", ".5", "1e3", "+1", "1,5", "--1", "0.0000000000001", "1000000000000001", "０"] {
            assert_eq!(Money::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_price_per_million_tokens_is_whole_per_token() {
        let per_token = Money::parse("0.0375").unwrap().per(1_000_000).unwrap();
        assert_eq!(per_token.times(2_000_000).to_string(), "0.075");
        assert_eq!(Money::parse("0.0000001").unwrap().per(1_000_000), None, "finer than can be kept");
    }

    #[test]
    fn rounding_is_half_to_even_at_the_currencys_smallest_unit() {
        let check = |text: &str, code: &str, expected: &str| {
            let rounded = Money::parse(text).unwrap().round(Currency::parse(code).unwrap());
            assert_eq!(rounded.to_string(), expected, "{text} {code}");
        };
        check("0.125", "usd", "0.12");
        check("0.135", "usd", "0.14");
        check("0.1250000001", "usd", "0.13");
        check("-0.125", "usd", "-0.12");
        check("2.5", "jpy", "2");
        check("3.5", "JPY", "4");
        check("0.0005", "kwd", "0");
    }

    #[test]
    fn a_currency_is_three_letters() {
        assert_eq!(Currency::parse("EUR").unwrap().as_str(), "eur");
        assert!(["", "us", "usdt", "u$d", "é"].iter().all(|text| Currency::parse(text).is_none()));
    }
}
