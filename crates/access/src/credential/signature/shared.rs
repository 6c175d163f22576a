//! Nonces that other processes have seen.
//!
//! Asked only about a signature that is genuine and whose nonce is new to this process. What becomes of one about which
//! nobody can be asked is a rule of the config.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use kernel::error::Kind as ErrorKind;
use kernel::share::Once;
use kernel::{Error, KeyId, Origin, Result};

use super::{SKEW, replayed};

/// When to come back.
const SOON: Duration = Duration::from_secs(1);

/// Where nonces are shared.
pub(in crate::credential) struct Shared {
    once: Arc<dyn Once>,
    /// Whether requests are refused about which nobody can be asked.
    strict: bool,
    /// Requests that were judged by what this process knows.
    alone: AtomicU64,
}

impl Shared {
    pub(in crate::credential) fn new(once: Arc<dyn Once>, strict: bool) -> Self {
        Self { once, strict, alone: AtomicU64::new(0) }
    }

    /// Spends a nonce of a key for all processes.
    ///
    /// # Errors
    /// 401 where it was spent at another one; 503 where nobody can say and the config wants to know.
    pub(super) async fn spend(&self, key: &KeyId, nonce: &str, expires: i64, now: i64) -> Result<()> {
        // Another process's clock may be behind, and take the signature for good for longer.
        let keep = Duration::from_secs(expires.saturating_sub(now).saturating_add(SKEW).max(1).unsigned_abs());
        match self.once.first(&name(key, nonce), keep).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(replayed()),
            Err(_) if self.strict => Err(away()),
            Err(_) => {
                self.alone.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// How many requests were let in by what this process alone knows.
    pub(in crate::credential) fn alone(&self) -> u64 {
        self.alone.load(Ordering::Relaxed)
    }
}

/// What stands for a nonce of a key. The key's length says where it ends, whatever is in it.
fn name(key: &KeyId, nonce: &str) -> String {
    let key = key.as_str();
    let text = format!("{}:{key}:{nonce}", key.len());
    let print = digest(&SHA256, text.as_bytes()).as_ref().first_chunk().map_or(0, |print| u128::from_be_bytes(*print));
    format!("nonce:{print:032x}")
}

fn away() -> Error {
    let message =
        "It cannot be told just now whether this signature was used before: sign the request anew and try again.";
    Error::new(ErrorKind::Unavailable, Origin::Gateway, message).after(SOON)
}
