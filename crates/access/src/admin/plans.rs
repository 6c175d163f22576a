//! Plans. A version never changes: what is put is a new one, and the last one put is in force.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use kernel::store::registry::PlanRow;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use tenancy::{PlanSettings, register, shape, when};

use super::route::{Answering, Method, Pace, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/plans",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "The version in force of each plan, in order of name.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "Plans", schema: |_| schema::list("plans", "Plan") })),
        handler: list,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/plans/{plan}",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "The version of a plan that is in force.",
        query: &[],
        takes: None,
        gives: (200, Some(PLAN)),
        handler: show,
    },
    Route {
        method: Method::Put,
        path: "/admin/v1/plans/{plan}",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Puts a version of a plan in force, for all tenants on it.",
        query: &[],
        takes: Some(Shape { name: "NewPlan", schema: new_plan }),
        gives: (200, Some(PLAN)),
        handler: put,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/plans/{plan}/versions",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Every version of a plan, the one in force last.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "PlanVersions", schema: |_| schema::list("versions", "Plan") })),
        handler: versions,
    },
    Route {
        method: Method::Delete,
        path: "/admin/v1/plans/{plan}",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Retires a plan: no tenant can be put on it any more. Refused while some are on it.",
        query: &[],
        takes: None,
        gives: (204, None),
        handler: retire,
    },
];

const PLAN: Shape = Shape { name: "Plan", schema: plan };

/// What is known of a version beside its settings.
#[derive(Serialize, JsonSchema)]
struct Facts {
    /// The version: the name, `@`, and a hash of what it says.
    id: String,
    /// Who declared it: `config` or `api`.
    source: &'static str,
    /// When it was entered first.
    created: String,
    /// When it was put in force last: later, where others were in force in between.
    entered: String,
    /// Since when no tenant can be put on it; `null`: any can.
    retired: Option<String>,
}

fn plan(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<PlanSettings, Facts>(generator, &[])
}

fn new_plan(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<PlanSettings, ()>(generator, &["name"])
}

fn list(plane: Arc<Plane>, _: Asked) -> Answering {
    Box::pin(async move {
        let mut latest: Vec<PlanRow> = Vec::new();
        for row in plane.register.plans().await? {
            match latest.iter_mut().find(|known| known.name == row.name) {
                Some(known) if known.entered() <= row.entered() => *known = row,
                Some(_) => {}
                None => latest.push(row),
            }
        }
        let plans = latest.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(json!({ "plans": plans })).into_response())
    })
}

fn show(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let latest = plane.register.plan_versions(asked.parameter("plan")).await?.pop();
        Ok(Json(shown(&latest.ok_or_else(|| Refusal::missing("plan"))?)?).into_response())
    })
}

fn versions(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let rows = plane.register.plan_versions(asked.parameter("plan")).await?;
        if rows.is_empty() {
            return Err(Refusal::missing("plan"));
        }
        let versions = rows.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(json!({ "versions": versions })).into_response())
    })
}

fn put(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let mut fields = asked.object()?;
        let name = asked.parameter("plan");
        if fields.insert("name".into(), name.into()).is_some_and(|said| said != name) {
            return Err(Refusal::invalid("name", "differs from the name in the path"));
        }
        let row = plane.register.enter_plan(shape::read(Value::Object(fields))?).await?;
        asked.tell("plan put in force", &row.id, "");
        Ok(Json(shown(&row)?).into_response())
    })
}

fn retire(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        plane.register.retire_plan(asked.parameter("plan")).await?;
        asked.tell("plan retired", asked.parameter("plan"), "");
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

fn shown(row: &PlanRow) -> Result<Value, Refusal> {
    let facts = Facts {
        id: row.id.clone(),
        source: row.source.as_str(),
        created: when::text(row.created),
        entered: when::text(row.entered()),
        retired: row.retired.map(when::text),
    };
    Ok(schema::with(register::plan_fields(row)?, &facts))
}
