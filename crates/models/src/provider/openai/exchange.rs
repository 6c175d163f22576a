//! One request and the beginning of its answer: everything that may still be tried elsewhere.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use kernel::error::{Answer as Told, Kind};
use kernel::{Body, Ctx, Error, Head, Moment, Note, Placed, Reply, Result};
use wire::openai::answer::{self, Answer};

use super::stream::Stream;
use super::{Backend, OpenAi};
use crate::adaptive::Awaited;
use crate::connection::{Answered, Failure, Inbound, Outbound};
use crate::instance::Instance;

/// Bound: the largest whole answer. 2,048 embeddings of 3,072 dimensions as text stay below it.
const ANSWER_MAX: usize = 128 << 20;
/// Bound: how much of an error's body is read.
const ERROR_MAX: usize = 256 << 10;
/// How long a stream whose head has come may stay silent before it is handed on without a first event, so
/// that the client can be kept company. From then on an error can only be an event.
const COMMIT_AFTER: Duration = Duration::from_secs(15);
/// Answer headers passed on, beside `content-type`; and all that begin with `openai-`.
const PASSED_ON: [&str; 4] = ["retry-after", "retry-after-ms", "x-should-retry", "content-language"];

/// Sends a placed call and answers once its outcome no longer hangs on this instance alone.
pub(super) async fn run(provider: &OpenAi, ctx: &Ctx, placed: Placed, instance: &Arc<Instance>) -> Result<Reply> {
    let_others_go_first().await;
    let sent = Moment::now();
    let first_byte = instance.timeouts.first_byte.map(|span| sent + span);
    let limit = first_byte.map_or(placed.attempt.deadline, |at| at.min(placed.attempt.deadline));
    let waited = {
        // Pinned, so that only a pointer to it moves into the time-out.
        let awaited = pin!(head(provider, ctx, &placed, instance, sent));
        tokio::time::timeout_at(limit.instant().into(), awaited).await
    };
    let answered = match waited {
        Ok(result) => result.map_err(|failure| unreachable(&failure, instance))?,
        Err(_) => return Err(too_slow(ctx, instance, sent, limit)),
    };
    ctx.note(Note::Headed(Moment::now()));
    if !(200..300).contains(&answered.status) {
        return Err(refusal(answered, instance, limit).await);
    }
    let head = Head { status: answered.status, content_type: content_type(&answered), fields: passed_on(&answered) };
    if placed.attempt.call.stream && head.content_type.starts_with(b"text/event-stream") {
        stream(ctx, placed, instance, answered, head, (sent, limit)).await
    } else {
        let deadline = placed.attempt.deadline;
        whole(ctx, instance, answered, head, (sent, deadline), limit).await.map(|reply| reply.holding(placed.permit))
    }
}

