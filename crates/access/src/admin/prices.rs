//! Prices of the catalogue. One never changes: it is withdrawn, and another entered.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use kernel::Price;
use kernel::store::registry::PriceRow;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use tenancy::{Refused, shape, when};

use super::route::{Answering, Method, Pace, Query, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/prices",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Every price, withdrawn ones included, in order of entering.",
        query: &[Query { name: "model", about: "Only prices of this model, as they name it." }],
        takes: None,
        gives: (200, Some(Shape { name: "Prices", schema: |_| schema::list("prices", "Price") })),
        handler: list,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/prices",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Enters a price.",
        query: &[],
        takes: Some(Shape { name: "NewPrice", schema: schema::of::<Price> }),
        gives: (201, Some(PRICE)),
        handler: enter,
    },
    Route {
        method: Method::Delete,
        path: "/admin/v1/prices/{price}",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Withdraws a price. Bills made by it stay as they are.",
        query: &[],
        takes: None,
        gives: (204, None),
        handler: withdraw,
    },
];

const PRICE: Shape = Shape { name: "Price", schema: price };

/// What is known of a price beside what it says.
#[derive(Serialize, JsonSchema)]
struct Facts {
    /// Its id: a hash of what it says.
    id: String,
    /// Who declared it: `config` or `api`.
    source: &'static str,
    /// When it was entered.
    created: String,
    /// Since when it is not in force; `null`: it is.
    withdrawn: Option<String>,
}

fn price(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<Price, Facts>(generator, &[])
}

fn list(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let mut prices = Vec::new();
        for row in plane.register.prices().await? {
            let shown = shown(&row)?;
            let model = shown.get("model").and_then(Value::as_str);
            if asked.query("model").is_none_or(|asked| model == Some(asked)) {
                prices.push(shown);
            }
        }
        Ok(Json(json!({ "prices": prices })).into_response())
    })
}

fn enter(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let row = plane.register.enter_price(asked.body()?).await?;
        asked.tell("price entered", &row.id, "");
        Ok((StatusCode::CREATED, Json(shown(&row)?)).into_response())
    })
}

fn withdraw(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        plane.register.withdraw_price(asked.parameter("price")).await?;
        asked.tell("price withdrawn", asked.parameter("price"), "");
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

fn shown(row: &PriceRow) -> Result<Value, Refusal> {
    let facts = Facts {
        id: row.id.clone(),
        source: row.source.as_str(),
        created: when::text(row.created),
        withdrawn: row.withdrawn.map(when::text),
    };
    Ok(schema::with(shape::object(&row.terms).map_err(Refused::Broken)?, &facts))
}
