//! The schema, and how it changes.
//!
//! Migrations are numbered, run forwards only, and are part of the program. The rule is **expand, then contract**, so that
//! the version before and the version after can work on one database while replicas are replaced one by one, and an
//! upgrade can be taken back:
//!
//! 1. A migration of version N only adds: tables, indexes, columns that may be NULL or have a default. Version N-1 does
//!    not know them, names the columns it reads and writes, and goes on working.
//! 2. What nobody uses any more is taken away by a migration of version N+1 at the earliest, when no program that used it
//!    can be running.
//! 3. A column never changes its meaning or its type: a new one takes its place by the two rules above.
//!
//! So a program accepts migrations it does not know. Only TEXT and BIGINT, so that both databases take the same file.

use kernel::store::Fault;
use kernel::time::Timestamp;

use super::columns::Columns;
use super::connections::Connections;
use super::failure::Failure;
use super::session::{Session, Task};

/// One step of the schema.
struct Migration {
    /// Its number: they run in this order.
    version: i64,
    /// What it brings.
    name: &'static str,
    sql: &'static str,
}

/// All there are. A file here is never changed once released: what it should have been is a new one.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "tenancy", sql: include_str!("migrations/0001_tenancy.sql") },
    Migration { version: 2, name: "plans put back", sql: include_str!("migrations/0002_plans_put_back.sql") },
    Migration { version: 3, name: "spent", sql: include_str!("migrations/0003_spent.sql") },
];

const BOOKS: &str = "CREATE TABLE IF NOT EXISTS migrations \
                     (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied BIGINT NOT NULL)";

/// Brings the schema to what this program needs, all of it or nothing. Processes that do so at once go one by one.
pub(super) async fn migrate(connections: &Connections, task: Task) -> Result<(), Failure> {
    let engine = connections.engine;
    let mut session = Session::begin(connections, task, Some(engine.begin())).await?;
    if let Some(lock) = engine.lock_migrations() {
        session.say(lock).await?;
    }
    session.say(BOOKS).await?;
    let mut applied = Vec::new();
    for row in &session.rows(sqlx::query("SELECT version FROM migrations")).await? {
        applied.push(Columns::of(row).number()?);
    }
    let mut changed = false;
    for migration in MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)) {
        session.define(engine.schema(migration.sql)).await.map_err(|failure| within(migration, failure))?;
        let enter = sqlx::query("INSERT INTO migrations (version, name, applied) VALUES ($1, $2, $3)");
        session.run(enter.bind(migration.version).bind(migration.name).bind(Timestamp::now().millis())).await?;
        changed = true;
    }
    if changed || applied.is_empty() { session.commit().await } else { session.rollback().await }
}

fn within(migration: &Migration, failure: Failure) -> Failure {
    match failure {
        Failure::Fault(Fault::Broken(why)) => {
            Failure::broken(format!("migration {} ({}): {why}", migration.version, migration.name))
        }
        other => other,
    }
}
