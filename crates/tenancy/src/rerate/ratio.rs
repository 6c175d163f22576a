//! Exact fractions: what re-rating reckons with, instead of the fixed point that bills are made in.

use std::cmp::Ordering;
use std::fmt;

/// A fraction in lowest terms; the lower part is more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ratio {
    over: i128,
    under: i128,
}

/// Decimals that amounts are kept with.
pub(super) const FINE: u32 = 12;

impl Ratio {
    pub(super) const ZERO: Self = Self { over: 0, under: 1 };

    /// `over` ÷ `under`; `None` where there is no such number.
    pub(super) fn new(over: i128, under: i128) -> Option<Self> {
        if under == 0 {
            return None;
        }
        let common = divisor(over.unsigned_abs(), under.unsigned_abs());
        let common = i128::try_from(common).ok()?.checked_mul(under.signum())?;
        Some(Self { over: over / common, under: under / common })
    }

    pub(super) fn whole(number: u128) -> Option<Self> {
        Self::new(i128::try_from(number).ok()?, 1)
    }

    /// Reads a decimal number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let under = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        Self::new(format!("{whole}{fraction}").parse().ok()?, under)
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let common = i128::try_from(divisor(self.under.unsigned_abs(), other.under.unsigned_abs())).ok()?;
        let under = self.under.checked_mul(other.under / common)?;
        let mine = self.over.checked_mul(under / self.under)?;
        Self::new(mine.checked_add(other.over.checked_mul(under / other.under)?)?, under)
    }

    pub(super) fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self { over: other.over.checked_neg()?, under: other.under })
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        // Crosswise first, so that what cancels out does not overflow before it does.
        let (a, b) = (Self::new(self.over, other.under)?, Self::new(other.over, self.under)?);
        Self::new(a.over.checked_mul(b.over)?, a.under.checked_mul(b.under)?)
    }

    /// To so many decimals, half to even.
    pub(super) fn round(self, decimals: u32) -> Option<Self> {
        let (scale, floor, rest) = self.cut(decimals)?;
        let odd = floor & 1;
        let up = match rest.checked_mul(2)?.cmp(&self.under) {
            Ordering::Less => 0,
            Ordering::Equal => odd,
            Ordering::Greater => 1,
        };
        Self::new(floor.checked_add(up)?, scale)
    }

    /// To so many decimals, what is beyond them dropped.
    pub(super) fn truncate(self, decimals: u32) -> Option<Self> {
        let (scale, floor, rest) = self.cut(decimals)?;
        Self::new(if self.over < 0 && rest != 0 { floor + 1 } else { floor }, scale)
    }

    /// 10^decimals, how often its part fits in, and what is left over of it.
    fn cut(self, decimals: u32) -> Option<(i128, i128, i128)> {
        let scale = 10_i128.checked_pow(decimals)?;
        let (whole, part) = (self.over.div_euclid(self.under), self.over.rem_euclid(self.under));
        let part = part.checked_mul(scale)?;
        Some((scale, whole.checked_mul(scale)?.checked_add(part / self.under)?, part % self.under))
    }

    /// The next whole number that is not less; `None` for one less than nothing.
    pub(super) fn ceiling(self) -> Option<u128> {
        let whole = self.over.div_euclid(self.under) + i128::from(self.over.rem_euclid(self.under) != 0);
        u128::try_from(whole).ok()
    }

    pub(super) const fn is_zero(self) -> bool {
        self.over == 0
    }
}

/// By what they come to; `None` only for numbers too large to compare, which are taken as equal.
impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.minus(*other).map(|difference| difference.over.cmp(&0))
    }
}

/// As a decimal number of at most twelve decimals.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scale, floor, _)) = self.round(FINE).and_then(|rounded| rounded.cut(FINE)) else {
            return write!(f, "{}/{}", self.over, self.under);
        };
        let sign = if floor < 0 { "-" } else { "" };
        let (whole, part) = (floor.unsigned_abs() / scale.unsigned_abs(), floor.unsigned_abs() % scale.unsigned_abs());
        let digits = format!("{part:012}");
        match digits.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            digits => write!(f, "{sign}{whole}.{digits}"),
        }
    }
}

/// The greatest number that divides both; 1 where there is none.
fn divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ratio(text: &str) -> Ratio {
        Ratio::parse(text).unwrap()
    }

    #[test]
    fn fractions_are_read_reckoned_with_and_written_exactly() {
        let third = Ratio::new(1, 3).unwrap();
        assert_eq!(third.plus(third).unwrap().plus(third).unwrap(), ratio("1"));
        assert_eq!(ratio("0.1").plus(ratio("0.2")).unwrap(), ratio("0.3"));
        assert_eq!(ratio("-0.002").times(ratio("1.5")).unwrap().to_string(), "-0.003");
        assert_eq!(
            (third.to_string().as_str(), Ratio::new(4, -6).unwrap().to_string().as_str()),
            ("0.333333333333", "-0.666666666667")
        );
        assert_eq!(
            (Ratio::new(1, 0), Ratio::parse(""), Ratio::parse("x"), Ratio::parse("1.2.3")),
            (None, None, None, None)
        );
        assert!(ratio("0.3") > third.times(ratio("0.9")).unwrap().minus(ratio("0.001")).unwrap());
    }

    #[test]
    fn rounding_is_half_to_even_and_truncating_drops() {
        let check = |text: &str, rounded: &str, truncated: &str| {
            let ratio = ratio(text);
            assert_eq!(
                (ratio.round(2).unwrap().to_string(), ratio.truncate(2).unwrap().to_string()),
                (rounded.into(), truncated.into())
            );
        };
        check("0.125", "0.12", "0.12");
        check("0.135", "0.14", "0.13");
        check("-0.125", "-0.12", "-0.12");
        check("-0.129", "-0.13", "-0.12");
        check("3", "3", "3");
    }

    proptest! {
        #[test]
        fn rounding_agrees_with_fixed_point(pico in -1_000_000_000_000_000_000_i128..1_000_000_000_000_000_000) {
            let money = kernel::Money::from_pico(pico);
            let rounded = ratio(&money.to_string()).round(2).unwrap().to_string();
            prop_assert_eq!(rounded, money.round(kernel::Currency::USD).to_string());
        }
    }
}
