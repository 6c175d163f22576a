//! What an issued invoice says, as texts: read from what is stored, not through the types it was written with.

use serde::Deserialize;

use super::ratio::Ratio;

/// An invoice.
#[derive(Deserialize)]
pub(super) struct Paper {
    pub currency: String,
    pub total: String,
    pub exact: String,
    pub lines: Vec<PaperLine>,
    pub usage: Vec<PaperUsage>,
    pub statement: PaperStatement,
}

/// A line.
#[derive(Deserialize)]
pub(super) struct PaperLine {
    pub line: u32,
    #[serde(flatten)]
    pub key: Key,
    pub transfer: Option<String>,
    pub quantity: u64,
    pub of: Option<u64>,
    pub unit_price: String,
    pub per: u64,
    pub exact: String,
    pub amount: String,
}

/// Calls of a group.
#[derive(Deserialize)]
pub(super) struct PaperUsage {
    pub earlier: Option<String>,
    #[serde(flatten)]
    pub group: Group,
    pub calls: u64,
}

/// How the account stands.
#[derive(Deserialize)]
pub(super) struct PaperStatement {
    pub before: String,
    pub paid: String,
    pub granted: String,
    pub billed: String,
    pub after: String,
}

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(super) struct Key {
    pub earlier: Option<String>,
    #[serde(flatten)]
    pub group: Group,
    pub kind: String,
    pub class: Option<String>,
}

/// What charges are put together by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub(super) struct Group {
    pub month: String,
    pub plan: Option<String>,
    pub model: Option<String>,
    pub price: Option<String>,
}

/// How much there is of something, and what it comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Amount {
    pub quantity: u128,
    pub exact: Ratio,
}

impl Amount {
    pub(super) const NONE: Self = Self { quantity: 0, exact: Ratio::ZERO };

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        Some(Self { quantity: self.quantity + other.quantity, exact: self.exact.plus(other.exact)? })
    }
}

/// In words, for a difference.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.kind, self.group.month)?;
        let parts = [
            ("class", &self.class),
            ("model", &self.group.model),
            ("plan", &self.group.plan),
            ("price", &self.group.price),
            ("from the time of", &self.earlier),
        ];
        for (word, value) in parts {
            if let Some(value) = value {
                write!(f, ", {word} {value}")?;
            }
        }
        Ok(())
    }
}
