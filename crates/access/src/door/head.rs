//! The heads of answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use kernel::error::Kind;
use kernel::{Body, Error, Journal, Outcome, Reply};
use serde_json::Value;

use super::{Machine, Outgoing, Visit, limits};
use crate::announcement::Announcement;
use crate::{credential, explanation};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MODEL: HeaderName = HeaderName::from_static("x-sluice-model");
const INSTANCE: HeaderName = HeaderName::from_static("x-sluice-instance");
const QUEUE: HeaderName = HeaderName::from_static("x-sluice-queue-ms");
const POSITION: HeaderName = HeaderName::from_static("x-sluice-queue-position");
const ESTIMATE: HeaderName = HeaderName::from_static("x-sluice-queue-estimate-ms");
const EXPLAIN: HeaderName = HeaderName::from_static("x-sluice-explain");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-sluice-attempts");
const COST: HeaderName = HeaderName::from_static("x-sluice-cost");
const CONFIG: HeaderName = HeaderName::from_static("x-sluice-config");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Room for the fields of nearly every answer: the backend's, ours and those of limits. A map that grows hashes all again.
const FIELDS: usize = 24;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer that took part in the work: with all that is told about it.
pub(super) fn reply(
    machine: &Machine,
    reply: Reply,
    mut visit: Visit,
    closing: Arc<Announcement>,
) -> Response<Outgoing> {
    let (head, body, held) = reply.into_parts();
    let mut headers = HeaderMap::with_capacity(FIELDS);
    put(&mut headers, CONTENT_TYPE, value(head.content_type));
    for (name, field) in head.fields {
        if let (Ok(name), Some(field)) = (HeaderName::from_bytes(&name), value(field)) {
            headers.append(name, field);
        }
    }
    identify(&mut headers, machine, &visit);
    visit.glance(|journal| tell(&mut headers, journal, &visit));
    visit.stands(matches!(body, Body::Whole(_))).iter().for_each(|view| limits::tell(&mut headers, view));
    let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::OK);
    let body = match body {
        Body::Whole(bytes) => Outgoing::whole(bytes, status.as_u16(), Outcome::Answered, visit),
        Body::Flow(deltas) => {
            let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            Outgoing::flow(deltas, held, (status.as_u16(), length), visit, closing)
        }
        Body::Stream(deltas) => {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert(BUFFERING, HeaderValue::from_static("no"));
            Outgoing::stream(deltas, held, machine.limits.keep_alive_comment_ms.duration(), visit, closing)
        }
    };
    respond(status, headers, body)
}

