//! Where the stores under test keep their rows.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use infrastructure::store::{StorageSettings, StorageUrl, Store};
use kernel::settings::Millis;
use tempfile::TempDir;

/// Short time-outs, so that a test of one does not take long; long enough for a busy test machine.
pub(crate) const TIMEOUT: Millis = Millis(3_000);

pub(crate) fn settings(url: &str) -> StorageSettings {
    StorageSettings { url: StorageUrl::new(url), timeout_ms: TIMEOUT, ..StorageSettings::default() }
}

/// Opens a store on a database.
pub(crate) async fn open(url: &str, data_dir: &Path) -> Arc<Store> {
    Store::open(&settings(url), data_dir).await.expect("a store")
}

/// Two stores on one new file, which must outlive them.
pub(crate) async fn two_on_a_file() -> (TempDir, Arc<Store>, Arc<Store>) {
    let home = tempfile::tempdir().expect("a temporary directory");
    // Both at once: two processes that start on an empty directory.
    let (one, two) = tokio::join!(open("sqlite:sluice.db", home.path()), open("sqlite:sluice.db", home.path()));
    (home, one, two)
}

/// Two stores on one database.
pub(crate) async fn two_on_a_server(url: &str) -> (Arc<Store>, Arc<Store>) {
    tokio::join!(open(url, Path::new("/")), open(url, Path::new("/")))
}

/// Runs statements past the store.
pub(crate) async fn meddle(url: &str, sql: &'static str) {
    use sqlx::Connection;
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.expect("a connection");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("good SQL");
    connection.close().await.expect("a goodbye");
}
