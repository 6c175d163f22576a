//! Active checks: a path asked regularly, on connections of their own.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, HeaderValue};
use kernel::settings::Secret;

use crate::connection::{Connection, Outbound};
use crate::endpoint::Endpoint;
use crate::instance::Instance;

/// Checks one instance for as long as the config that asked for it lives.
pub(crate) async fn watch(instance: Arc<Instance>, path: String) {
    let Some(endpoint) = instance.endpoint.clone() else { return };
    let rules = &instance.rules;
    let mut turn = tokio::time::interval(rules.interval_ms.duration());
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let healthy = check(&endpoint, &path, rules.timeout_ms.duration()).await;
        if instance.vitals.health.checked(rules, healthy) {
            if healthy {
                tracing::info!(model = %instance.deployment.label, instance = %instance.name, "instance is back");
            } else {
                tracing::warn!(model = %instance.deployment.label, instance = %instance.name, path, "instance fails its active checks");
            }
        }
    }
}

/// Asks once; true for any 2xx in time.
async fn check(endpoint: &Endpoint, path: &str, within: Duration) -> bool {
    let asked = tokio::time::timeout(within, get(endpoint, path, None, within)).await;
    matches!(asked, Ok(Some((200..=299, _))))
}

/// Bound: an answer to a question of ours. What is longer is cut just beyond it.
pub(crate) const BODY_MAX: usize = 1 << 20;

/// A plain GET on a connection of its own: status, and up to 1 MiB of body.
pub(crate) async fn get(
    endpoint: &Endpoint,
    path: &str,
    key: Option<&Secret>,
    within: Duration,
) -> Option<(u16, Vec<u8>)> {
    let connection = Connection::open(endpoint, within).await.ok()?;
    let mut request = http::Request::new(Outbound::empty());
    *request.uri_mut() = format!("{}{path}", endpoint.root()).parse().ok()?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(&endpoint.authority).ok()?);
    if let Some(key) = key {
        // As every cloud wants it: all but Anthropic read the first, Anthropic the other two.
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?);
        request.headers_mut().insert("x-api-key", HeaderValue::from_str(key.expose()).ok()?);
        request.headers_mut().insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    let mut answered = connection.send(request).await.ok()?;
    let mut body = Vec::new();
    while let Some(Ok(piece)) = answered.body.next().await {
        body.extend_from_slice(&piece);
        if body.len() > BODY_MAX {
            break;
        }
    }
    Some((answered.status, body))
}
