//! One visit, kept from the first byte to the last, closed into a receipt exactly once.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::HeaderValue;
use http::request::Parts;
use kernel::random::Random;
use kernel::{Call, Caller, Ctx, Journal, ModelName, Moment, Operation, Outcome, Receipt, RequestId, Result, Sink};
use tenancy::Limiter;
use tenancy::limit::{Ask, Taken, View};

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
    pub(crate) model: Option<ModelName>,
    pub(super) operation: Option<Operation>,
    pub(super) stream: bool,
    pub(super) ctx: Option<Ctx>,
    /// Its share of what all bodies may hold.
    pub(super) held: Option<Held>,
    /// What it has taken of its caller's limits.
    taken: Option<Taken>,
    /// Where its caller stood when it was refused.
    stood: Option<Box<View>>,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether it is to be written into the access log.
    pub(crate) logged: bool,
    /// Whether it is held to budgets and balances.
    pub(crate) budgeted: bool,
    /// Where it comes from.
    pub(crate) address: Option<IpAddr>,
    /// What its answer says about whose page may read it, where pages may call at all.
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
            taken: None,
            stood: None,
            received: 0,
            sent: 0,
            logged: false,
            budgeted: false,
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

    /// Takes a call's part of its caller's limits.
    ///
    /// # Errors
    /// When one is reached.
    pub(crate) fn admit(&mut self, limiter: &Arc<Limiter>, call: &Call) -> Result<()> {
        let Some(caller) = &self.caller else { return Ok(()) };
        let read = [&call.payload.prompt, &call.payload.tools].map(ExactSizeIterator::len).iter().sum::<usize>();
        let answered = call.operation != Operation::Embedding;
        let ask = Ask { bytes: read as u64, output_max: call.output_max, answered, choices: call.choices };
        match limiter.admit(caller, &call.model, ask, super::now()) {
            Ok(taken) => self.taken = taken,
            Err(refused) => {
                self.stood = Some(Box::new(refused.view));
                return Err(refused.error);
            }
        }
        Ok(())
    }

    /// Where its caller stands; `None` where nothing limits it. An answer that is whole counts as what it was.
    pub(super) fn stands(&mut self, whole: bool) -> Option<View> {
        if self.taken.is_none() {
            return self.stood.as_deref().copied();
        }
        let usage = self.glance(|journal| journal.usage).flatten().filter(|_| whole);
        let (taken, now) = (self.taken.as_mut()?, super::now());
        usage.iter().for_each(|usage| taken.correct(usage, now));
        Some(taken.view(now))
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
        if let Some(mut taken) = self.taken {
            let now = super::now();
            // Who left, or was left, in the middle of an answer that nobody counted has had what it was thought to have.
            match (&journal.usage, &outcome) {
                (Some(usage), _) => taken.correct(usage, now),
                (None, Outcome::Failed(_)) => taken.unused(now),
                (None, _) if journal.attempts == 0 => taken.unused(now),
                (None, _) => {}
            }
            taken.leave(now);
        }
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
