//! What must outlive the process: who there is, and what they owe.
//!
//! A registry and a ledger, usually one database behind both, and a daybook on the local disk. Drivers live in
//! `infrastructure`, the rules in `tenancy`: a driver keeps rows and what is unique, and judges nothing. Nothing on the
//! way of a call waits for a store.

pub mod daybook;
pub mod ledger;
pub mod registry;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use daybook::Daybook;
pub use ledger::Ledger;
pub use registry::Registry;

/// What a store returns: a boxed future, so that drivers can stand behind `dyn`.
pub type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Why a store did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, or does not answer in time: worth another try later. In the operator's words, without
    /// credentials.
    Down(String),
    /// What was to be made is there already, or was changed by somebody else meanwhile.
    Conflict(&'static str),
    /// What was to be changed is not there.
    Missing,
    /// It holds what cannot be understood, or cannot take what it was given. Another try would bring the same.
    Broken(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(why) => write!(f, "the store cannot be reached: {why}"),
            Self::Conflict(what) => f.write_str(what),
            Self::Missing => f.write_str("there is no such thing"),
            Self::Broken(why) => write!(f, "the store is not as it should be: {why}"),
        }
    }
}

impl std::error::Error for Fault {}