/// An error as an answer.
pub(super) fn refuse(machine: &Machine, error: &Error, mut visit: Visit) -> Response<Outgoing> {
    let mut headers = HeaderMap::with_capacity(FIELDS);
    let status = StatusCode::from_u16(wire::status::of(error)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match &error.upstream {
        Some(told) => {
            headers.insert(CONTENT_TYPE, value(told.content_type.clone()).unwrap_or(JSON));
            told.body.clone()
        }
        None => {
            headers.insert(CONTENT_TYPE, JSON);
            wire::openai::fault::body(error)
        }
    };
    identify(&mut headers, machine, &visit);
    visit.glance(|journal| tell(&mut headers, journal, &visit));
    visit.stands(true).iter().for_each(|view| limits::tell(&mut headers, view));
    error.retry_after.into_iter().for_each(|wait| limits::come_back(&mut headers, wait));
    match error.kind {
        Kind::Unauthenticated => drop(headers.insert(WWW_AUTHENTICATE, credential::challenge(error))),
        Kind::WrongMethod => drop(HeaderValue::from_str(&error.cause).map(|allowed| headers.insert(ALLOW, allowed))),
        // Part of the body may still be on its way: the connection cannot be used again.
        Kind::TooLarge | Kind::SlowRequest | Kind::Invalid
            if error.kind != Kind::Invalid || error.cause == "framed_twice" =>
        {
            drop(headers.insert(CONNECTION, HeaderValue::from_static("close")))
        }
        _ => {}
    }
    let cause = if error.cause.is_empty() { format!("{:?}", error.kind).into() } else { error.cause.as_ref().into() };
    let body = Outgoing::whole(body, status.as_u16(), Outcome::Failed(cause), visit.leave());
    respond(status, headers, body)
}

/// A small fixed answer.
pub(super) fn plain(status: StatusCode, text: &'static str, visit: Visit) -> Response<Outgoing> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
    respond(
        status,
        headers,
        Outgoing::whole(Bytes::from_static(text.as_bytes()), status.as_u16(), Outcome::Answered, visit),
    )
}

/// An answer without a body.
pub(crate) fn empty(machine: &Machine, mut headers: HeaderMap, visit: Visit) -> Response<Outgoing> {
    identify(&mut headers, machine, &visit);
    let status = StatusCode::NO_CONTENT;
    respond(status, headers, Outgoing::whole(Bytes::new(), status.as_u16(), Outcome::Answered, visit))
}

/// A JSON answer of our own.
pub(super) fn json(machine: &Machine, body: Value, visit: Visit) -> Response<Outgoing> {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
    identify(&mut headers, machine, &visit);
    respond(StatusCode::OK, headers, Outgoing::whole(body.to_string().into(), 200, Outcome::Answered, visit))
}

fn respond(status: StatusCode, headers: HeaderMap, body: Outgoing) -> Response<Outgoing> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn identify(headers: &mut HeaderMap, machine: &Machine, visit: &Visit) {
    put(headers, REQUEST_ID, HeaderValue::from_str(visit.id.as_str()).ok());
    put(headers, CONFIG, HeaderValue::from_str(&machine.version).ok());
    if let Some(reader) = &visit.reader {
        reader.tell(headers);
    }
}

/// What happened on the way, for whoever wants to know.
fn tell(headers: &mut HeaderMap, journal: &Journal, visit: &Visit) {
    if let Some((deployment, instance)) = &journal.placed {
        put(headers, MODEL, HeaderValue::from_str(&deployment.label).ok());
        put(headers, INSTANCE, HeaderValue::from_str(instance).ok());
        headers.insert(ATTEMPTS, number(u64::from(journal.attempts)));
    }
    if let Some((amount, currency)) = journal.cost.filter(|(amount, _)| amount.is_positive()) {
        put(headers, COST, HeaderValue::from_str(&format!("{amount} {currency}")).ok());
    }
    let queued = u64::try_from(journal.queued.as_millis()).unwrap_or(u64::MAX);
    headers.insert(QUEUE, number(queued));
    if let Some((ahead, wait)) = journal.joined {
        headers.insert(POSITION, number(u64::from(ahead) + 1));
        let millis = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        put(headers, ESTIMATE, millis.map(number));
    }
    if let Some(decision) = &journal.decision {
        let text = explanation::header(decision);
        put(headers, EXPLAIN, HeaderValue::from_str(&text).ok().filter(|_| !text.is_empty()));
    }
    let until = journal.first_byte.or(journal.headed).unwrap_or_else(super::now);
    let spent = until.since(visit.started).saturating_sub(journal.queued);
    let mut timing = BytesMut::with_capacity(64);
    timing.extend_from_slice(b"queue;dur=");
    write_millis(&mut timing, journal.queued);
    timing.extend_from_slice(b", upstream;dur=");
    write_millis(&mut timing, spent);
    put(headers, SERVER_TIMING, HeaderValue::from_maybe_shared(timing.freeze()).ok());
}

/// Sets a field to what could be made of a value, if anything.
fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// A number; the two that nearly all are cost nothing.
fn number(value: u64) -> HeaderValue {
    match value {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        _ => HeaderValue::from(value),
    }
}

/// Milliseconds with one digit behind the point.
fn write_millis(to: &mut BytesMut, span: Duration) {
    let tenths = u64::try_from(span.as_micros() / 100).unwrap_or(u64::MAX);
    let mut digits = itoa::Buffer::new();
    to.extend_from_slice(digits.format(tenths / 10).as_bytes());
    to.extend_from_slice(b".");
    to.extend_from_slice(digits.format(tenths % 10).as_bytes());
}

fn value(bytes: Bytes) -> Option<HeaderValue> {
    (!bytes.is_empty()).then(|| HeaderValue::from_maybe_shared(bytes).ok()).flatten()
}
