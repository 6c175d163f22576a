//! What comes in: the body, within its limits, and what the head says beside the credential.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use kernel::error::Kind;
use kernel::work::Workers;
use kernel::{Call, Caller, Error, ModelName, Operation, Origin, Payload, Plain, Priority, Result, random};
use tokio::sync::oneshot;
use wire::openai::request::Envelope;

use super::said::Said;
use crate::settings::LimitSettings;

/// A body on its way in; implemented by the listener over its HTTP library.
pub trait Arriving: Send {
    /// The next bytes; `None` at the end; an error where the client broke off or its framing is wrong.
    fn next(&mut self) -> impl Future<Output = Option<std::io::Result<Bytes>>> + Send;
}

/// Bound: a client may not ask for a deadline beyond a day.
const DEADLINE_MAX: Duration = Duration::from_secs(86_400);

/// Bound: what is made ready for a body before more of it has come than its announcement.
const AHEAD: usize = 64 << 10;

/// A body this large takes some 150 µs to read: far more than all else a call costs, and than others on the thread
/// should wait. Handing it over costs a tenth of that.
const LARGE: usize = 128 << 10;

/// Bound: tags are kept with every charge, and usage is summed by them.
const TAG_MAX: usize = 64;

/// What the bodies of all requests inside hold together.
#[derive(Debug, Default)]
pub(super) struct Store(AtomicU64);

/// One body's share of it.
#[derive(Debug)]
pub(super) struct Held {
    store: Arc<Store>,
    bytes: u64,
}

/// Reads a body to its end; gives it with its share of the store.
pub(super) async fn read(
    announced: Option<&HeaderValue>,
    mut body: impl Arriving,
    limits: &LimitSettings,
    store: &Arc<Store>,
) -> Result<(Bytes, Held)> {
    let max = limits.body_max.len();
    let announced = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(too_large(limits));
    }
    let mut held = Held { store: Arc::clone(store), bytes: 0 };
    let until = super::now() + limits.body_total_timeout_ms.duration();
    let Some(first) = piece(&mut body, limits, until.remaining()).await? else { return Ok((Bytes::new(), held)) };
    if first.len() > max {
        return Err(too_large(limits));
    }
    held.grow(first.len(), limits)?;
    // One read is the common case, and then nothing is copied.
    if announced == Some(first.len()) {
        return Ok((first, held));
    }
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(0).min(AHEAD).max(first.len()));
    whole.extend_from_slice(&first);
    while let Some(piece) = piece(&mut body, limits, until.remaining()).await? {
        if whole.len() + piece.len() > max {
            return Err(too_large(limits));
        }
        held.grow(piece.len(), limits)?;
        whole.extend_from_slice(&piece);
    }
    Ok((whole.freeze(), held))
}

