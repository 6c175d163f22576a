//! What can go wrong on a call, as one closed list.
//!
//! A kind says *what*, an origin says *whose fault*, a retry says *what to do*. Making an error never logs:
//! it is reported once, where the request ends. `wire` maps kinds to each dialect's words and status.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::InstanceId;

/// The house's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. The comment gives the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 400: the request cannot be understood.
    Invalid,
    /// 401: no credential, or one that is not known.
    Unauthenticated,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404: no such model.
    UnknownModel,
    /// 404: no such path.
    UnknownPath,
    /// 405: the path exists, the method does not.
    WrongMethod,
    /// 408: the deadline passed while the call waited for a slot.
    Waited,
    /// 408: the client sent its request too slowly.
    SlowRequest,
    /// 413: the body is larger than allowed.
    TooLarge,
    /// 431: the head is larger than allowed.
    HeadTooLarge,
    /// 402: a budget or balance is spent. Not worth another try: SDKs repeat 429, and this must not be repeated.
    OverBudget,
    /// 429: too many requests.
    Limited,
    /// 503: no instance can take it, or the queue is full.
    Unavailable,
    /// 502: the backend broke off, spoke nonsense, or could not be reached.
    BadUpstream,
    /// 504: the backend was too slow.
    UpstreamTimeout,
    /// 499, in logs only: the client went away.
    Cancelled,
    /// 500: a fault of ours.
    Internal,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client's.
    Caller,
    /// Sluice's.
    Gateway,
    /// The backend's.
    Upstream,
}

/// What trying again would bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same answer.
    Never,
    /// Perhaps another, from another instance.
    Elsewhere,
    /// Perhaps another, after this long.
    After(Duration),
}

/// Why a call got no answer.
#[derive(Debug, Clone)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// Whose fault it is.
    pub origin: Origin,
    /// What to do about it.
    pub retry: Retry,
    /// For the caller: what is wrong and how to mend it. Never holds secrets, prompts or internal addresses.
    pub message: Cow<'static, str>,
    /// The request field at fault, if one is.
    pub field: Option<Cow<'static, str>>,
    /// How long the caller should wait before it asks again.
    pub retry_after: Option<Duration>,
    /// The instance that failed, so that the next attempt can avoid it.
    pub instance: Option<InstanceId>,
    /// The backend's own answer (status, content type, body), passed on as it is when this error reaches the client.
    pub upstream: Option<Box<Answer>>,
    /// For operators: what exactly happened, in a few words ("connect", "first_byte_timeout", "status_500").
    pub cause: Cow<'static, str>,
}

/// A backend's own error answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status it gave.
    pub status: u16,
    /// Its content type.
    pub content_type: Bytes,
    /// Its body.
    pub body: Bytes,
}

// === impl Error ===

impl Error {
    /// An error of a kind, with nothing to try again.
    pub fn new(kind: Kind, origin: Origin, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            origin,
            retry: Retry::Never,
            message: message.into(),
            field: None,
            retry_after: None,
            instance: None,
            upstream: None,
            cause: Cow::Borrowed(""),
        }
    }

    /// The caller asked for something that makes no sense; `field` names what to mend.
    pub fn invalid(field: Option<&'static str>, message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(Kind::Invalid, Origin::Caller, message);
        error.field = field.map(Cow::Borrowed);
        error
    }

    /// A backend failed in a way another instance may not; `cause` is for operators.
    pub fn upstream(kind: Kind, cause: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(kind, Origin::Upstream, message);
        error.retry = Retry::Elsewhere;
        error.cause = cause.into();
        error
    }

    /// The same, telling the caller when to come back.
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same, naming the instance at fault.
    pub fn at(mut self, instance: InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }

    /// The same, not worth another attempt.
    pub fn final_(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if !self.cause.is_empty() {
            write!(f, " ({})", self.cause)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
