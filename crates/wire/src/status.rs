//! Error kinds as HTTP status codes: the only place that maps them.

use kernel::error::{Error, Kind};

/// The status a client sees for an error.
pub fn of(error: &Error) -> u16 {
    if let Some(answer) = &error.upstream {
        return answer.status;
    }
    match error.kind {
        Kind::Invalid => 400,
        Kind::Unauthenticated => 401,
        Kind::OverBudget => 402,
        Kind::Forbidden => 403,
        Kind::UnknownModel | Kind::UnknownPath => 404,
        Kind::WrongMethod => 405,
        Kind::Waited | Kind::SlowRequest => 408,
        Kind::TooLarge => 413,
        Kind::Limited => 429,
        Kind::HeadTooLarge => 431,
        Kind::Cancelled => 499,
        Kind::Internal => 500,
        Kind::BadUpstream => 502,
        Kind::Unavailable => 503,
        Kind::UpstreamTimeout => 504,
    }
}
