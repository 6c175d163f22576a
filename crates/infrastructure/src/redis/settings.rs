//! Where Redis is.

use kernel::settings::{Findings, Secret};
use redis::IntoConnectionInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Redis (or Valkey) server that several processes share their limits through, as its URL: `redis://host:6379`,
/// `redis://:password@host:6379/2`, or with `rediss://` over TLS. Write a password as `${VARIABLE}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct RedisSettings(pub Secret);

impl RedisSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        // The library's own words could repeat the URL, and with it a password.
        let fits = self.0.expose().starts_with("redis") && self.0.expose().into_connection_info().is_ok();
        findings.require(fits, path, "is no Redis URL: write redis://host:port, or rediss://host:port for TLS");
    }
}