impl Held {
    fn grow(&mut self, by: usize, limits: &LimitSettings) -> Result<()> {
        self.bytes += by as u64;
        let all = self.store.0.fetch_add(by as u64, Ordering::Relaxed) + by as u64;
        if all <= limits.bodies_max.bytes() {
            return Ok(());
        }
        let message = "The request bodies being worked on take all the memory there is for them.";
        Err(Error::new(Kind::Unavailable, Origin::Gateway, message).after(Duration::from_secs(1)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn piece(body: &mut impl Arriving, limits: &LimitSettings, left: Duration) -> Result<Option<Bytes>> {
    let mut next = pin!(body.next());
    // What is there already needs no timer.
    let polled = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
    let waited = match polled {
        Poll::Ready(piece) => Ok(piece),
        Poll::Pending => tokio::time::timeout(limits.body_timeout_ms.duration().min(left), next).await,
    };
    match waited {
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(_))) => Err(Error::invalid(None, "The request body broke off, or is not framed as its head says.")),
        Err(_) => Err(Error::new(Kind::SlowRequest, Origin::Caller, "The request body came too slowly.")),
    }
}

fn too_large(limits: &LimitSettings) -> Error {
    Error::new(
        Kind::TooLarge,
        Origin::Caller,
        format!("The request body is larger than the {} bytes allowed here.", limits.body_max.bytes()),
    )
}

/// Reads what a body asks for; a large one on a thread where nobody waits for it.
pub(super) async fn understand(bytes: Bytes, envelope: Envelope, workers: &dyn Workers) -> Result<Call> {
    if bytes.len() < LARGE {
        return wire::openai::request::read(bytes, envelope);
    }
    let (tell, told) = oneshot::channel();
    let job = Box::new(move || drop(tell.send(wire::openai::request::read(bytes, envelope))));
    if let Err(job) = workers.submit(job) {
        job();
    }
    let broken = |_| Error::new(Kind::Internal, Origin::Gateway, "The request body could not be read.");
    told.await.map_err(broken)?
}

/// What the head says to whoever reads the body.
pub(super) fn envelope(said: &mut Said<'_>, operation: Operation) -> Envelope {
    let session = said.session_id.map(|value| random::hash(value.as_bytes()));
    Envelope { operation, session, forward: said.take_forward() }
}

/// A request to a plain service as a call: nothing of its body is read.
pub(super) fn plain(bytes: Bytes, plain: Plain, model: ModelName, said: &Said<'_>) -> Call {
    let payload = Payload { bytes, model: 0..0, prompt: 0..0, tools: 0..0, force_usage: None, blocks: OnceLock::new() };
    Call {
        model,
        operation: Operation::Service,
        stream: false,
        wants_usage: false,
        payload: Arc::new(payload),
        affinity: said.session_id.map(|value| random::hash(value.as_bytes())),
        output_max: None,
        choices: 1,
        forward: Arc::new([]),
        plain: Some(Arc::new(plain)),
    }
}

/// `x-sluice-deadline-ms`.
pub(super) fn deadline(said: Option<&HeaderValue>) -> Result<Option<Duration>> {
    let Some(value) = said else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()).map(Duration::from_millis);
    match millis.filter(|span| !span.is_zero() && *span <= DEADLINE_MAX) {
        Some(span) => Ok(Some(span)),
        None => Err(Error::invalid(
            Some("x-sluice-deadline-ms"),
            "`x-sluice-deadline-ms` must be a whole number of milliseconds from 1 to 86400000.",
        )),
    }
}

/// `x-sluice-priority`.
pub(super) fn priority(said: Option<&HeaderValue>) -> Result<Option<Priority>> {
    let Some(value) = said else { return Ok(None) };
    let wrong = || Error::invalid(Some("x-sluice-priority"), "`x-sluice-priority` must be high, normal or low.");
    value.to_str().ok().and_then(Priority::parse).map(Some).ok_or_else(wrong)
}

/// `x-sluice-explain`.
pub(super) fn explain(said: Option<&HeaderValue>, caller: &Caller) -> Result<bool> {
    match said.map(HeaderValue::as_bytes) {
        None | Some(b"false") => Ok(false),
        Some(b"true") if caller.terms.explain => Ok(true),
        Some(b"true") => {
            let message = "`x-sluice-explain` is not part of the tenant's plan.";
            let mut error = Error::new(Kind::Forbidden, Origin::Caller, message);
            error.field = Some("x-sluice-explain".into());
            Err(error)
        }
        Some(_) => Err(Error::invalid(Some("x-sluice-explain"), "`x-sluice-explain` must be true or false.")),
    }
}

/// `x-sluice-tag`: what its client wants it counted under.
pub(super) fn tag(said: Option<&HeaderValue>) -> Result<Option<Arc<str>>> {
    let Some(value) = said else { return Ok(None) };
    let fits = |text: &&str| (1..=TAG_MAX).contains(&text.len());
    let wrong = || {
        let message = format!("`x-sluice-tag` must be 1 to {TAG_MAX} printable ASCII characters.");
        Error::invalid(Some("x-sluice-tag"), message)
    };
    value.to_str().ok().filter(fits).map(|text| Some(text.into())).ok_or_else(wrong)
}
