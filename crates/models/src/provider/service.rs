//! A plain HTTP service: the request goes out as it came, and whatever comes back is the answer.
//!
//! Nothing is read of either body. An instance counts as failing when it cannot be reached, breaks off, is too slow or
//! says itself that it cannot (502, 503, 504); any other status is its answer. What may have been begun is sent again
//! only if its method allows that (RFC 9110 §9.2.2).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use kernel::error::Kind as ErrorKind;
use kernel::{
    Body, Ctx, Delta, Deltas, Error, Head, Kind, Moment, Note, Origin, Permit, Placed, Plain, Reply, Result, Serving,
};
use tokio::time::Sleep;

use super::openai::exchange::{broken, too_slow, unreachable};
use super::{Provider, Row};
use crate::connection::{Answered, Failure, Inbound, Outbound};
use crate::endpoint::Endpoint;
use crate::instance::Instance;
use crate::settings::{InstanceSettings, ModelSettings};

pub(super) const KIND: Kind<Row> = Kind {
    name: "service",
    about: "A plain HTTP service.",
    build: Row { needs_endpoint: true, make: |model, instance| Box::new(Service::new(model, instance)) },
};

/// Headers between two neighbours only (RFC 9110 §7.6.1), beside those `connection` names.
const NEIGHBOURLY: [HeaderName; 4] = [CONNECTION, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")];

/// What is the same for every request to one instance.
struct Service {
    prefix: Arc<str>,
    /// Set over whatever the request says.
    headers: HeaderMap,
}

/// An answer's body on its way through, holding its slot and its connection until it ends.
struct Flow {
    ctx: Ctx,
    instance: Arc<Instance>,
    body: Inbound,
    over: bool,
    begun: bool,
    last: Moment,
    deadline: Moment,
    idle: Duration,
    /// One timer, set again only when it fires.
    timer: Pin<Box<Sleep>>,
    permit: Option<Permit>,
}

// === impl Service ===

impl Service {
    fn new(model: &ModelSettings, instance: &InstanceSettings) -> Self {
        let endpoint = instance.endpoint.as_deref().and_then(|text| Endpoint::parse(text).ok());
        let mut headers = HeaderMap::new();
        let authority = endpoint.as_ref().and_then(|endpoint| HeaderValue::from_str(&endpoint.authority).ok());
        headers.extend(authority.map(|value| (HOST, value)));
        for (name, value) in &model.headers {
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value.expose()))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        Self { prefix: endpoint.map(|endpoint| endpoint.prefix).unwrap_or_default(), headers }
    }

    fn request(&self, ctx: &Ctx, plain: &Plain, body: &Bytes) -> http::Request<Outbound> {
        let pieces = if body.is_empty() { Vec::new() } else { vec![body.clone()] };
        let mut request = http::Request::new(Outbound::new(pieces));
        *request.method_mut() = http::Method::from_bytes(&plain.method).unwrap_or_default();
        let target = [self.prefix.as_bytes(), &plain.target].concat();
        *request.uri_mut() = http::Uri::from_maybe_shared(Bytes::from(target)).unwrap_or_default();
        let headers = request.headers_mut();
        for (name, value) in &plain.headers {
            let name = HeaderName::from_bytes(name).ok();
            if let (Some(name), Ok(mut value)) = (name, HeaderValue::from_maybe_shared(value.clone())) {
                value.set_sensitive(name == AUTHORIZATION);
                headers.append(name, value);
            }
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Ok(id) = HeaderValue::from_str(ctx.facts().id.as_str()) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        request
    }

    async fn exchange(&self, ctx: &Ctx, placed: Placed, instance: &Arc<Instance>) -> Result<Reply> {
        let Some(plain) = placed.attempt.call.plain.clone() else {
            return Err(Error::new(ErrorKind::Internal, Origin::Gateway, "A call to a model was sent to a service."));
        };
        let sent = Moment::now();
        let deadline = placed.attempt.deadline;
        let waited = {
            let awaited = pin!(self.head(ctx, &plain, &placed, instance, sent));
            tokio::time::timeout_at(deadline.instant().into(), awaited).await
        };
        let once = |error: Error| if plain.repeatable { error } else { error.final_() };
        let answered = match waited {
            Ok(Ok(answered)) => answered,
            Ok(Err(failure @ Failure::Broken(_))) => return Err(once(unreachable(&failure, instance))),
            Ok(Err(failure)) => return Err(unreachable(&failure, instance)),
            Err(_) => return Err(once(too_slow(ctx, instance, sent, deadline))),
        };
        let now = Moment::now();
        ctx.note(Note::Headed(now));
        match answered.status {
            502..=504 => instance.failed(&format!("status_{}", answered.status), None),
            _ => instance.worked(),
        }
        let mut answered = answered;
        let head = Head { status: answered.status, content_type: Bytes::new(), fields: fields(&answered.headers) };
        if answered.body.ended() {
            ctx.note(Note::FirstByte(now));
            instance.give_back(&mut answered.body, now);
            return Ok(Reply::new(head, Body::Whole(Bytes::new())).holding(placed.permit));
        }
        let flow = Flow::new(ctx, placed, instance, answered.body, now);
        Ok(Reply::new(head, Body::Flow(Box::new(flow))))
    }

    async fn head(
        &self,
        ctx: &Ctx,
        plain: &Plain,
        placed: &Placed,
        instance: &Instance,
        sent: Moment,
    ) -> Result<Answered, Failure> {
        let body = &placed.attempt.call.payload.bytes;
        let pool = instance
            .vitals
            .pool
            .as_ref()
            .ok_or_else(|| Failure::Connect(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let request = || self.request(ctx, plain, body);
        pool.send(instance.limits, instance.timeouts.connect, sent, plain.repeatable, request).await
    }
}

impl Provider for Service {
    fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed, instance: &'a Arc<Instance>) -> Serving<'a> {
        Box::pin(self.exchange(ctx, placed, instance))
    }
}

/// An answer's headers, but for those between neighbours.
fn fields(headers: &HeaderMap) -> Vec<(Bytes, Bytes)> {
    let listed: Vec<&str> = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).collect();
    let named = |name: &HeaderName| {
        listed.iter().any(|list| list.split(',').any(|one| name.as_str().eq_ignore_ascii_case(one.trim())))
    };
    let kept = headers.iter().filter(|(name, _)| !NEIGHBOURLY.contains(name) && !named(name));
    kept.map(|(name, value)| {
        (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    })
    .collect()
}

// === impl Flow ===

impl Flow {
    fn new(ctx: &Ctx, placed: Placed, instance: &Arc<Instance>, body: Inbound, now: Moment) -> Self {
        let (deadline, idle) = (placed.attempt.deadline, instance.timeouts.idle);
        let first = idle.min(deadline.since(now));
        Self {
            ctx: ctx.clone(),
            instance: Arc::clone(instance),
            body,
            over: false,
            begun: false,
            last: now,
            deadline,
            idle,
            timer: Box::pin(tokio::time::sleep(first)),
            permit: Some(placed.permit),
        }
    }

    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Moment::now();
            let due = (self.last + self.idle).min(self.deadline);
            if now >= due {
                return Poll::Ready(too_slow(&self.ctx, &self.instance, self.last, due));
            }
            self.timer.as_mut().reset(tokio::time::Instant::now() + due.since(now));
        }
        Poll::Pending
    }

    /// Frees the slot, and closes the connection if it is still ours.
    fn close(&mut self) {
        self.over = true;
        drop(self.body.take_connection());
        self.permit = None;
    }

    fn fail(&mut self, error: Error) -> Option<Result<Delta>> {
        self.ctx.note(Note::Failed(error.cause.as_ref().into()));
        self.close();
        Some(Err(error))
    }
}

impl Deltas for Flow {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.body.poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                let now = Moment::now();
                if !std::mem::replace(&mut self.begun, true) {
                    self.ctx.note(Note::FirstByte(now));
                }
                self.last = now;
                Poll::Ready(Some(Ok(Delta { bytes, pieces: 0, last: false })))
            }
            Poll::Ready(Some(Err(_))) => {
                let error = broken(&self.instance, "broken_answer");
                Poll::Ready(self.fail(error))
            }
            Poll::Ready(None) => {
                self.instance.give_back(&mut self.body, Moment::now());
                self.close();
                Poll::Ready(None)
            }
            Poll::Pending => self.overdue(cx).map(|error| self.fail(error)),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !self.over {
            self.close();
        }
    }
}
