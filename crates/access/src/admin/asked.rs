//! A request to the admin API, once it is known who asks.

use axum::http::StatusCode;
use bytes::Bytes;
use kernel::{TenantId, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{By, Refusal, Route};

/// What is asked.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub by: By,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// When the thing was last changed as the client knows it (`If-Match`).
    pub(super) seen: Option<Timestamp>,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Only what comes after this one.
    pub after: Option<String>,
    /// So many at most.
    pub most: u32,
}

/// How many a list has where nothing is said.
const PAGE: u32 = 100;
/// Bound: an answer of this many rows is below a megabyte.
const PAGE_MAX: u32 = 1000;

impl Asked {
    /// A parameter of the path. The router has seen to it that it is there.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The tenant in the path. Whoever asks may see it.
    pub fn tenant(&self) -> TenantId {
        TenantId::new(self.parameter("tenant"))
    }

    /// The only tenant whose things may be shown; `None`: everybody's.
    pub fn only(&self) -> Option<&TenantId> {
        match &self.by {
            By::Key { tenant, .. } => Some(tenant),
            By::Operator | By::Nobody => None,
        }
    }

    /// A parameter of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Which part of a list.
    ///
    /// # Errors
    /// 400, naming `limit`.
    pub fn page(&self) -> Result<Page, Refusal> {
        let most = match self.query("limit") {
            None => PAGE,
            Some(text) => match text.parse() {
                Ok(most) if (1..=PAGE_MAX).contains(&most) => most,
                _ => return Err(Refusal::invalid("limit", format!("must be a number from 1 to {PAGE_MAX}"))),
            },
        };
        Ok(Page { after: self.query("after").map(str::to_owned), most })
    }

    /// The body as a JSON object; an empty one where there is none.
    ///
    /// # Errors
    /// 400.
    pub fn object(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Refusal::invalid("", "The body must be a JSON object.")),
            Err(fault) => Err(Refusal::invalid("", format!("The body is no JSON: {fault}."))),
        }
    }

    /// The body, read as what it should be. Fields nobody knows are refused.
    ///
    /// # Errors
    /// 400, naming the field.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        Ok(tenancy::shape::read(Value::Object(self.object()?))?)
    }

    /// Tells the operator's log of a change: who made it, and of what. Nothing secret is in it.
    pub fn tell(&self, change: &'static str, what: &str, of: &str) {
        tracing::info!(target: "sluice::audit", by = %self.by.name(), what, of, "{change}");
    }

    /// Refuses what the query does not know, or says twice.
    pub(super) fn check_query(&self, route: &Route) -> Result<(), Refusal> {
        for (i, (name, _)) in self.query.iter().enumerate() {
            if !route.query.iter().any(|known| known.name == name) {
                let known: Vec<&str> = route.query.iter().map(|query| query.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Refusal::invalid(name, format!("is no parameter of this query; it has: {known}")));
            }
            if self.query.iter().take(i).any(|(before, _)| before == name) {
                return Err(Refusal::invalid(name, "is there twice"));
            }
        }
        Ok(())
    }

    /// Refuses a body where none is taken.
    pub(super) fn check_body(&self, route: &Route) -> Result<(), Refusal> {
        if route.takes.is_none() && !self.body.trim_ascii().is_empty() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid", "This takes no body."));
        }
        Ok(())
    }
}
