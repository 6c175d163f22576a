//! The few words in which SQLite and PostgreSQL differ.
//!
//! All other SQL of this module is written once and runs on both.

use super::Times;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// In this process, in one file.
    Sqlite,
    /// A server.
    Postgres,
}

/// Any number nobody else is likely to lock in the same database.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7308620104651)";

// === impl Engine ===

impl Engine {
    /// Begins a transaction that writes. SQLite takes its lock at once: taken later, it could be refused for what was
    /// read before.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        }
    }

    /// Begins a transaction that reads all as it is at one moment.
    pub(super) const fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Lets one process migrate at a time. In SQLite the transaction itself does.
    pub(super) const fn lock_migrations(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(MIGRATION_LOCK),
        }
    }

    /// The schema in this engine's words. Text is compared byte by byte on both: PostgreSQL would otherwise sort by the
    /// language its database was made for, and pages of tenants would come in another order than SQLite's.
    pub(super) fn schema(self, sql: &str) -> String {
        match self {
            Self::Sqlite => sql.to_owned(),
            Self::Postgres => sql.replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }

    /// What a new connection is told, given how long things may take.
    pub(super) fn greeting(self, times: Times, read_only: bool) -> String {
        match self {
            // WAL: readers see the last commit while one writes. FULL: a commit is on the disk when it returns, because
            // the daybook forgets what was posted; NORMAL could lose the last commits with the power, and with them
            // charges that are in no journal any more. busy_timeout: for another process on the same file; half of what
            // the task has, so that it is told why before it is told late.
            Self::Sqlite => format!(
                "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA wal_autocheckpoint = {WAL_PAGES}; PRAGMA journal_size_limit = {WAL_KEPT}; \
                 PRAGMA cache_size = -{}; PRAGMA query_only = {};",
                times.short.as_millis() / 2,
                if read_only { READER_CACHE } else { WRITER_CACHE },
                u8::from(read_only)
            ),
            // Should this process vanish in a transaction, the server ends it and its locks.
            Self::Postgres => format!(
                "SET statement_timeout = {0}; SET idle_in_transaction_session_timeout = {0}; \
                 SET application_name = 'sluice'; SET client_min_messages = 'error';",
                times.long.as_millis()
            ),
        }
    }
}

/// Bound: pages of 4 KiB in the write-ahead log before they are put in their places. Charges of a thousand tenants touch
/// some thousand pages of the indexes in every batch, mostly the same ones: more batches to a checkpoint, fewer writes.
const WAL_PAGES: u32 = 16 << 10;
/// Bound: what is kept of the log's file after a burst, in bytes: a full log.
const WAL_KEPT: u32 = 64 << 20;
/// Bound: pages in the writer's memory, in KiB: those one batch of some thousand charges touches, with room.
const WRITER_CACHE: u32 = 16 << 10;
/// Bound: pages in each reader's memory, in KiB: the inner pages of the indexes.
const READER_CACHE: u32 = 4 << 10;
