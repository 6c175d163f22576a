//! The store opened, and the register over it filled, before anybody is let in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infrastructure::store::Store;
use tenancy::Register;

use crate::config::Config;
use crate::environment;

/// The file in the data directory for who is known, for a start while the store cannot be reached.
const KNOWN: &str = "known.jsonl";
/// Bound: for the last words to a store when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Opens the store of a config and the register over it.
pub(crate) async fn open(config: &Config, data_dir: &Path) -> anyhow::Result<(Arc<Store>, Arc<Register>)> {
    let store = Store::open(&config.storage, data_dir).await.map_err(|fault| anyhow::anyhow!("storage: {fault}"))?;
    let remote = !config.storage.url.to_string().starts_with("sqlite:");
    // A file beside a file would say nothing new.
    let copy = remote.then(|| data_dir.join(KNOWN));
    if remote && !environment::has_pepper() {
        tracing::warn!(
            "keys are hashed with a secret of this data directory: give all replicas of this store the same \
             SLUICE_KEY_PEPPER, or each knows only the keys it made itself"
        );
    }
    let register = Register::new(Arc::clone(&store) as _, config.storage.refresh_ms.duration(), copy);
    season(&register, config, data_dir)?;
    register.declare(config.declared());
    register.begin().await;
    Ok((store, register))
}

/// Sees to it that the register has its pepper. Without any key to know it can do without.
pub(crate) fn season(register: &Register, config: &Config, data_dir: &Path) -> anyhow::Result<()> {
    if register.pepper().is_some() {
        return Ok(());
    }
    match environment::pepper(data_dir) {
        Ok(pepper) => register.season(pepper),
        Err(fault) if config.tenants.is_empty() => {
            tracing::warn!(fault = %format!("{fault:#}"), "no keys can be made or known");
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// Tells the store which keys were used last, and lets go of it.
pub(crate) async fn close(store: &Store, register: &Register) {
    let told = tokio::time::timeout(LAST_WORDS, async {
        let told = register.tell_used().await;
        store.close().await;
        told
    });
    match told.await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => tracing::warn!(%fault, "the store was not told which keys were used last"),
        Err(_) => tracing::warn!("the store was not told which keys were used last: it did not answer in time"),
    }
}
