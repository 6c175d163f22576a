//! Tenants.

use std::sync::Arc;

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use kernel::TenantId;
use kernel::settings::Findings;
use kernel::store::registry::{SubscriptionRow, TenantRow};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use tenancy::{TenantSettings, register, shape, when};

use super::route::{Answering, Method, PAGE, Pace, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};
use crate::gate;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Tenants in order of id.",
        query: PAGE,
        takes: None,
        gives: (200, Some(Shape { name: "Tenants", schema: |_| schema::page("tenants", "Tenant") })),
        handler: list,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Makes a tenant.",
        query: &[],
        takes: Some(Shape { name: "NewTenant", schema: new_tenant }),
        gives: (201, Some(TENANT)),
        handler: make,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}",
        who: Who::Reader,
        pace: Pace::Quick,
        about: "One tenant.",
        query: &[],
        takes: None,
        gives: (200, Some(TENANT)),
        handler: show,
    },
    Route {
        method: Method::Patch,
        path: "/admin/v1/tenants/{tenant}",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Changes what the body names; `null` takes away. With `If-Match`, only if nobody else did meanwhile.",
        query: &[],
        takes: Some(Shape { name: "TenantPatch", schema: tenant_patch }),
        gives: (200, Some(TENANT)),
        handler: change,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/subscriptions",
        who: Who::Reader,
        pace: Pace::Quick,
        about: "The plans a tenant was on, in order of time.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "Subscriptions", schema: subscription_list })),
        handler: subscriptions,
    },
];

const TENANT: Shape = Shape { name: "Tenant", schema: tenant };

/// What is known of a tenant beside its settings.
#[derive(Serialize, JsonSchema)]
struct Facts {
    /// Who declared it: `config` or `api`.
    source: &'static str,
    /// When it was made.
    created: String,
    /// When it was last changed.
    updated: String,
    /// Send it as `If-Match` to change the tenant only if nobody else did meanwhile.
    etag: String,
}

/// For how long a tenant was on a plan.
#[derive(Serialize, JsonSchema)]
struct Subscription {
    /// Which plan.
    plan: String,
    /// Since when.
    from: String,
    /// Until when; `null`: still.
    until: Option<String>,
}

fn tenant(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<TenantSettings, Facts>(generator, &["keys"])
}

fn new_tenant(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<TenantSettings, ()>(generator, &["keys"])
}

fn tenant_patch(generator: &mut SchemaGenerator) -> Schema {
    schema::patch::<TenantSettings>(generator, &["keys", "id"])
}

fn subscription_list(generator: &mut SchemaGenerator) -> Schema {
    schema::list_of::<Subscription>(generator, "subscriptions")
}

fn list(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let page = asked.page()?;
        let after = page.after.as_deref().map(TenantId::new);
        // One more tells whether there is a next page.
        let mut rows = plane.register.tenants(after.as_ref(), page.most + 1).await?;
        let more = rows.len() > page.most as usize;
        rows.truncate(page.most as usize);
        let next = rows.last().filter(|_| more).map(|row| row.id.as_str().to_owned());
        let tenants = rows.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(json!({ "tenants": tenants, "next": next })).into_response())
    })
}

fn make(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let settings: TenantSettings = asked.body()?;
        check_gates(settings.middleware.as_deref())?;
        let row = plane.register.make_tenant(settings).await?;
        asked.tell("tenant made", row.id.as_str(), "");
        answer(StatusCode::CREATED, &row)
    })
}

fn show(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move { answer(StatusCode::OK, &plane.register.tenant(&asked.tenant()).await?) })
}

fn change(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let changes = asked.object()?;
        if let Some(names) = changes.get("middleware").filter(|names| !names.is_null()) {
            let names: Vec<Arc<str>> =
                shape::read(names.clone()).map_err(|_| Refusal::invalid("middleware", "must be a list of names"))?;
            check_gates(Some(&names))?;
        }
        let row = plane.register.change_tenant(&asked.tenant(), changes, asked.seen).await?;
        asked.tell(if row.suspended { "tenant changed; suspended" } else { "tenant changed" }, row.id.as_str(), "");
        answer(StatusCode::OK, &row)
    })
}

/// Which gates there are is known here, not in tenancy.
fn check_gates(names: Option<&[Arc<str>]>) -> Result<(), Refusal> {
    let mut findings = Findings::default();
    if let Some(names) = names {
        gate::validate_own(names, "middleware", &mut findings);
    }
    findings.0.into_iter().next().map_or(Ok(()), |first| Err(Refusal::invalid(first.path, first.message)))
}

fn subscriptions(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let rows = plane.register.subscriptions(&asked.tenant()).await?;
        let subscriptions: Vec<Subscription> = rows.into_iter().map(subscription).collect();
        Ok(Json(json!({ "subscriptions": subscriptions })).into_response())
    })
}

fn subscription(row: SubscriptionRow) -> Subscription {
    Subscription { plan: row.plan, from: when::text(row.from), until: row.until.map(when::text) }
}

fn answer(status: StatusCode, row: &TenantRow) -> Result<Response, Refusal> {
    let mut response = (status, Json(shown(row)?)).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", row.updated.millis())) {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

fn shown(row: &TenantRow) -> Result<Value, Refusal> {
    let facts = Facts {
        source: row.source.as_str(),
        created: when::text(row.created),
        updated: when::text(row.updated),
        etag: row.updated.millis().to_string(),
    };
    Ok(schema::with(register::tenant_fields(row)?, &facts))
}
