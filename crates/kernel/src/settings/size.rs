//! An amount of bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// What a size looks like, for error messages.
pub const WORDS: &str = "a size such as 64MiB, 512KiB or 10MB, or a number of bytes";

/// A number of bytes, written as one or with a unit: `64MiB`, `512KiB`, `10MB`.
///
/// Units with an `i` are powers of 1024, those without are powers of 1000; case and a space before the
/// unit do not matter. `10M` is refused: half its readers take it for the one and half for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

// === impl Size ===

impl Size {
    /// This many bytes.
    pub const fn of_bytes(bytes: u64) -> Size {
        Size(bytes)
    }

    /// This many KiB; the largest size if that is more.
    pub const fn of_kib(kib: u64) -> Size {
        Size(kib.saturating_mul(1 << 10))
    }

    /// This many MiB; the largest size if that is more.
    pub const fn of_mib(mib: u64) -> Size {
        Size(mib.saturating_mul(1 << 20))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In bytes, for lengths in memory; the largest length there is if it is more.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether this is no byte at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        if digits.is_empty() {
            return Err(format!("expected {WORDS}"));
        }
        if matches!(unit, "k" | "K" | "m" | "M" | "g" | "G" | "t" | "T") {
            let unit = unit.to_ascii_uppercase();
            return Err(format!("expected {digits}{unit}iB (1024) or {digits}{unit}B (1000)"));
        }
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let factor = match known {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return Err(format!("expected {WORDS}")),
        };
        let bytes = digits.parse().ok().and_then(|n: u64| n.checked_mul(factor));
        bytes.map(Size).ok_or_else(|| "expected a size below 16 EiB".to_owned())
    }
}

impl fmt::Display for Size {
    /// With the largest unit that leaves no fraction, so that it reads back as the same size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        match UNITS.iter().find(whole) {
            Some(("B", _)) | None => write!(f, "{}", self.0),
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.to_string() {
            text if text.ends_with('B') => serializer.serialize_str(&text),
            _ => serializer.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WORDS)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let invalid = || E::invalid_value(de::Unexpected::Signed(bytes), &self);
                u64::try_from(bytes).map(Size).map_err(|_| invalid())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "format": "size",
            "minimum": 0,
            "pattern": "^[0-9]+ ?([kKmMgGtT][iI]?)?[bB]?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_is_read_in_every_unit() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("512KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("10MB", 10_000_000),
            ("10kb", 10_000),
            ("2GiB", 2 << 30),
            ("1TB", 1_000_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        let words = format!("expected {WORDS}");
        let cases = [
            ("", words.as_str()),
            ("MiB", words.as_str()),
            ("-1", words.as_str()),
            ("1.5GiB", words.as_str()),
            ("64 MiBs", words.as_str()),
            ("10M", "expected 10MiB (1024) or 10MB (1000)"),
            ("99999999TiB", "expected a size below 16 EiB"),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<Size>(), Err(message.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back_as_itself(bytes in any::<u64>(), shift in 0u32..64) {
            let size = Size((bytes >> shift) << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let json = serde_json::to_value(size).unwrap();
            prop_assert_eq!(serde_json::from_value::<Size>(json).unwrap(), size);
        }
    }
}
