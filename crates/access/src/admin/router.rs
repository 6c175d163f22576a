//! The routes put in place: every request is admitted, bounded and answered in one way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::RequestPartsExt;
use axum::Router;
use axum::extract::{ConnectInfo, Query, RawPathParams, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get};
use kernel::Timestamp;

use super::route::{Method, Pace, Route, Who, routes};
use super::{Asked, By, Plane, Refusal};

/// Bound: the largest body anybody needs here is a plan with long lists.
const BODY_MAX: usize = 256 << 10;
/// Bound: for a whole request; a store that is down must not pile them up. A report has its own time beside it, so that the
/// store itself can say which question took too long.
const WITHIN: Duration = Duration::from_secs(10);

/// All paths of the control plane.
pub(super) fn router(plane: Arc<Plane>) -> Router {
    let mut paths: Vec<&str> = routes().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    let admin = paths.into_iter().fold(Router::new(), |router, path| router.route(path, methods(path)));
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(admin)
        .fallback(nothing)
        .with_state(plane)
}

/// What a path answers, by method.
fn methods(path: &'static str) -> MethodRouter<Arc<Plane>> {
    let here = || routes().filter(move |route| route.path == path);
    let allowed = here().map(|route| route.method.as_str()).collect::<Vec<_>>().join(", ");
    let open = here().all(|route| route.who == Who::Anybody);
    let router = here().fold(MethodRouter::new(), |router, route| {
        router.on(filter(route.method), move |State(plane): State<Arc<Plane>>, request: Request| async move {
            answer(&plane, route, request).await.unwrap_or_else(Refusal::into_response)
        })
    });
    router.fallback(move |State(plane): State<Arc<Plane>>, request: Request| async move {
        let (parts, _) = request.into_parts();
        if !open && let Err(refusal) = By::identify(&plane, &parts.headers, peer(&parts)) {
            return refusal.into_response();
        }
        let message = format!("This path has no {}: use {allowed}.", parts.method);
        let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response();
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            response.headers_mut().insert(ALLOW, allowed);
        }
        response
    })
}

async fn answer(plane: &Arc<Plane>, route: &'static Route, request: Request) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let by = match route.who {
        Who::Anybody => By::Nobody,
        Who::Reader | Who::Admin | Who::Operator => By::identify(plane, &parts.headers, peer(&parts))?,
    };
    let parameters: Vec<(String, String)> = match parts.extract::<RawPathParams>().await {
        Ok(found) => found.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        Err(_) => return Err(Refusal::invalid("", "The path is no UTF-8.")),
    };
    let tenant = parameters.iter().find(|(name, _)| name == "tenant").map(|(_, value)| value.as_str());
    by.may(route.who, tenant)?;
    let Query(query) = parts
        .extract::<Query<Vec<(String, String)>>>()
        .await
        .map_err(|_| Refusal::invalid("", "The query cannot be read."))?;
    let too_large = || {
        let message = format!("The body is larger than {} KiB.", BODY_MAX >> 10);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    // Stores differ in what they make of one, and nobody means it.
    if let Some((name, _)) = parameters.iter().chain(&query).find(|(_, value)| value.contains('\0')) {
        return Err(Refusal::invalid(name, format!("`{name}` must not hold a zero byte")));
    }
    let work = async {
        let body = axum::body::to_bytes(body, BODY_MAX).await.map_err(|_| too_large())?;
        let asked = Asked { by, parameters, query, body, seen: seen(&parts.headers)? };
        asked.check_query(route)?;
        asked.check_body(route)?;
        (route.handler)(Arc::clone(plane), asked).await
    };
    let within = match route.pace {
        Pace::Quick => WITHIN,
        Pace::Report => WITHIN.saturating_add(plane.report_within),
    };
    tokio::time::timeout(within, work).await.unwrap_or_else(|_| {
        let message = format!("It took longer than {} s: the store is too slow.", within.as_secs());
        Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "store_down", message))
    })
}

/// What an `If-Match` header says: when the thing was last changed as the client knows it.
fn seen(headers: &HeaderMap) -> Result<Option<Timestamp>, Refusal> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_matches('"').parse().map(Timestamp);
    number.map(Some).map_err(|_| Refusal::invalid("if-match", "must be the `etag` that came with the thing, or *"))
}

/// The address at the other end of the connection.
fn peer(parts: &Parts) -> IpAddr {
    let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    // Without one nothing that is bound to addresses is let in.
    info.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip())
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

/// A path nobody knows. Under `/admin` strangers are not told even that.
async fn nothing(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if !parts.uri.path().starts_with("/admin") {
        let message = "The control plane has /metrics, /health, /ready and /admin/v1/….\n";
        return (StatusCode::NOT_FOUND, message).into_response();
    }
    if let Err(refusal) = By::identify(&plane, &parts.headers, peer(&parts)) {
        return refusal.into_response();
    }
    let message = "There is no such path: /admin/v1/openapi.json lists all.";
    Refusal::new(StatusCode::NOT_FOUND, "not_found", message).into_response()
}

async fn ready(State(plane): State<Arc<Plane>>) -> (StatusCode, &'static str) {
    if plane.door.ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(plane): State<Arc<Plane>>) -> impl IntoResponse {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, TYPE)], (plane.metrics)())
}
