//! What goes on: who waits, and why calls were placed as they were.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use super::route::{Answering, Method, Pace, Route, Shape, Who};
use super::{Asked, Plane, Refusal, lines, schema};
use crate::explanation;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/queues",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Who waits for what, and what is taken of quotas.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "Queues", schema: schema::anything })),
        handler: queues,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/explain/{request}",
        who: Who::Operator,
        pace: Pace::Quick,
        about: "Why a call was placed as it was.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "Explanation", schema: schema::anything })),
        handler: explain,
    },
];

fn queues(plane: Arc<Plane>, _: Asked) -> Answering {
    Box::pin(async move {
        let lines = &*plane.lines;
        Ok(Json(json!({ "queues": lines::queues(lines), "quotas": lines::quotas(lines) })).into_response())
    })
}

fn explain(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let id = asked.parameter("request");
        let decisions = plane.decisions.about(id);
        let Some(last) = decisions.last() else {
            let message = format!(
                "Nothing is remembered of the request `{id}`: only the last few hundred calls are, and the last few thousand that waited or failed."
            );
            return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", message));
        };
        let told = decisions.iter().map(|decision| explanation::whole(decision));
        Ok(Json(json!({
            "request_id": id,
            "tenant": last.tenant.as_str(),
            "decisions": told.collect::<Vec<_>>(),
        }))
        .into_response())
    })
}
