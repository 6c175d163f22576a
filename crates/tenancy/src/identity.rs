//! By which credentials of others a tenant is known: tokens of its issuer, certificates of its clients.
//!
//! What is here says whose a verified token or certificate is. Verifying it is `access`'s trade.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kernel::settings::Findings;
use kernel::{Caller, Scope, fetch};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::TenantSettings;

/// Whose tokens a tenant's callers may show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The issuer, exactly as its tokens say it in `iss`. Its keys are found by OpenID discovery below it; `https`, or
    /// plain `http` on this machine.
    pub issuer: String,
    /// For whom its tokens must be: one of `aud`.
    pub audience: String,
    /// The claim that names the tenant, for an issuer that serves several: only tokens with this tenant's id in it are its.
    /// Default: all tokens of the issuer for the audience are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_claim: Option<String>,
    /// Only tokens given to one of these clients (`client_id`, or `azp`) are the tenant's. Default: to any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// The claim that says what a token may be used for: words with spaces between them, or a list. Default: each may
    /// be used for `inference`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_claim: Option<String>,
    /// What the words in `scope_claim` mean here. Default: `inference`, `usage` and `admin` mean what they say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<String, Scope>,
    /// The claim that says who of the tenant calls, for limits and bills by user: its value, behind `user:`, takes the
    /// place of a key's id.
    #[serde(default = "sub")]
    pub key_claim: String,
}

/// One name or fingerprint of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateName {
    /// A URI among its alternative names, as in `spiffe://example.org/training`.
    San(String),
    /// A DNS name among its alternative names.
    Dns(String),
    /// The SHA-256 of the whole certificate, in hexadecimal; colons between the bytes are fine.
    Fingerprint(String),
}

/// Whose a credential is, by what stands in it.
#[derive(Debug)]
pub struct Identities {
    serial: u64,
    issuers: HashMap<Box<str>, Vec<Binding>>,
    certificates: HashMap<CertificateName, Caller>,
}

/// One tenant that takes tokens of an issuer.
#[derive(Debug, Clone)]
pub struct Binding {
    /// What of them are its own.
    pub settings: Arc<JwtSettings>,
    /// The tenant, without a key.
    pub caller: Caller,
}

/// As people write it: one, or a list of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(Box<JwtSettings>),
    Many(Vec<JwtSettings>),
}

fn sub() -> String {
    "sub".into()
}

pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<JwtSettings>, D::Error> {
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(one) => vec![*one],
        OneOrMany::Many(many) => many,
    })
}

// === impl JwtSettings ===

impl JwtSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let message = "must be an https URL (plain http is for this machine only)";
        let plain = !self.issuer.contains('?');
        findings.require(plain && fetch::is_safe(&self.issuer), format!("{path}.issuer"), message);
        findings.require(!self.audience.is_empty(), format!("{path}.audience"), "must not be empty");
        findings.require(!self.key_claim.is_empty(), format!("{path}.key_claim"), "must not be empty");
        let used = self.scopes.is_empty() || self.scope_claim.is_some();
        findings.require(used, format!("{path}.scopes"), "means nothing without `scope_claim`");
    }

    /// Whether some token could be this tenant's and another one's too.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        // Two tenants that read the same claim are told apart by it; two lists of clients by their members.
        let told = self.tenant_claim.is_some() && self.tenant_claim == other.tenant_claim;
        let apart =
            |a: &[String], b: &[String]| !a.is_empty() && !b.is_empty() && !a.iter().any(|client| b.contains(client));
        self.issuer == other.issuer && self.audience == other.audience && !told && !apart(&self.clients, &other.clients)
    }

    /// What the words of a token's `scope_claim` allow.
    pub fn scopes<'a>(&self, words: impl Iterator<Item = &'a str>) -> Arc<[Scope]> {
        let meant = words.filter_map(|word| match self.scopes.is_empty() {
            true => Scope::ALL.into_iter().find(|scope| scope.as_str() == word),
            false => self.scopes.get(word).copied(),
        });
        let mut scopes: Vec<Scope> = meant.collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes.into()
    }
}

// === impl CertificateName ===

