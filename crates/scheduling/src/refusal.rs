//! What a caller is told that does not get its turn.

use std::time::Duration;

use kernel::error::Kind;
use kernel::{Error, Origin};

use crate::queue::{RETRY_MIN, Refused};

/// The error for a refusal; `waited` is how long the call had waited for it, `retry_after` what the pace of the line
/// suggests.
pub(crate) fn error(refused: Refused, waited: Duration, retry_after: Duration) -> Error {
    let gateway = |kind, message: String| Error::new(kind, Origin::Gateway, message);
    match refused {
        Refused::Down(after) => {
            gateway(Kind::Unavailable, "No instance of this model can be reached right now.".into())
                .after(after.unwrap_or(RETRY_MIN))
        }
        Refused::Full(after) => {
            gateway(Kind::Unavailable, "All slots of this model are busy and its queue is full.".into()).after(after)
        }
        Refused::PushedOut(after) => gateway(
            Kind::Unavailable,
            format!(
                "The queue of this model is full, and a call that was more urgent or of a tenant with fewer waiting took \
                 this one's place after {} ms.",
                waited.as_millis()
            ),
        )
        .after(after),
        Refused::TenantFull(after) => {
            let message = "Too many calls of this tenant wait for this model already.";
            Error::new(Kind::Limited, Origin::Caller, message).after(after)
        }
        Refused::Hopeless(wait) => gateway(
            Kind::Unavailable,
            format!(
                "The queue of this model is too long: those ahead of this call would take about {} s, and its deadline is \
                 earlier.",
                wait.as_secs().max(1)
            ),
        )
        .after(retry_after),
        Refused::Late => gateway(
            Kind::Waited,
            format!("All slots of this model were busy: the call waited {} ms, up to its deadline.", waited.as_millis()),
        )
        .after(retry_after),
        Refused::QuotaLate => gateway(
            Kind::Waited,
            format!("The tenant's quota was used up: the call waited {} ms, up to its deadline.", waited.as_millis()),
        )
        .after(retry_after),
        Refused::TooLarge(most) => too_large(format!(
            "This call is too large for every instance of the model: the largest has room for {} tokens of prompt and \
             answer. Shorten the prompt, or ask for fewer tokens with `max_tokens`.",
            most.0
        )),
        Refused::BeyondQuota(most) => too_large(format!(
            "This call is too large for the tenant's quota, which is at most {} tokens in flight. Shorten the prompt, or \
             ask for fewer tokens with `max_tokens`.",
            most.0
        )),
    }
}

/// The word for it in metrics and explanations.
pub(crate) const fn word(refused: Refused) -> &'static str {
    match refused {
        Refused::Down(_) => "down",
        Refused::TooLarge(_) => "too_large",
        Refused::BeyondQuota(_) => "beyond_quota",
        Refused::Full(_) => "queue_full",
        Refused::TenantFull(_) => "tenant_queue_full",
        Refused::Hopeless(_) => "hopeless",
        Refused::PushedOut(_) => "pushed_out",
        Refused::Late | Refused::QuotaLate => "expired",
    }
}

fn too_large(message: String) -> Error {
    let mut error = Error::new(Kind::Invalid, Origin::Caller, message);
    error.cause = "too_large".into();
    error
}
