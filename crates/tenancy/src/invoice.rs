//! Invoices: what a tenant owes for a time, line by line.
//!
//! An invoice is made from the ledger's sums, the plans a tenant was on and the prices its calls were rated by; nothing is
//! counted anywhere else. Each line is rounded once, half to even, to what its currency can pay; before that its lines
//! come to exactly what the charges do. Issuing one posts what no call has posted before: fees, overage, and what the
//! rounding left over, so that the tenant's account afterwards says what the invoice does. An issued invoice never changes:
//! what becomes known later stands in the next one, and mistakes are mended by transfers the other way. It judges nobody's
//! arithmetic: [`rerate`](crate::rerate) does, and shares no code with it.

mod behind;
mod books;
mod consumed;
mod fee;
pub mod item;
mod late;
pub mod money;
mod overage;
pub mod period;
pub mod print;
pub(crate) mod running;
mod tariff;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use kernel::store::Fault;
use kernel::store::ledger::Sum;
use kernel::{Currency, Money};
use serde::{Deserialize, Serialize};

pub use self::behind::{Cursor, behind};
pub use self::books::{Books, Issued};
pub use self::item::{Class, Count, Item, Kind, Unit};
pub use self::money::{Payment, Statement};
pub use self::period::{Day, Month, Period};
pub(crate) use self::tariff::Tariff;
use crate::Refused;

/// One invoice, issued or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// Its number; `None` for one that is not issued.
    pub id: Option<String>,
    /// Who pays.
    pub tenant: String,
    /// The first day.
    pub from: Day,
    /// The day after the last.
    pub until: Day,
    /// When it was issued, in milliseconds since 1970.
    pub issued: Option<i64>,
    /// In which currency.
    pub currency: Currency,
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// What is to be paid: the sum of the lines' amounts.
    pub total: Money,
    /// What the lines come to before rounding.
    pub exact: Money,
    /// What calls consumed, whether it is charged or not.
    pub usage: Vec<Consumption>,
    /// What was paid, given and taken back since the invoice before.
    pub payments: Vec<Payment>,
    /// How the tenant's account stands with it.
    pub statement: Statement,
    /// Currencies in which the tenant owes something for the time too; each has an invoice of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_currencies: Vec<Currency>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number within the invoice, from 1.
    pub line: u32,
    /// What it is about.
    #[serde(flatten)]
    pub item: Item,
    /// How much of it.
    #[serde(flatten)]
    pub count: Count,
    /// What it comes to, rounded.
    pub amount: Money,
}

/// What calls of one month consumed by one plan, price and model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// The earlier invoice in whose time it happened, where it became known only after that one was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// In which month.
    pub month: Month,
    /// By which version of which plan.
    pub plan: Option<String>,
    /// By which price.
    pub price: Option<String>,
    /// Which model.
    pub model: Option<String>,
    /// Charges.
    pub calls: u64,
    /// Charges whose tokens were counted by Sluice because the backend did not say.
    pub estimated: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens generated, reasoning included.
    pub output_tokens: u64,
    /// Images generated.
    pub images: u64,
    /// GPU time in milliseconds.
    pub gpu_ms: u64,
    /// What the calls themselves were charged, exact.
    pub charged: Money,
}

/// Why there is no invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// What the store says.
    Store(Fault),
    /// There is no such thing, by its noun.
    Missing(&'static str),
    /// What was asked for cannot be had; in words for whoever asked.
    Refused(String),
    /// Somebody else has been there; in words for whoever asked.
    Conflict(String),
    /// What is stored cannot be understood; in the operator's words.
    Broken(String),
    /// An amount is larger than any can be.
    TooLarge,
}

// === impl Invoice ===

impl Invoice {
    /// Its time.
    pub const fn period(&self) -> Period {
        Period { from: self.from, until: self.until }
    }

    /// Reads one as it is stored.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(body: &str) -> Result<Self, Trouble> {
        serde_json::from_str(body).map_err(|why| Trouble::Broken(format!("a stored invoice cannot be read: {why}")))
    }

    /// As it is stored, and as the API shows it.
    pub fn to_json(&self) -> String {
        // Invariant: nothing in it can fail to be written: all map keys are texts.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Its line of a number.
    pub fn line(&self, number: u32) -> Option<&Line> {
        self.lines.iter().find(|line| line.line == number)
    }
}

// === impl Consumption ===

impl Consumption {
    /// From a row of sums by month, plan, price and model.
    fn of(sum: &Sum) -> Option<Self> {
        let of = |at: usize| sum.of.get(at).cloned().flatten();
        Some(Self {
            earlier: None,
            month: Month::parse(&of(0)?)?,
            plan: of(1),
            price: of(2),
            model: of(3),
            calls: sum.calls,
            estimated: sum.estimated,
            input_tokens: sum.usage.input.0,
            output_tokens: sum.usage.output.0,
            images: u64::from(sum.usage.images),
            gpu_ms: sum.gpu_millis,
            charged: sum.amount,
        })
    }
}

impl Consumption {
    /// Whether another is about the same calls, perhaps of another invoice.
    fn same(&self, other: &Self) -> bool {
        (self.month, &self.plan, &self.price, &self.model) == (other.month, &other.plan, &other.price, &other.model)
    }
}

// === impl Trouble ===

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Store(fault)
    }
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Store(fault) => Self::by(fault, "posting"),
            Trouble::Missing(what) => Self::Missing(what),
            Trouble::Refused(why) => Self::invalid("", why),
            Trouble::Conflict(why) => Self::Conflict(why),
            Trouble::Broken(why) => Self::Broken(why),
            Trouble::TooLarge => Self::Broken(trouble.to_string()),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(fault) => fault.fmt(f),
            Self::Missing(what) => write!(f, "there is no such {what}"),
            Self::Refused(why) | Self::Conflict(why) | Self::Broken(why) => f.write_str(why),
            Self::TooLarge => f.write_str("an amount is larger than can be reckoned with"),
        }
    }
}

impl std::error::Error for Trouble {}
