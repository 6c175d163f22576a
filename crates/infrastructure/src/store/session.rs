//! One connection at work under one hard time-out.
//!
//! A session that is not brought to its end (by an error, a time-out or because its future was dropped) closes its
//! connection: nothing half done is handed to whoever comes next, nor a connection that hangs.

use std::time::Duration;

use kernel::store::Fault;
use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, raw_sql};
use tokio::time::{Instant, timeout_at};

use super::connections::{Connections, Taken};
use super::engine::Engine;
use super::failure::Failure;

/// A statement with its values.
pub(super) type Statement<'q> = Query<'q, Any, AnyArguments>;

/// What is being done, for messages, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    name: &'static str,
    within: Duration,
    deadline: Instant,
}

/// A connection, and until when it may be used.
pub(super) struct Session<'s> {
    taken: Taken,
    from: &'s Connections,
    task: Task,
}

// === impl Task ===

impl Task {
    /// Starts now.
    pub(super) fn new(name: &'static str, within: Duration) -> Self {
        Self { name, within, deadline: Instant::now() + within }
    }

    /// Waits for something no longer than until the deadline.
    pub(super) async fn bound<T, E: Into<Failure>>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let late = |_| Fault::Down(format!("{}: no answer within {} ms", self.name, self.within.as_millis()));
        timeout_at(self.deadline, work).await.map_err(late)?.map_err(Into::into)
    }
}

// === impl Session ===

impl<'s> Session<'s> {
    /// Takes a connection and begins a transaction, or sees that it is alive.
    pub(super) async fn begin(from: &'s Connections, task: Task, begin: Option<&'static str>) -> Result<Self, Failure> {
        let mut session = Self { taken: from.take(task).await?, from, task };
        match session.greet(begin).await {
            // It idled while the server went away and, perhaps, came back.
            Err(Failure::Fault(Fault::Down(_))) if session.taken.used && Instant::now() < task.deadline => {
                let mut session = Self { taken: from.replace(task, session.taken).await?, from, task };
                session.greet(begin).await?;
                Ok(session)
            }
            other => other.map(|()| session),
        }
    }

    async fn greet(&mut self, begin: Option<&'static str>) -> Result<(), Failure> {
        match begin {
            Some(begin) => self.say(begin).await,
            None if self.taken.used => self.task.bound(self.taken.connection()?.ping()).await,
            None => Ok(()),
        }
    }

    /// Which database it is.
    pub(super) fn engine(&self) -> Engine {
        self.from.engine
    }

    /// Begins another step of the same work, with a time-out of its own.
    pub(super) fn renew(&mut self, task: Task) {
        self.task = task;
    }

    /// Runs statements without values.
    pub(super) async fn say(&mut self, sql: &'static str) -> Result<(), Failure> {
        self.task.bound(raw_sql(sql).execute(self.taken.connection()?)).await.map(drop)
    }

    /// Runs a schema's statements, which are part of the program.
    pub(super) async fn define(&mut self, schema: String) -> Result<(), Failure> {
        self.task.bound(raw_sql(AssertSqlSafe(schema)).execute(self.taken.connection()?)).await.map(drop)
    }

    /// Runs a statement; returns how many rows it touched.
    pub(super) async fn run(&mut self, statement: Statement<'_>) -> Result<u64, Failure> {
        Ok(self.task.bound(statement.execute(self.taken.connection()?)).await?.rows_affected())
    }

    /// Runs a statement; returns its rows.
    pub(super) async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<AnyRow>, Failure> {
        self.task.bound(statement.fetch_all(self.taken.connection()?)).await
    }

    /// Runs a statement; returns its first row.
    pub(super) async fn row(&mut self, statement: Statement<'_>) -> Result<Option<AnyRow>, Failure> {
        self.task.bound(statement.fetch_optional(self.taken.connection()?)).await
    }

    /// Ends the transaction, keeping what it did.
    pub(super) async fn commit(mut self) -> Result<(), Failure> {
        self.say("COMMIT").await?;
        self.done();
        Ok(())
    }

    /// Ends the transaction as if it had not been.
    pub(super) async fn rollback(mut self) -> Result<(), Failure> {
        self.say("ROLLBACK").await?;
        self.done();
        Ok(())
    }

    /// Gives the connection back; no transaction is open.
    pub(super) fn done(self) {
        self.from.give_back(self.taken);
    }
}
