//! What comes from the process's surroundings: variables, limits, the data directory.

use std::path::Path;

use anyhow::Context;
use kernel::settings::Secret;
use tenancy::Pepper;

/// Shared by replicas that must know the same key hashes; otherwise the data directory holds one.
const PEPPER: &str = "SLUICE_KEY_PEPPER";
/// The file of the admin API's token in the data directory, readable by the owner only.
pub(crate) const ADMIN_TOKEN: &str = "admin-token";
/// Which operator log lines are written, in `tracing`'s filter language.
const LOG: &str = "SLUICE_LOG";

/// A variable's value; `None` where it is not set, empty or no text.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the pepper for key hashes comes from outside, so that replicas can share it.
pub(crate) fn has_pepper() -> bool {
    variable(PEPPER).is_some_and(|text| !text.is_empty())
}

/// The pepper for key hashes.
pub(crate) fn pepper(data_dir: &Path) -> anyhow::Result<Pepper> {
    match variable(PEPPER).filter(|text| !text.is_empty()) {
        Some(text) => Ok(Pepper::from_text(&text)),
        None => Pepper::load(data_dir).with_context(|| format!("cannot keep the key pepper in {}", data_dir.display())),
    }
}

/// The token of the admin API: the config's, else the one kept in the data directory, made if there is none. Without
/// either the admin API refuses everything, and calls are answered all the same.
pub(crate) fn admin_token(configured: Option<&Secret>, data_dir: &Path) -> Option<Secret> {
    if let Some(token) = configured {
        return Some(token.clone());
    }
    match tenancy::keep(data_dir, ADMIN_TOKEN, || access::admin::new_token().map(String::into_bytes)) {
        Ok(bytes) => String::from_utf8(bytes)
            .ok()
            .map(|text| Secret::new(text.trim()))
            .filter(|token| !token.expose().is_empty()),
        Err(fault) => {
            tracing::warn!(%fault, data_dir = %data_dir.display(), "no admin token can be kept: the admin API is closed");
            None
        }
    }
}

/// The filter of the operator's log.
pub(crate) fn log_filter() -> String {
    variable(LOG).filter(|text| !text.is_empty()).unwrap_or_else(|| "info".into())
}

/// Each stream takes two descriptors: as many as the system grants are needed. Less is no reason not to start.
pub(crate) fn raise_file_limit() {
    if let Err(fault) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%fault, "the limit on open files stays as it is");
    }
}
