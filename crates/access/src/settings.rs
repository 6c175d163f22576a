//! The sections `listen:`, `admin:`, `limits:` and `auth:`.

use std::net::SocketAddr;
use std::path::PathBuf;

use kernel::settings::{Findings, Millis, Secret, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Where Sluice listens.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSettings {
    /// The data plane: HTTP/1.1 and h2 on one port. Default: `0.0.0.0:8080` with credentials configured or `auth: none`,
    /// `127.0.0.1:8080` without.
    #[schemars(schema_with = "optional_address")]
    pub http: Option<SocketAddr>,
    /// The control plane: metrics, health and the admin API.
    #[schemars(schema_with = "address")]
    pub admin: SocketAddr,
    /// TLS on the data plane.
    pub tls: Option<TlsSettings>,
    /// Data-plane threads; default: one per core.
    pub threads: Option<u16>,
}

/// A certificate and its key, both PEM. Read again when the config is reloaded.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the certificates that clients may show, PEM. Default: clients are not asked for any.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether every client must show one, or may.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Lists of certificates that were taken back, PEM, one for each signer of certificates.
    #[serde(default)]
    pub client_crl: Vec<PathBuf>,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// Without one no connection is made.
    #[default]
    Required,
    /// One that is shown must be genuine.
    Optional,
}

impl TlsSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let crls = self.client_crl.iter().enumerate().map(|(i, file)| (format!("client_crl[{i}]"), file));
        let named = [("cert".to_owned(), &self.cert), ("key".to_owned(), &self.key)];
        let ca = self.client_ca.iter().map(|file| ("client_ca".to_owned(), file));
        for (key, file) in named.into_iter().chain(ca).chain(crls) {
            findings.require(file.exists(), format!("{path}.{key}"), format!("`{}` does not exist", file.display()));
        }
        let used = self.client_ca.is_some() || self.client_crl.is_empty();
        findings.require(used, format!("{path}.client_crl"), "means nothing without `client_ca`");
    }
}

/// The control plane's API.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Sent as `Authorization: Bearer`; at least 16 characters; write it as `${VARIABLE}`. Default: one is made and kept
    /// in the data directory, in `admin-token`, for the owner to read.
    pub token: Option<Secret>,
}

impl AdminSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let long = self.token.as_ref().is_none_or(|token| token.expose().len() >= 16);
        findings.require(long, format!("{path}.token"), "must be at least 16 characters long");
    }
}

/// What a client may send, and how slowly.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// The largest request body; more is refused with 413.
    pub body_max: Size,
    /// What the bodies of all requests being worked on may hold together; beyond it calls are refused with 503.
    pub bodies_max: Size,
    /// The largest request head; more is refused with 431. At least 8 KiB.
    pub header_max: Size,
    /// Headers in one request; more is refused with 431.
    pub headers_max: u16,
    /// For the head of a request to arrive; also how long an idle connection is kept, and a client that takes nothing of
    /// its answer (HTTP/1.1).
    pub header_timeout_ms: Millis,
    /// Between two reads of a body; slower is refused with 408.
    pub body_timeout_ms: Millis,
    /// For the whole body to arrive.
    pub body_total_timeout_ms: Millis,
    /// A stream silent this long gets a comment, so that nobody between takes it for dead; 0: never.
    pub keep_alive_comment_ms: Millis,
    /// Connections at once; more wait to be accepted.
    pub connections_max: u32,
    /// Requests at once on one h2 connection.
    pub h2_streams_max: u32,
}

/// Whether callers must show a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Every call needs a key.
    Required,
    /// Anyone who can connect may call.
    None,
}

fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "socket-address" })
}

fn optional_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "format": "socket-address" })
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self { http: None, admin: SocketAddr::from(([127, 0, 0, 1], 8090)), tls: None, threads: None }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            body_max: Size::of_mib(32),
            bodies_max: Size::of_mib(1024),
            header_max: Size::of_kib(64),
            headers_max: 100,
            header_timeout_ms: Millis(60_000),
            body_timeout_ms: Millis(30_000),
            body_total_timeout_ms: Millis(300_000),
            keep_alive_comment_ms: Millis(15_000),
            connections_max: 65_536,
            h2_streams_max: 256,
        }
    }
}

impl LimitSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let size = self.header_max.bytes();
        findings.require(
            (8 << 10..=1 << 20).contains(&size),
            format!("{path}.header_max"),
            "must be between 8KiB and 1MiB",
        );
        findings.require(self.headers_max >= 10, format!("{path}.headers_max"), "must be at least 10");
        findings.require(self.connections_max > 0, format!("{path}.connections_max"), "must be at least 1");
        findings.require(self.h2_streams_max > 0, format!("{path}.h2_streams_max"), "must be at least 1");
        for (key, span) in [
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("body_total_timeout_ms", self.body_total_timeout_ms),
        ] {
            findings.require(
                span.0 > 0,
                format!("{path}.{key}"),
                "must be at least 1: without it a slow client could stay for ever",
            );
        }
    }
}
