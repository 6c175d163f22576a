//! What a line of an invoice is about, and how much of it there is.

use std::collections::BTreeMap;

use kernel::{Currency, Money, Usage};
use serde::{Deserialize, Serialize};

use super::Trouble;
use super::period::Month;
use super::tariff::share;

/// What a line is about. No two lines of an invoice have the same; the order is that of the lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    /// The earlier invoice in whose time it happened, where it became known only after that one was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// In which month it happened.
    pub month: Month,
    /// Why it is charged.
    pub kind: Kind,
    /// By which version of which plan: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// For which model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// By which price: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// For what of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The transfer that a correction is made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<String>,
}

/// Why something is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A plan's monthly fee, by the day.
    Fee,
    /// Tokens that the fee covers: they cost nothing more.
    Included,
    /// Tokens beyond those.
    Overage,
    /// What calls consumed, at a price for each unit.
    Usage,
    /// What calls were charged more or less than their units come to: discounts, and fractions of 10⁻¹².
    Adjustment,
    /// A transfer taken back.
    Correction,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Tokens read that are of no other class.
    Input,
    /// Tokens read from the backend's cache.
    Cached,
    /// Tokens written to it.
    CacheWrite,
    /// Tokens of sound read.
    AudioInput,
    /// Tokens generated that are of no other class.
    Output,
    /// Tokens of thought.
    Reasoning,
    /// Tokens of sound generated.
    AudioOutput,
    /// Images generated.
    Images,
    /// GPU time.
    Gpu,
    /// Answered calls.
    Calls,
}

/// What a quantity counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Tokens.
    Token,
    /// Images.
    Image,
    /// Milliseconds of a GPU.
    GpuMillisecond,
    /// Answered calls.
    Call,
    /// Days.
    Day,
    /// Nothing that could be counted: the amount stands for itself.
    None,
}

/// How much of an item there is, and what it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many units.
    pub quantity: u64,
    /// Of what.
    pub unit: Unit,
    /// Of how many at most, for tokens that a fee includes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// What `per` units cost.
    pub unit_price: Money,
    /// How many units the price is for.
    pub per: u64,
    /// What it all comes to, exact.
    pub exact: Money,
}

/// Items and how much of each.
pub(crate) type Items = BTreeMap<Item, Count>;

// === impl Item ===

impl Item {
    /// An item of a kind in a month, about nothing in particular.
    pub(crate) const fn new(month: Month, kind: Kind) -> Self {
        Self { earlier: None, month, kind, plan: None, model: None, price: None, class: None, transfer: None }
    }
}

// === impl Kind ===

impl Kind {
    /// The word in CSV and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fee => "fee",
            Self::Included => "included",
            Self::Overage => "overage",
            Self::Usage => "usage",
            Self::Adjustment => "adjustment",
            Self::Correction => "correction",
        }
    }
}

// === impl Class ===

impl Class {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Input,
        Self::Cached,
        Self::CacheWrite,
        Self::AudioInput,
        Self::Output,
        Self::Reasoning,
        Self::AudioOutput,
        Self::Images,
        Self::Gpu,
        Self::Calls,
    ];

    /// Those that count tokens; together they are all tokens of a call, each once.
    pub const TOKENS: [Self; 7] = [
        Self::Input,
        Self::Cached,
        Self::CacheWrite,
        Self::AudioInput,
        Self::Output,
        Self::Reasoning,
        Self::AudioOutput,
    ];

    /// The word in CSV and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Cached => "cached",
            Self::CacheWrite => "cache_write",
            Self::AudioInput => "audio_input",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::AudioOutput => "audio_output",
            Self::Images => "images",
            Self::Gpu => "gpu",
            Self::Calls => "calls",
        }
    }

    /// What it counts.
    pub const fn unit(self) -> Unit {
        match self {
            Self::Images => Unit::Image,
            Self::Gpu => Unit::GpuMillisecond,
            Self::Calls => Unit::Call,
            _ => Unit::Token,
        }
    }

    /// For how many units its price is given.
    pub const fn per(self) -> u64 {
        match self {
            Self::Images | Self::Calls => 1,
            Self::Gpu => 1_000,
            _ => 1_000_000,
        }
    }

    /// How much of it a usage has; not for [`Gpu`](Self::Gpu) and [`Calls`](Self::Calls), which no usage counts.
    pub(crate) const fn of(self, usage: &Usage) -> u64 {
        let within_input = usage.cached.0.saturating_add(usage.cache_write.0).saturating_add(usage.audio_input.0);
        let within_output = usage.reasoning.0.saturating_add(usage.audio_output.0);
        match self {
            Self::Input => usage.input.0.saturating_sub(within_input),
            Self::Cached => usage.cached.0,
            Self::CacheWrite => usage.cache_write.0,
            Self::AudioInput => usage.audio_input.0,
            Self::Output => usage.output.0.saturating_sub(within_output),
            Self::Reasoning => usage.reasoning.0,
            Self::AudioOutput => usage.audio_output.0,
            Self::Images => usage.images as u64,
            Self::Gpu | Self::Calls => 0,
        }
    }
}

// === impl Unit ===

impl Unit {
    /// The word in CSV and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Image => "image",
            Self::GpuMillisecond => "gpu_millisecond",
            Self::Call => "call",
            Self::Day => "day",
            Self::None => "",
        }
    }
}

// === impl Count ===

impl Count {
    /// So many units of a class at a price.
    pub(crate) fn of(class: Class, quantity: u64, unit_price: Money) -> Result<Self, Trouble> {
        Self::priced(quantity, class.unit(), unit_price, class.per())
    }

    /// So many units at a price for `per` of them.
    pub(crate) fn priced(quantity: u64, unit: Unit, unit_price: Money, per: u64) -> Result<Self, Trouble> {
        let exact = share(unit_price, quantity, per)?;
        Ok(Self { quantity, unit, of: None, unit_price, per, exact })
    }

    /// An amount that stands for itself.
    pub(crate) const fn amount(exact: Money) -> Self {
        Self { quantity: 0, unit: Unit::None, of: None, unit_price: Money::ZERO, per: 1, exact }
    }

    /// What it comes to as it can be paid.
    pub fn rounded(&self, currency: Currency) -> Money {
        self.exact.round(currency)
    }
}

/// Adds to an item what is of the same.
pub(crate) fn add(items: &mut Items, item: Item, count: Count) {
    let held = items.entry(item).or_insert(Count { quantity: 0, exact: Money::ZERO, ..count });
    held.quantity = held.quantity.saturating_add(count.quantity);
    held.exact += count.exact;
}

#[cfg(test)]
mod tests {
    use kernel::Tokens;

    use super::*;

    #[test]
    fn every_token_of_a_call_is_in_exactly_one_class() {
        let usage = Usage {
            input: Tokens(100),
            cached: Tokens(30),
            cache_write: Tokens(20),
            audio_input: Tokens(10),
            output: Tokens(50),
            reasoning: Tokens(7),
            audio_output: Tokens(3),
            images: 2,
            estimated: false,
        };
        let tokens: u64 = Class::TOKENS.iter().map(|class| class.of(&usage)).sum();
        assert_eq!(Tokens(tokens), usage.total());
        assert_eq!((Class::Input.of(&usage), Class::Output.of(&usage), Class::Images.of(&usage)), (40, 40, 2));
    }
}
