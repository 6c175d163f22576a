//! The control plane's port: metrics and health, open; the admin API, with its token.

mod lines;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use kernel::explain::{Decisions, Lines};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub use self::token::new_token;
use crate::{Door, explanation};

/// What the control plane shows.
pub struct Plane {
    /// The door whose machine's token is asked for.
    pub door: Arc<Door>,
    /// Writes all metrics in the OpenMetrics text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Those who wait.
    pub lines: Box<dyn Lines>,
    /// Why calls were placed as they were.
    pub decisions: Box<dyn Decisions>,
}

/// Serves the control plane until `stop`.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(listener: tokio::net::TcpListener, plane: Plane, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(Arc::new(plane))).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Binds the control plane's address.
///
/// # Errors
/// When the address is in use or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}

fn router(plane: Arc<Plane>) -> Router {
    let admin = Router::new()
        .route("/admin/v1/queues", get(queues))
        .route("/admin/v1/explain/{id}", get(explain))
        .route("/admin/{*rest}", get(nothing).post(nothing).put(nothing).patch(nothing).delete(nothing))
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use GET.")
        })
        .route_layer(middleware::from_fn_with_state(Arc::clone(&plane), token::guard));
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(admin)
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "The control plane has /metrics, /health, /ready and /admin/v1/….\n")
        })
        .with_state(plane)
}

async fn ready(State(plane): State<Arc<Plane>>) -> (StatusCode, &'static str) {
    if plane.door.ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(plane): State<Arc<Plane>>) -> impl IntoResponse {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, TYPE)], (plane.metrics)())
}

/// Who waits for what, and what is taken of quotas.
async fn queues(State(plane): State<Arc<Plane>>) -> Response {
    Json(json!({ "queues": lines::queues(&*plane.lines), "quotas": lines::quotas(&*plane.lines) })).into_response()
}

/// Why a call was placed as it was.
async fn explain(State(plane): State<Arc<Plane>>, Path(id): Path<String>) -> Response {
    let decisions = plane.decisions.about(&id);
    let Some(last) = decisions.last() else {
        let message = format!(
            "Nothing is remembered of the request `{id}`: only the last few hundred calls are, and the last few thousand that waited or failed."
        );
        return refusal(StatusCode::NOT_FOUND, "not_found", &message);
    };
    let told = decisions.iter().map(|decision| explanation::whole(decision));
    Json(json!({
        "request_id": id,
        "tenant": last.tenant.as_str(),
        "decisions": told.collect::<Vec<_>>(),
    }))
    .into_response()
}

async fn nothing() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "not_found",
        "The admin API has /admin/v1/queues and /admin/v1/explain/{request_id}.",
    )
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "message": message, "code": code } }))).into_response()
}
