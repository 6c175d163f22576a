//! What callers are told whose money is spent.

use std::time::Duration;

use kernel::contract::Period;
use kernel::error::Kind;
use kernel::{Currency, Error, Origin, TenantId, Timestamp};

use super::books::Spent;
use super::period;

/// When to come back where only a store has to be reached first.
const SOON: Duration = Duration::from_secs(1);

/// The cause of a refusal because nobody has said yet what is left.
pub(crate) const UNKNOWN: &str = "budget_unknown";

/// Why a call is refused, or cut off.
pub(super) fn error(spent: Spent, tenant: &TenantId, currency: Currency, now: Timestamp) -> Error {
    match spent {
        Spent::Budget { key, limit, per, spent } => {
            let whose = if key { "this API key".to_owned() } else { format!("tenant `{tenant}`") };
            let span = match per {
                Period::Day => " a day",
                Period::Month => " a month",
                Period::Total => " in all",
            };
            let renews = period::renews(per, now).map_or_else(
                || "It does not start anew: ask for a higher one.".to_owned(),
                |at| format!("It starts anew at {at}."),
            );
            let message = format!(
                "The budget of {whose}, {limit} {currency}{span}, is spent: {spent} {currency} are used or reserved. {renews}"
            );
            refusal("over_budget", message)
        }
        Spent::Balance(left) => {
            let message = format!(
                "The prepaid balance of tenant `{tenant}` is spent: {left} {currency} are left, less than this call \
                 takes. Pay in, then try again."
            );
            refusal("no_balance", message)
        }
        Spent::Unknown => {
            let message = "What is left of the budget is not known yet: the store cannot be reached.";
            let mut error = Error::new(Kind::Unavailable, Origin::Gateway, message).after(SOON);
            error.cause = UNKNOWN.into();
            error
        }
    }
}

fn refusal(cause: &'static str, message: String) -> Error {
    let mut error = Error::new(Kind::OverBudget, Origin::Caller, message);
    error.cause = cause.into();
    error
}
