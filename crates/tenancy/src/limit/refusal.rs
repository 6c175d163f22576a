//! What a caller is told that has reached a limit.

use kernel::error::{Error, Kind, Origin, Retry};

use super::account::Whose;
use super::level::{Blocked, Dimension};
use super::view::View;

/// A call that must wait.
#[derive(Debug)]
pub struct Refused {
    /// Which limit, whose, and when to come back.
    pub error: Error,
    /// Where the caller stands.
    pub view: View,
}

pub(super) fn refusal(blocked: &Blocked, whose: &Whose, view: View) -> Box<Refused> {
    let Blocked { dimension, limit, wait } = *blocked;
    let (what, cause) = match dimension {
        Dimension::Seconds => ("requests per second", "limit_rps"),
        Dimension::Minutes => ("requests per minute", "limit_rpm"),
        Dimension::Tokens => ("tokens per minute", "limit_tpm"),
        Dimension::Places => ("calls at once", "limit_concurrency"),
    };
    let whose = match whose {
        Whose::Tenant => "this tenant".to_owned(),
        Whose::Key(_) => "this API key".to_owned(),
        Whose::Model(model) => format!("this tenant on the model `{model}`"),
    };
    let millis = wait.as_millis() + u128::from(!wait.subsec_nanos().is_multiple_of(1_000_000));
    let message = format!("The limit of {limit} {what} of {whose} is reached: try again in {millis} ms.");
    let mut error = Error::new(Kind::Limited, Origin::Caller, message).after(wait);
    error.retry = Retry::After(wait);
    error.cause = cause.into();
    Box::new(Refused { error, view })
}
