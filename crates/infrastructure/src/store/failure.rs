//! What goes wrong in a database, and which of the port's words says it.
//!
//! Only codes, kinds and the database's own short messages are looked at: never a connection string, never a value.

use std::borrow::Cow;
use std::fmt;

use kernel::store::Fault;
use sqlx::error::DatabaseError;

/// Why a step failed, with what only this crate needs to know: whether to try at once again.
#[derive(Debug)]
pub(super) enum Failure {
    /// As the port says it.
    Fault(Fault),
    /// Something is there already that may be there once.
    Taken,
    /// Others were in the way: the same again may well succeed.
    Contended(String),
}

/// What codes of SQLite (<https://sqlite.org/rescode.html>, the low byte) mean another try, and at once.
const SQLITE_BUSY: &[i32] = &[5, 6];
/// Those that are the fault of what it was given: too large, a constraint, the wrong kind, out of range. All others (a full
/// disk, no right to write, a damaged file) somebody can mend, and then the same is taken.
const SQLITE_REFUSED: &[i32] = &[18, 19, 20, 25];
/// What codes of PostgreSQL (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) mean another try, and at
/// once: serialization failure, deadlock, lock not available.
const POSTGRES_BUSY: &[&str] = &["40001", "40P01", "55P03"];
/// Beginnings of those that are the fault of what it was given: data that is none, a constraint. All others (no connection,
/// no right, no table, a standby, no room) somebody can mend, and then the same is taken.
const POSTGRES_REFUSED: &[&str] = &["22", "23"];

// === impl Failure ===

impl Failure {
    /// Something in the database cannot be understood.
    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self::Fault(Fault::Broken(why.into()))
    }

    /// As the port says it, if what is taken is called so.
    pub(super) fn taken(self, what: &'static str) -> Self {
        match self {
            Self::Taken => Self::Fault(Fault::Conflict(what)),
            other => other,
        }
    }

    fn of_database(error: &dyn DatabaseError) -> Self {
        if error.is_unique_violation() {
            return Self::Taken;
        }
        let code = error.code().unwrap_or(Cow::Borrowed(""));
        let said = format!("{} (code {code})", error.message());
        // SQLite's codes are numbers, PostgreSQL's have five characters.
        let (busy, refused) = match code.parse::<i32>() {
            Ok(number) if code.len() != 5 => {
                (SQLITE_BUSY.contains(&(number & 0xff)), SQLITE_REFUSED.contains(&(number & 0xff)))
            }
            _ => {
                (POSTGRES_BUSY.contains(&&*code), POSTGRES_REFUSED.iter().any(|beginning| code.starts_with(beginning)))
            }
        };
        match (busy, refused) {
            (true, _) => Self::Contended(said),
            (_, true) => Self::Fault(Fault::Broken(said)),
            _ => Self::Fault(Fault::Down(said)),
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        match error {
            Error::Database(error) => Self::of_database(&*error),
            Error::Io(error) => Self::Fault(Fault::Down(error.to_string())),
            Error::Tls(error) => Self::Fault(Fault::Down(format!("TLS: {error}"))),
            Error::Protocol(what) => Self::Fault(Fault::Down(format!("it does not speak its protocol: {what}"))),
            Error::PoolTimedOut => Self::Fault(Fault::Down("no connection came free in time".into())),
            Error::PoolClosed | Error::WorkerCrashed | Error::BeginFailed => {
                Self::Fault(Fault::Down("its connections are closed".into()))
            }
            // Its text may quote the connection string.
            Error::Configuration(_) => Self::broken("storage.url cannot be understood by the database's driver"),
            other => Self::broken(other.to_string()),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fault(fault) => fault,
            Failure::Taken => Self::Conflict("it is there already"),
            Failure::Contended(why) => Self::Down(format!("others are in the way: {why}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Taken => f.write_str("it is there already"),
            Self::Contended(why) => write!(f, "others are in the way: {why}"),
        }
    }
}
