//! How callers show who they are, and what for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a credential may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Calling models.
    Inference,
    /// Reading the tenant's usage and invoices.
    Usage,
    /// Managing the tenant's keys.
    Admin,
}

/// How a caller shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// An API key.
    ApiKey,
    /// A signed token of an issuer the tenant trusts.
    Jwt,
    /// A token that its issuer is asked about.
    Oauth2,
    /// A certificate shown on the connection.
    Mtls,
    /// A signature over the request, made with a key's secret.
    Signature,
}

// === impl Scope ===

impl Scope {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Inference, Self::Usage, Self::Admin];

    /// The word used in configs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Usage => "usage",
            Self::Admin => "admin",
        }
    }
}

// === impl CredentialKind ===

impl CredentialKind {
    /// The word used in configs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Oauth2 => "oauth2",
            Self::Mtls => "mtls",
            Self::Signature => "signature",
        }
    }
}
