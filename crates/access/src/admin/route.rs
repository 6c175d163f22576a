//! The admin API as a table: one row per method and path.
//!
//! Router, OpenAPI document and the test that nobody sees another tenant's things are made from it, so a new endpoint is
//! one row in the file of its noun, and cannot be forgotten by any of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::response::Response;
use schemars::{Schema, SchemaGenerator};

use super::{
    Asked, Plane, Refusal, balance, budgets, invoices, keys, openapi, overview, plans, prices, tenants, usage,
};

/// One endpoint.
#[derive(Clone, Copy)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; a part in braces is a parameter, and one named `tenant` says whose things it is about.
    pub path: &'static str,
    /// Who may ask.
    pub who: Who,
    /// How long it may take.
    pub pace: Pace,
    /// One line for the reference.
    pub about: &'static str,
    /// What may stand in the query; anything else is refused.
    pub query: &'static [Query],
    /// The body's shape, if it takes one.
    pub takes: Option<Shape>,
    /// The status of success, and the shape of the answer if it has one in JSON.
    pub gives: (u16, Option<Shape>),
    /// Answers.
    pub handler: Handler,
}

/// What an endpoint does when it is asked.
pub type Handler = fn(Arc<Plane>, Asked) -> Answering;
/// Its answer, on the way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

/// A method, in the words of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes, or does.
    Post,
    /// Puts in place.
    Put,
    /// Changes some fields.
    Patch,
    /// Takes out of force.
    Delete,
}

/// Who may use an endpoint. Whoever is not an operator sees the tenant of its key, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anyone, without a credential: nothing of anybody is told.
    Anybody,
    /// The operator, and keys with the scope `usage` or `admin`.
    Reader,
    /// The operator, and keys with the scope `admin`.
    Admin,
    /// Whoever has the admin token.
    Operator,
}

/// How long an endpoint may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It reads or changes a few rows.
    Quick,
    /// It may read much of the ledger.
    Report,
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// The shape of a body, by the name it has in the OpenAPI document.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its JSON Schema.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// Every endpoint, by noun.
pub const ROUTES: &[&[Route]] = &[
    tenants::ROUTES,
    keys::ROUTES,
    plans::ROUTES,
    prices::ROUTES,
    usage::ROUTES,
    invoices::ROUTES,
    balance::ROUTES,
    budgets::ROUTES,
    overview::ROUTES,
    openapi::ROUTES,
];

/// What lists are paged with.
pub const PAGE: &[Query] = &[
    Query { name: "limit", about: "How many at most: 1 to 1000, 100 by default." },
    Query { name: "after", about: "`next` of the page before." },
];

/// Every endpoint.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().copied().flatten()
}

impl Route {
    /// The parameters of its path, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

impl Method {
    /// In the words of HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Who {
    /// In words, for the reference.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anybody => "anybody",
            Self::Reader => "operators, and API keys of that tenant with the scope `usage` or `admin`",
            Self::Admin => "operators, and API keys of that tenant with the scope `admin`",
            Self::Operator => "operators",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_endpoint_is_there_once_and_says_what_it_is_about() {
        let mut seen = HashSet::new();
        for route in routes() {
            assert!(seen.insert((route.method.as_str(), route.path)), "{} {}", route.method.as_str(), route.path);
            assert!(route.path.starts_with("/admin/v1/") && route.about.ends_with('.'), "{}", route.path);
            let body = matches!(route.method, Method::Put | Method::Patch);
            assert!(!body || route.takes.is_some(), "{} takes no body", route.path);
        }
    }

    #[test]
    fn whatever_reads_the_ledger_has_the_time_of_a_report() {
        let slow: HashSet<&str> = routes().filter(|route| route.pace == Pace::Report).map(|route| route.path).collect();
        let of_ledger = ["usage", "charges", "invoices", "draft", "verify", "balance", "budgets", "transfers"];
        for route in routes().filter(|route| of_ledger.iter().any(|noun| route.path.ends_with(noun))) {
            assert!(slow.contains(route.path), "{}", route.path);
        }
    }

    #[test]
    fn a_tenant_may_ask_only_where_the_path_or_the_handler_says_whose_it_is() {
        // Without `{tenant}` in its path a handler must look at `Asked::only` itself.
        let own: Vec<&str> = routes()
            .filter(|route| matches!(route.who, Who::Reader | Who::Admin))
            .filter(|route| !route.parameters().any(|name| name == "tenant"))
            .map(|route| route.path)
            .collect();
        assert!(own.is_empty(), "list those that were looked at here: {own:?}");
    }
}
