//! One visit, kept from the first byte to the last, closed into a receipt exactly once.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::HeaderValue;
use http::request::Parts;
use kernel::random::Random;
use kernel::{Caller, Ctx, Journal, ModelName, Moment, Operation, Outcome, Receipt, RequestId, Sink};

use super::Inside;
use super::arrival::Held;
use crate::credential::Promise;
use crate::gate::cors::Reader;

/// Bound: longer request ids are replaced by ours.
const ID_MAX: usize = 128;
/// Bound: what of a path is logged.
const PATH_MAX: usize = 256;

/// What is known about a request so far. Dropped before it was finished, it counts as left by its client.
pub(crate) struct Visit(Option<Box<Record>>);

/// The record inside; taken out when the visit ends.
pub(crate) struct Record {
    pub(super) id: RequestId,
    pub(super) started: Moment,
    at: SystemTime,
    method: Arc<str>,
    path: Arc<str>,
    pub(crate) caller: Option<Caller>,
    /// What a signature in the head says about the body.
    pub(crate) promise: Promise,
    pub(super) model: Option<ModelName>,
    pub(super) operation: Option<Operation>,
    pub(super) stream: bool,
    pub(super) ctx: Option<Ctx>,
    /// Its share of what all bodies may hold.
    pub(super) held: Option<Held>,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether it is to be written into the access log.
    pub(crate) logged: bool,
    /// Where it comes from.
    pub(crate) address: Option<IpAddr>,
    /// Whose page may read the answer, if it was a page that asked.
    pub(crate) reader: Option<Reader>,
    sink: Arc<dyn Sink>,
    _inside: Inside,
}

impl Visit {
    pub(super) fn begin(
        head: &Parts,
        id: Option<&HeaderValue>,
        address: Option<IpAddr>,
        sink: Arc<dyn Sink>,
        inside: Inside,
    ) -> Self {
        let (path, at) = (head.uri.path(), SystemTime::now());
        Self(Some(Box::new(Record {
            id: request_id(id, at),
            started: super::now(),
            at,
            method: method(&head.method),
            path: known(path).unwrap_or_else(|| path.chars().take(PATH_MAX).collect::<String>().into()),
            caller: None,
            promise: Promise::Nothing,
            model: None,
            operation: None,
            stream: false,
            ctx: None,
            held: None,
            received: 0,
            sent: 0,
            logged: false,
            address,
            reader: None,
            sink,
            _inside: inside,
        })))
    }

    /// Moves the visit out, to where its answer is written.
    pub(crate) fn leave(&mut self) -> Self {
        Self(self.0.take())
    }

    /// What happened so far.
    pub(super) fn glance<T>(&self, read: impl FnOnce(&Journal) -> T) -> Option<T> {
        Some(self.0.as_ref()?.ctx.as_ref()?.glance(read))
    }

    /// Ends the visit: the answer is out, or an error in its place.
    pub(super) fn finish(&mut self, status: u16, outcome: Outcome) {
        if let Some(record) = self.0.take() {
            record.close(status, outcome);
        }
    }
}

impl std::ops::Deref for Visit {
    type Target = Record;

    fn deref(&self) -> &Record {
        match &self.0 {
            Some(record) => record,
            // Invariant: `leave` and `finish` end the use of the value they are called on.
            None => unreachable!("a visit is not used after it has ended"),
        }
    }
}

impl std::ops::DerefMut for Visit {
    fn deref_mut(&mut self) -> &mut Record {
        match &mut self.0 {
            Some(record) => record,
            None => unreachable!("a visit is not used after it has ended"),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.finish(499, Outcome::Cancelled);
    }
}

impl Record {
    fn close(self, status: u16, outcome: Outcome) {
        let priority = self.ctx.as_ref().map(|ctx| ctx.facts().priority);
        let journal = self.ctx.map(|ctx| ctx.close()).unwrap_or_default();
        let outcome = match (outcome, journal.broke) {
            (Outcome::Answered, Some(cause)) => Outcome::Failed(cause.into()),
            (outcome, _) => outcome,
        };
        self.sink.close(Receipt {
            id: self.id,
            at: self.at,
            took: super::now().since(self.started),
            method: self.method,
            path: self.path,
            status,
            outcome,
            caller: self.caller,
            model: self.model,
            operation: self.operation,
            priority,
            stream: self.stream,
            started: self.started,
            journal,
            logged: self.logged,
            bytes: (self.received, self.sent),
        });
    }
}

/// The client's `x-request-id` if it is a plain word, else a new one (UUID v7: sortable by time).
fn request_id(said: Option<&HeaderValue>, at: SystemTime) -> RequestId {
    let given = said.and_then(|value| value.to_str().ok());
    let plain = |id: &&str| (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match given.filter(plain) {
        Some(id) => RequestId::new(id),
        None => new_id(at),
    }
}

fn new_id(at: SystemTime) -> RequestId {
    static RANDOM: OnceLock<Random> = OnceLock::new();
    let random = RANDOM.get_or_init(|| {
        let mut seed = [0; 8];
        // Without system randomness ids are still unique in this process: they count on from the clock.
        if getrandom::fill(&mut seed).is_err() {
            seed = Moment::now().as_micros().to_le_bytes();
        }
        Random::seeded(u64::from_le_bytes(seed))
    });
    let millis = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let chance = u128::from(random.next()) << 64 | u128::from(random.next());
    let mut bytes = [0u8; 10];
    bytes.iter_mut().zip(chance.to_le_bytes()).for_each(|(to, from)| *to = from);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    RequestId::new(&*id.simple().encode_lower(&mut text))
}

/// The paths that nearly all requests have, without an allocation each.
fn known(path: &str) -> Option<Arc<str>> {
    static KNOWN: OnceLock<[Arc<str>; 6]> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/health", "/ready"].map(Arc::from)
    });
    known.iter().find(|known| &***known == path).cloned()
}

fn method(method: &http::Method) -> Arc<str> {
    static COMMON: OnceLock<[Arc<str>; 2]> = OnceLock::new();
    let [post, get] = COMMON.get_or_init(|| ["POST", "GET"].map(Arc::from));
    match *method {
        http::Method::POST => Arc::clone(post),
        http::Method::GET => Arc::clone(get),
        _ => method.as_str().chars().take(16).collect::<String>().into(),
    }
}
