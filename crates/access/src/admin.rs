//! The control plane's port: metrics and health, open; what changes things will need a token.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::Door;

/// Writes all metrics in the OpenMetrics text format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves the control plane until `stop`.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    door: Arc<Door>,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let ready = move || {
        let ready = door.ready();
        async move { if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") } }
    };
    let show = move || {
        let text = metrics();
        async move { ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response() }
    };
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(show))
        .fallback(|| async { (StatusCode::NOT_FOUND, "The control plane has /metrics, /health and /ready.\n") });
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Binds the control plane's address.
///
/// # Errors
/// When the address is in use or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}
