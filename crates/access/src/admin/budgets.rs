//! Budgets, and what is left of them.

use std::sync::Arc;

use axum::Json;
use axum::response::IntoResponse;
use kernel::contract::Period;
use kernel::{Caller, Currency, Money};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tenancy::purse::BudgetStanding;

use super::paper;
use super::route::{Answering, Method, Pace, Route, Shape, Who};
use super::{Asked, Plane, schema};

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::Get,
    path: "/admin/v1/tenants/{tenant}/budgets",
    who: Who::Reader,
    pace: Pace::Report,
    about: "A tenant's budgets and those of its keys in force: what is spent, what is reserved, what is left.",
    query: &[],
    takes: None,
    gives: (200, Some(Shape { name: "Budgets", schema: |generator| schema::list_of::<Shown>(generator, "budgets") })),
    handler: list,
}];

/// One budget, as it is shown.
#[derive(Serialize, JsonSchema)]
struct Shown {
    /// Whose: `tenant` or `key`.
    scope: &'static str,
    /// The ids of the keys that spend it, where it is a key's: several while one takes another's place.
    keys: Vec<String>,
    /// Which models it counts; empty: all.
    models: Vec<String>,
    /// Per what.
    per: Period,
    /// Whether calls are refused once it is spent.
    hard: bool,
    /// The most that may be spent.
    limit: Money,
    /// What is spent in this period, as far as this process knows.
    spent: Money,
    /// What calls under way have set aside.
    reserved: Money,
    /// What is neither spent nor set aside.
    left: Money,
    /// In which currency.
    currency: Currency,
    /// When it starts anew; `null`: never.
    renews: Option<String>,
    /// Whether the ledger has told what was spent; if not, only what was spent at this process since it started is known.
    known: bool,
}

fn list(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let keys = plane.register.keys(&tenant).await?;
        let (callers, currency) = {
            let directory = plane.register.directory();
            // Who is let in by nothing spends nothing: of a suspended tenant, and of revoked keys, there is none.
            let itself = directory.tenant(tenant.as_str()).ok();
            let currency = itself.as_ref().map(|caller| caller.terms.billing.currency()).unwrap_or_default();
            let keys = keys.iter().filter_map(|row| directory.seen(row.id.as_str()));
            // An id that is another tenant's by now is none of this one's.
            let own = keys.filter(|caller| caller.tenant == tenant);
            (itself.into_iter().chain(own).collect::<Vec<Caller>>(), currency)
        };
        let shown: Vec<Shown> =
            plane.purse.budgets(&callers).await.into_iter().map(|standing| shown(standing, currency)).collect();
        Ok(Json(json!({ "budgets": shown })).into_response())
    })
}

fn shown(standing: BudgetStanding, currency: Currency) -> Shown {
    let left = standing.left();
    let BudgetStanding { keys, budget, spent, reserved, renews, known } = standing;
    Shown {
        scope: if keys.is_some() { "key" } else { "tenant" },
        keys: keys.iter().flatten().map(|key| key.as_str().to_owned()).collect(),
        models: budget.models,
        per: budget.per,
        hard: budget.hard,
        limit: budget.limit,
        spent,
        reserved,
        left,
        currency,
        renews,
        known,
    }
}