impl CertificateName {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let (fits, message) = match self {
            Self::San(uri) => (uri.contains(':'), "must be a URI, as in spiffe://example.org/training"),
            Self::Dns(name) => (
                !name.is_empty() && !name.contains(['*', '/', ':', ' ']),
                "must be one DNS name, as in batch.example.org: names with `*` stand for too many",
            ),
            Self::Fingerprint(_) => (
                matches!(self.plain(), Self::Fingerprint(digits) if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())),
                "must be the 64 hexadecimal digits that `openssl x509 -noout -fingerprint -sha256` prints",
            ),
        };
        findings.require(fits, path, message);
    }

    /// The same, as it is compared: lower-case, without colons in a fingerprint.
    pub fn plain(&self) -> Self {
        match self {
            Self::San(uri) => Self::San(uri.clone()),
            Self::Dns(name) => Self::Dns(name.trim_end_matches('.').to_ascii_lowercase()),
            Self::Fingerprint(digits) => Self::Fingerprint(digits.replace(':', "").to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::San(text) | Self::Dns(text) | Self::Fingerprint(text) => f.write_str(text),
        }
    }
}

// === impl Identities ===

impl Default for Identities {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { serial, issuers: HashMap::new(), certificates: HashMap::new() }
    }
}

impl Identities {
    /// Another number for each: what was found out with one may be different with the next.
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether anybody trusts an issuer.
    pub fn trusts_tokens(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// Adds a tenant; `caller` is the tenant without a key.
    pub(crate) fn add_tenant(&mut self, settings: &TenantSettings, caller: &Caller) {
        for jwt in &settings.jwt {
            let binding = Binding { settings: Arc::new(jwt.clone()), caller: caller.clone() };
            self.issuers.entry(jwt.issuer.as_str().into()).or_default().push(binding);
        }
        self.add_certificates(&settings.certificates, caller);
    }

    /// Adds certificates that stand for a tenant or for one of its keys.
    pub(crate) fn add_certificates(&mut self, names: &[CertificateName], caller: &Caller) {
        for name in names {
            // The first counts, and the config comes first: nobody takes another's name over.
            self.certificates.entry(name.plain()).or_insert_with(|| caller.clone());
        }
    }

    /// The tenants that take tokens of an issuer; none means that nobody trusts it.
    pub fn issuer(&self, issuer: &str) -> &[Binding] {
        self.issuers.get(issuer).map_or(&[], Vec::as_slice)
    }

    /// Every issuer somebody trusts.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.keys().map(|issuer| &**issuer)
    }

    /// Whose a certificate is that has one of these names, each in its [`plain`](CertificateName::plain) form. The first
    /// that is listed counts.
    pub fn certificate(&self, names: &[CertificateName]) -> Option<&Caller> {
        names.iter().find_map(|name| self.certificates.get(name))
    }

    /// Whether nobody is known by any of it.
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty() && self.certificates.is_empty()
    }
}

