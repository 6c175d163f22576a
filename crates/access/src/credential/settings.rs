//! The sections `issuers:` and `introspection:`.

use std::path::PathBuf;

use kernel::fetch;
use kernel::settings::{Findings, Millis, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the issuers that tenants name under `jwt` are asked for their keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerSettings {
    /// Roots to trust beside the public ones when issuers are asked, PEM. Read at the start.
    pub ca: Option<PathBuf>,
    /// How long keys are used before they are asked for again; that happens in good time, and no call waits for it.
    pub keys_ttl_ms: Millis,
    /// For how long keys are used beyond that while their issuer does not answer.
    pub keys_stale_ms: Millis,
}

/// An authorization server that is asked about tokens that say nothing themselves (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionSettings {
    /// Where it is asked: its `introspection_endpoint`; `https`, or plain `http` on this machine.
    pub url: String,
    /// Its name. Tenants whose `jwt.issuer` is the same take its tokens, by the same rules.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
    /// Our password there; write it as `${VARIABLE}`.
    pub client_secret: Secret,
    /// Whether a token may be taken that is for no audience in particular. Where one is said, it must be the tenant's
    /// either way.
    #[serde(default)]
    pub without_audience: bool,
    /// How long its yes is believed, and never past the token's end. A token revoked there is let in here for so long.
    #[serde(default = "yes_for")]
    pub ttl_ms: Millis,
    /// How long its no is.
    #[serde(default = "no_for")]
    pub negative_ttl_ms: Millis,
    /// How long it may take to answer; then the call is refused with 503.
    #[serde(default = "within")]
    pub timeout_ms: Millis,
    /// For how long its last yes is believed beyond `ttl_ms` while it does not answer; never past the token's end.
    #[serde(default = "stale_for")]
    pub stale_ms: Millis,
}

const fn yes_for() -> Millis {
    Millis(60_000)
}

const fn no_for() -> Millis {
    Millis(10_000)
}

const fn within() -> Millis {
    Millis(2_000)
}

const fn stale_for() -> Millis {
    Millis(0)
}

impl Default for IssuerSettings {
    fn default() -> Self {
        Self { ca: None, keys_ttl_ms: Millis(600_000), keys_stale_ms: Millis(86_400_000) }
    }
}

impl IssuerSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        if let Some(ca) = &self.ca {
            findings.require(ca.exists(), format!("{path}.ca"), format!("`{}` does not exist", ca.display()));
        }
        let message = "must be at least 10000: issuers would be asked all the time";
        findings.require(self.keys_ttl_ms.0 >= 10_000, format!("{path}.keys_ttl_ms"), message);
    }
}

impl IntrospectionSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let message = "must be an https URL (plain http is for this machine only)";
        findings.require(fetch::is_safe(&self.url), format!("{path}.url"), message);
        for (key, text) in [("issuer", &self.issuer), ("client_id", &self.client_id)] {
            findings.require(!text.is_empty(), format!("{path}.{key}"), "must not be empty");
        }
        let fits = (1..=30_000).contains(&self.timeout_ms.0);
        findings.require(fits, format!("{path}.timeout_ms"), "must be between 1 and 30000: calls wait for it");
    }
}
