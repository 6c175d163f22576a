//! Why a change to who there is was not made.

use kernel::settings::Findings;
use kernel::store::Fault;

/// Why not, in words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A field is not as it should be.
    Invalid {
        /// Its path; empty for the whole.
        field: String,
        /// What is wrong, and what to write instead.
        message: String,
    },
    /// There is no such thing, by its noun.
    Missing(&'static str),
    /// A name is taken.
    Taken {
        /// The field with the name.
        field: &'static str,
        /// By what, and what to do.
        message: String,
    },
    /// It does not go together with what there is.
    Conflict(String),
    /// The config declares it; by its noun.
    Declared(&'static str),
    /// Somebody else changed it meanwhile.
    Changed,
    /// The store cannot be reached.
    Down(String),
    /// The store is not as it should be.
    Broken(String),
}

impl Refused {
    /// A field that is not as it should be.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    /// What a store did not do about something.
    pub(crate) fn by(fault: Fault, what: &'static str) -> Self {
        match fault {
            Fault::Missing => Self::Missing(what),
            Fault::Conflict(why) => {
                Self::Conflict(format!("The {what} does not go together with what there is: {why}."))
            }
            Fault::Down(why) => Self::Down(why),
            Fault::Broken(why) => Self::Broken(why),
        }
    }

    /// The first of what was found, if anything was.
    pub(crate) fn found(findings: Findings) -> Result<(), Self> {
        match findings.0.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(Self::invalid(first.path.trim_start_matches('.'), first.message)),
        }
    }
}