/// What only makes sense across tenants: a token or a certificate must not be two tenants'.
pub fn validate_all(tenants: &[TenantSettings], path: &str, findings: &mut Findings) {
    let mut certificates: HashMap<CertificateName, usize> = HashMap::new();
    let tokens: Vec<(usize, usize, &JwtSettings)> = tenants
        .iter()
        .enumerate()
        .flat_map(|(i, tenant)| tenant.jwt.iter().enumerate().map(move |(j, jwt)| (i, j, jwt)))
        .collect();
    for (at, (i, j, jwt)) in tokens.iter().enumerate() {
        let earlier = tokens.iter().take(at).find(|(other, _, earlier)| other != i && earlier.overlaps(jwt));
        if let Some((other, ..)) = earlier {
            let other = tenants.get(*other).map_or("", |tenant| &tenant.id);
            let message = format!(
                "takes tokens that tenant `{other}` takes too: give both a `tenant_claim`, or `clients` of their own"
            );
            findings.add(format!("{path}[{i}].jwt[{j}]"), message);
        }
    }
    for (i, tenant) in tenants.iter().enumerate() {
        let own = tenant.certificates.iter().enumerate().map(|(j, name)| (format!("certificates[{j}]"), name));
        let keys = tenant.keys.iter().enumerate().flat_map(|(k, key)| {
            let names = key.certificates.iter().enumerate();
            names.map(move |(j, name)| (format!("keys[{k}].certificates[{j}]"), name))
        });
        for (place, name) in own.chain(keys) {
            if certificates.insert(name.plain(), i).is_some() {
                findings.add(format!("{path}[{i}].{place}"), format!("`{name}` is listed twice: whose is it?"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(tenants: serde_json::Value) -> Vec<String> {
        let tenants: Vec<TenantSettings> = serde_json::from_value(tenants).unwrap();
        let mut findings = Findings::default();
        validate_all(&tenants, "tenants", &mut findings);
        for (i, tenant) in tenants.iter().enumerate() {
            for (j, jwt) in tenant.jwt.iter().enumerate() {
                jwt.validate(&format!("tenants[{i}].jwt[{j}]"), &mut findings);
            }
            for (j, name) in tenant.certificates.iter().enumerate() {
                name.validate(&format!("tenants[{i}].certificates[{j}]"), &mut findings);
            }
        }
        findings.0.into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn a_token_that_could_be_two_tenants_is_refused_in_the_config() {
        let jwt = |more: serde_json::Value| {
            let mut jwt = json!({ "issuer": "https://idp.example", "audience": "sluice" });
            jwt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            jwt
        };
        let two = |a, b| faults(json!([{ "id": "a", "jwt": [jwt(a)] }, { "id": "b", "jwt": [jwt(b)] }]));
        assert_eq!(two(json!({}), json!({})), ["tenants[1].jwt[0]"]);
        assert_eq!(two(json!({ "tenant_claim": "org" }), json!({})), ["tenants[1].jwt[0]"]);
        assert_eq!(two(json!({ "tenant_claim": "org" }), json!({ "tenant_claim": "x" })), ["tenants[1].jwt[0]"]);
        assert_eq!(two(json!({ "clients": ["a"] }), json!({ "clients": ["a", "b"] })), ["tenants[1].jwt[0]"]);
        assert!(two(json!({ "tenant_claim": "org" }), json!({ "tenant_claim": "org" })).is_empty());
        assert!(two(json!({ "clients": ["a"] }), json!({ "clients": ["b"] })).is_empty());
        assert!(two(json!({}), json!({ "audience": "other" })).is_empty());
    }

    #[test]
    fn a_certificate_is_one_tenants_however_it_is_written() {
        let digits = "AB".repeat(32);
        let colons = vec!["ab"; 32].join(":");
        let tenants = json!([
            { "id": "a", "certificates": [{ "fingerprint": digits }, { "dns": "X.example." }] },
            { "id": "b", "certificates": [{ "fingerprint": colons }, { "dns": "x.example" }, { "san": "spiffe://x/y" }] },
        ]);
        assert_eq!(faults(tenants), ["tenants[1].certificates[0]", "tenants[1].certificates[1]"]);
        let wrong =
            json!([{ "id": "a", "certificates": [{ "fingerprint": "ab" }, { "dns": "*.example" }, { "san": "x" }] }]);
        assert_eq!(faults(wrong).len(), 3);
    }

    #[test]
    fn an_issuer_must_be_one_that_can_be_asked_safely() {
        let jwt = |issuer: &str| faults(json!([{ "id": "a", "jwt": { "issuer": issuer, "audience": "x" } }]));
        assert_eq!(jwt("http://idp.example"), ["tenants[0].jwt[0].issuer"]);
        assert!(jwt("http://127.0.0.1:9").is_empty(), "one issuer needs no list");
    }

    #[test]
    fn the_words_of_a_scope_claim_mean_what_the_config_says() {
        let jwt = |scopes: serde_json::Value| -> JwtSettings {
            serde_json::from_value(
                json!({ "issuer": "https://i", "audience": "a", "scope_claim": "scope", "scopes": scopes }),
            )
            .unwrap()
        };
        let words = || "admin llm.chat inference".split(' ');
        assert_eq!(*jwt(json!({})).scopes(words()), [Scope::Inference, Scope::Admin]);
        assert_eq!(*jwt(json!({ "llm.chat": "inference" })).scopes(words()), [Scope::Inference]);
        assert!(jwt(json!({ "x": "admin" })).scopes(words()).is_empty());
    }
}