/// Lets whoever else is ready on this thread take its turn. All requests that have come in are read before the first of
/// them is sent on, so that a backend wakes once for many and not once for each: under full load that is a twentieth of
/// the whole cost of a call, and nobody waits longer for it.
async fn let_others_go_first() {
    let mut gone = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn head(
    provider: &OpenAi,
    ctx: &Ctx,
    placed: &Placed,
    instance: &Instance,
    sent: Moment,
) -> Result<Answered, Failure> {
    let request = || provider.request(ctx, &placed.attempt.call, instance);
    if let Backend::Simulator(sim) = &provider.backend {
        return Ok(simulated(sim, request()).await);
    }
    let pool =
        instance.vitals.pool.as_ref().ok_or_else(|| Failure::Connect(std::io::ErrorKind::AddrNotAvailable.into()))?;
    pool.send(instance.limits, instance.timeouts.connect, sent, true, request).await
}

async fn simulated(sim: &sim::Sim, request: http::Request<Outbound>) -> Answered {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let plan = sim.plan(&head.method, head.uri.path(), header, &body.joined());
    let (head, playback) = plan.start().await;
    Answered { status: head.status.as_u16(), headers: head.headers, body: Inbound::simulated(playback) }
}

/// Waits for the first event; what is an error up to there is none of the client's business yet.
async fn stream(
    ctx: &Ctx,
    placed: Placed,
    instance: &Arc<Instance>,
    answered: Answered,
    head: Head,
    (sent, limit): (Moment, Moment),
) -> Result<Reply> {
    let mut stream = Stream::new(ctx, placed, Arc::clone(instance), answered.body, limit);
    match tokio::time::timeout(COMMIT_AFTER, stream.first()).await {
        Ok(Ok(())) => {
            let now = Moment::now();
            ctx.note(Note::FirstByte(now));
            instance.succeeded(Awaited::FirstPiece, now.since(sent), now);
        }
        Ok(Err(error)) => return Err(stream.refuse(error)),
        Err(_) => stream.expect_first(),
    }
    Ok(Reply::new(head, Body::Stream(Box::new(stream))))
}

/// Reads an answer to its end: only a whole one is shown to the client.
async fn whole(
    ctx: &Ctx,
    instance: &Instance,
    mut answered: Answered,
    head: Head,
    (sent, deadline): (Moment, Moment),
    first_by: Moment,
) -> Result<Reply> {
    let patience = Patience { first_by, idle: instance.timeouts.idle, deadline };
    let body = match collect(&mut answered, ANSWER_MAX, patience).await {
        Ok(body) => body,
        Err(Missed::Time(limit)) => return Err(too_slow(ctx, instance, sent, limit)),
        Err(Missed::Rest(cause)) => return Err(broken(instance, cause)),
    };
    let now = Moment::now();
    instance.give_back(&mut answered.body, now);
    match answer::read(&body) {
        Answer::Good(usage) => {
            ctx.note(Note::FirstByte(now));
            if let Some(usage) = usage {
                ctx.note(Note::Used(usage));
            }
            instance.succeeded(Awaited::Whole, now.since(sent), now);
            Ok(Reply::new(head, Body::Whole(body)))
        }
        Answer::Disguised(status, message) => Err(disguised(instance, status, &message)),
        Answer::Nonsense => Err(broken(instance, "not_json")),
    }
}

/// How long to wait for the pieces of a whole answer.
#[derive(Clone, Copy)]
struct Patience {
    first_by: Moment,
    idle: Duration,
    deadline: Moment,
}

/// Why a whole answer was not read.
enum Missed {
    /// It was not there at this moment.
    Time(Moment),
    /// It broke off, in the operator's words.
    Rest(&'static str),
}

impl Patience {
    /// Waits for one piece, the first or a later one.
    async fn piece(self, body: &mut Inbound, first: bool) -> Result<Option<Bytes>, Missed> {
        // What is there already needs no timer.
        if let Poll::Ready(piece) = std::future::poll_fn(|cx| Poll::Ready(body.poll_next(cx))).await {
            return piece.transpose().map_err(|_| Missed::Rest("broken_answer"));
        }
        let limit = if first { self.first_by } else { self.deadline.min(Moment::now() + self.idle) };
        match tokio::time::timeout_at(limit.instant().into(), body.next()).await {
            Ok(piece) => piece.transpose().map_err(|_| Missed::Rest("broken_answer")),
            Err(_) => Err(Missed::Time(limit)),
        }
    }
}

async fn collect(answered: &mut Answered, limit: usize, patience: Patience) -> Result<Bytes, Missed> {
    let Some(first) = patience.piece(&mut answered.body, true).await? else { return Ok(Bytes::new()) };
    if answered.body.ended() {
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    while let Some(piece) = patience.piece(&mut answered.body, false).await? {
        body.extend_from_slice(&piece);
        if body.len() > limit {
            return Err(Missed::Rest("answer_too_large"));
        }
    }
    Ok(body.freeze())
}

/// Turns an answer that is no success into an error, and tells the instance's health what it means.
async fn refusal(mut answered: Answered, instance: &Instance, limit: Moment) -> Error {
    let status = answered.status;
    let (rest, content_type) = (retry_after(&answered.headers), content_type(&answered));
    let patience = Patience { first_by: limit, idle: instance.timeouts.idle, deadline: limit };
    let body = collect(&mut answered, ERROR_MAX, patience).await.ok();
    if body.is_some() {
        instance.give_back(&mut answered.body, Moment::now());
    }
    let cause = format!("status_{status}");
    let told = body.filter(|body| matches!(answer::read(body), Answer::Disguised(..))).map(|body| Told {
        status,
        content_type,
        body,
    });
    let mut error = match status {
        401 | 403 => {
            instance.refused_us(status);
            let message = "The backend refused Sluice's own credentials. The operator must mend the model's `api_key`.";
            return Error::upstream(Kind::BadUpstream, cause, message);
        }
        408 | 429 | 500.. => {
            instance.failed(&cause, rest);
            let kind = match status {
                429 => Kind::Limited,
                503 => Kind::Unavailable,
                408 | 504 => Kind::UpstreamTimeout,
                _ => Kind::BadUpstream,
            };
            Error::upstream(kind, cause, format!("The backend answered with status {status}."))
        }
        _ => {
            // The client's making: the instance did its work, and another would say the same.
            instance.worked();
            let kind = if (400..500).contains(&status) { Kind::Invalid } else { Kind::BadUpstream };
            Error::upstream(kind, cause, format!("The backend answered with status {status}.")).final_()
        }
    };
    error.retry_after = rest;
    error.upstream = told.map(Box::new);
    error
}

pub(in crate::provider) fn unreachable(failure: &Failure, instance: &Instance) -> Error {
    instance.failed(failure.cause(), None);
    tracing::debug!(model = %instance.deployment.label, instance = %instance.name, %failure, "attempt failed");
    let message = match failure {
        Failure::Connect(_) | Failure::ConnectTimeout => "The backend cannot be reached.",
        Failure::Broken(_) => "The backend closed the connection before it answered.",
    };
    Error::upstream(Kind::BadUpstream, failure.cause(), message)
}

/// Nothing came by `limit`. Whose limit it was decides whose fault it is.
pub(in crate::provider) fn too_slow(ctx: &Ctx, instance: &Instance, since: Moment, limit: Moment) -> Error {
    let waited = Moment::now().since(since).as_millis();
    if ctx.facts().deadline == Some(limit) {
        // The client set it: the backend may be as quick as ever, and nobody else can help.
        instance.worked();
        let message = format!("The answer was not there by the call's own deadline ({waited} ms after it was sent).");
        return Error::upstream(Kind::UpstreamTimeout, "client_deadline", message).final_();
    }
    instance.failed("timeout", None);
    Error::upstream(Kind::UpstreamTimeout, "timeout", format!("The backend did not answer within {waited} ms."))
}

pub(in crate::provider) fn broken(instance: &Instance, cause: &'static str) -> Error {
    instance.failed(cause, None);
    Error::upstream(
        Kind::BadUpstream,
        cause,
        match cause {
            "not_json" => "The backend answered with something that is not JSON.",
            "answer_too_large" => "The backend's answer is larger than 128 MiB.",
            _ => "The backend broke off its answer.",
        },
    )
}

/// An error that came as a 200. Its status decides whose fault it is; without one it is the backend's.
pub(super) fn disguised(instance: &Instance, status: Option<u16>, message: &str) -> Error {
    let said = format!("The backend answered with an error: {message}");
    match status {
        Some(400..=407 | 409..=428) => {
            instance.worked();
            Error::upstream(Kind::Invalid, "error_in_200", said).final_()
        }
        _ => {
            instance.failed("error_in_200", None);
            Error::upstream(Kind::BadUpstream, "error_in_200", said)
        }
    }
}

fn content_type(answered: &Answered) -> Bytes {
    let json = || Bytes::from_static(b"application/json");
    answered.headers.get(http::header::CONTENT_TYPE).map_or_else(json, |value| match value.as_bytes() {
        b"application/json" => Bytes::from_static(b"application/json"),
        b"text/event-stream" => Bytes::from_static(b"text/event-stream"),
        other => Bytes::copy_from_slice(other),
    })
}

fn passed_on(answered: &Answered) -> Vec<(Bytes, Bytes)> {
    let listed = |name: &str| name.starts_with("openai-") || PASSED_ON.contains(&name);
    let fields = answered.headers.iter().filter(|(name, _)| listed(name.as_str()));
    fields
        .map(|(name, value)| {
            (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        })
        .collect()
}

/// `Retry-After` in either of its forms (RFC 9110 §10.2.3), or `retry-after-ms`.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let text = text("retry-after")?;
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok())
}
