//! Where the stores under test keep their rows.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use infrastructure::store::{StorageSettings, StorageUrl, Store};
use kernel::settings::Millis;

/// Short time-outs, so that a test of one does not take long; long enough for a busy test machine.
pub(crate) const TIMEOUT: Millis = Millis(3_000);

pub(crate) fn settings(url: &str) -> StorageSettings {
    StorageSettings { url: StorageUrl::new(url), timeout_ms: TIMEOUT, ..StorageSettings::default() }
}

/// Opens a store on a database.
pub(crate) async fn open(url: &str, data_dir: &Path) -> Arc<Store> {
    Store::open(&settings(url), data_dir).await.expect("a store")
}
