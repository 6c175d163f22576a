//! What callers are told whose money is spent.

use std::time::Duration;

use kernel::contract::Period;
use kernel::error::Kind;
use kernel::{Currency, Error, Money, Origin, TenantId, Timestamp};

use super::books::Spent;
use super::period;

/// When to come back where only a store has to be reached, or calls have to end first.
const SOON: Duration = Duration::from_secs(1);

/// The cause of a refusal because nobody has said yet what is left.
pub(crate) const UNKNOWN: &str = "budget_unknown";

/// Why a call is refused, or cut off, that takes at least so much.
pub(super) fn error(spent: Spent, least: Money, tenant: &TenantId, currency: Currency, now: Timestamp) -> Error {
    match spent {
        Spent::Budget { key, limit, per, spent, reserved } => {
            let whose = if key { "this API key".to_owned() } else { format!("tenant `{tenant}`") };
            let span = match per {
                Period::Day => " a day",
                Period::Month => " a month",
                Period::Total => " in all",
            };
            let why = Why::of(limit - spent, reserved, least);
            let renews = period::renews(per, now).map_or_else(
                || "It does not start anew: ask for a higher one.".to_owned(),
                |at| format!("It starts anew at {at}."),
            );
            let message = format!(
                "The budget of {whose}, {limit} {currency}{span}, {}: {spent} {currency} are spent, {reserved} {currency} \
                 reserved by calls under way{}. {renews}",
                why.state(),
                why.tail(least, currency)
            );
            refusal("over_budget", message, why)
        }
        Spent::Balance { left, reserved } => {
            let why = Why::of(left, reserved, least);
            let message = format!(
                "The prepaid balance of tenant `{tenant}` {}: {left} {currency} are left, {reserved} {currency} of them \
                 reserved by calls under way{}. Pay in, then try again.",
                why.state(),
                why.tail(least, currency)
            );
            refusal("no_balance", message, why)
        }
        Spent::Unknown => {
            let message = "What is left of the budget is not known yet: the store cannot be reached.";
            let mut error = Error::new(Kind::Unavailable, Origin::Gateway, message).after(SOON);
            error.cause = UNKNOWN.into();
            error
        }
    }
}

fn refusal(cause: &'static str, message: String, why: Why) -> Error {
    let mut error = Error::new(Kind::OverBudget, Origin::Caller, message);
    error.cause = cause.into();
    if why.passes() { error.after(SOON) } else { error }
}

/// What stands in the way of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Nothing is left.
    Spent,
    /// What is left would not pay for it, even if nobody else took anything of it.
    TooSmall,
    /// Only what calls under way have set aside.
    Reserved,
    /// Only what other processes may spend of it.
    Elsewhere,
}

// === impl Why ===

impl Why {
    fn of(rest: Money, reserved: Money, least: Money) -> Self {
        match (rest.is_positive(), rest < least) {
            (false, _) => Self::Spent,
            (true, true) => Self::TooSmall,
            (true, false) if reserved.is_positive() => Self::Reserved,
            (true, false) => Self::Elsewhere,
        }
    }

    /// Whether it may be another thing soon.
    const fn passes(self) -> bool {
        matches!(self, Self::Reserved | Self::Elsewhere)
    }

    const fn state(self) -> &'static str {
        if matches!(self, Self::Spent) { "is spent" } else { "does not pay for this call" }
    }

    fn tail(self, least: Money, currency: Currency) -> String {
        match self {
            Self::Spent => String::new(),
            Self::TooSmall => {
                format!("; the rest is too small for this call, which takes at least {least} {currency}")
            }
            Self::Reserved => "; try again when they have ended".to_owned(),
            Self::Elsewhere => "; the rest is with other processes for now: try again".to_owned(),
        }
    }
}
