//! One request's visit: from its head to the last byte of its answer.

mod arrival;
pub(crate) mod head;
mod limits;
mod outgoing;
mod route;
mod said;
pub mod service;
mod visit;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{Response, StatusCode};
use kernel::error::Kind;
use kernel::fleet::Roster;
use kernel::health::Readiness;
use kernel::settings::Secret;
use kernel::sight::{Gauges, Sample};
use kernel::work::Workers;
use kernel::{Call, Caller, Ctx, Error, Moment, Network, Operation, Origin, Priority, Reply, Result, Serve, Sink, ctx};
use tenancy::{Limiter, Register};
use tokio::sync::futures::OwnedNotified;

pub use self::arrival::Arriving;
use self::arrival::Store;
pub use self::outgoing::Outgoing;
pub(crate) use self::route::Target;
pub(crate) use self::said::Said;
use self::service::{Service, Services};
pub(crate) use self::visit::Visit;
use crate::announcement::Announcement;
use crate::credential::Credentials;
use crate::gate::cors::Cors;
use crate::gate::ip_filter::IpFilter;
use crate::gate::{Chain, Entry};
use crate::listener::Peer;
use crate::settings::{Auth, LimitSettings};

/// Everything one config makes of Sluice. A reload builds a new one and swaps the pointer; a request keeps the one it
/// entered with.
pub struct Machine {
    /// Which config: shown as `x-sluice-config`.
    pub version: Arc<str>,
    /// Where calls go.
    pub core: Arc<dyn Serve<Call>>,
    /// Which models there are.
    pub roster: Arc<Roster>,
    /// Who may call.
    pub register: Arc<Register>,
    /// Whether callers must show who they are; without a word, as soon as anybody is known.
    pub auth: Option<Auth>,
    /// By which credentials beside keys.
    pub credentials: Credentials,
    /// How much they may.
    pub limiter: Arc<Limiter>,
    /// What every request passes.
    pub chain: Chain,
    /// Plain services, by path.
    pub services: Services,
    /// Which pages may call from a browser.
    pub cors: Option<Cors>,
    /// Who may come in, by address.
    pub ip_filter: IpFilter,
    /// Peers whose `x-forwarded-for` counts.
    pub proxies: Vec<Network>,
    /// Whether anybody can answer.
    pub readiness: Arc<dyn Readiness>,
    /// What clients may send.
    pub limits: LimitSettings,
    /// What the admin API asks for; without one it is closed.
    pub admin_token: Option<Secret>,
    /// Request headers backends may see, lower-case.
    pub forward: Vec<&'static str>,
    /// When it was built, in seconds since 1970; shown as the models' `created`.
    pub created: u64,
}

impl Machine {
    /// Whether anyone may call.
    pub fn open(&self) -> bool {
        match self.auth {
            Some(Auth::Required) => false,
            Some(Auth::None) => true,
            None => self.register.knows() && self.register.directory().is_empty(),
        }
    }
}

/// Where every request comes in.
pub struct Door {
    machine: ArcSwap<Machine>,
    sink: Arc<dyn Sink>,
    workers: Arc<dyn Workers>,
    inside: AtomicUsize,
    store: Arc<Store>,
    draining: AtomicBool,
    /// Said when those still inside must leave.
    closing: Arc<Announcement>,
}

/// Counts a visitor for as long as it lives.
struct Inside(Arc<Door>);

impl Door {
    /// A door into a machine; receipts go to `sink`, what takes long to read to `workers`.
    pub fn new(machine: Machine, sink: Arc<dyn Sink>, workers: Arc<dyn Workers>) -> Arc<Self> {
        let machine = ArcSwap::from_pointee(machine);
        Arc::new(Self {
            machine,
            sink,
            workers,
            inside: AtomicUsize::new(0),
            store: Arc::default(),
            draining: AtomicBool::new(false),
            closing: Arc::default(),
        })
    }

    /// Puts a new machine in place. Requests inside finish with the old one.
    pub fn swap(&self, machine: Machine) {
        self.machine.store(Arc::new(machine));
    }

    /// The machine in place.
    pub fn machine(&self) -> Arc<Machine> {
        self.machine.load_full()
    }

    /// Whether new calls can be answered.
    pub fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.machine.load().readiness.ready()
    }

    /// From now on `/ready` says no.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends what is still inside: streams with an error event, the rest with a 503.
    pub fn close(&self) {
        self.closing.say();
    }

    /// Requests inside.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Wakes whoever polls it when those inside must leave. Whoever runs [`handle`](Self::handle) must be woken by it.
    pub(crate) fn closing(&self) -> OwnedNotified {
        self.closing.listen()
    }

    /// Answers one request. Never fails: what goes wrong is an answer too. Dropping the future, or the answer's
    /// body before its end, means that the client has left.
    pub async fn handle<B: Arriving>(self: Arc<Self>, head: Parts, body: B, peer: &Peer) -> Response<Outgoing> {
        let machine = self.machine.load_full();
        let mut said = Said::read(&head.headers, &machine.forward);
        let address = peer.address.map(|address| said.origin(address, &machine.proxies));
        let mut visit = Visit::begin(&head, said.request_id, address, Arc::clone(&self.sink), self.enter());
        let answered = {
            let mut answer = pin!(self.answer(&machine, (&head, &mut said, peer), body, &mut visit));
            std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Pending if self.closing.said() => Poll::Ready(Err(stopping())),
                answered => answered,
            })
            .await
        };
        answered.unwrap_or_else(|error| head::refuse(&machine, &error, visit))
    }

    async fn answer<B: Arriving>(
        &self,
        machine: &Machine,
        (head, said, peer): (&Parts, &mut Said<'_>, &Peer),
        body: B,
        visit: &mut Visit,
    ) -> Result<Response<Outgoing>> {
        if head.extensions.get::<FramedTwice>().is_some() {
            return Err(framed_twice());
        }
        let target = route::find(&head.method, head.uri.path(), &machine.services);
        if let Ok(Target::Health) = target {
            return Ok(head::plain(StatusCode::OK, "{\"status\":\"ok\"}", visit.leave()));
        }
        if let Ok(Target::Ready) = target {
            let (status, text) = if self.ready() {
                (StatusCode::OK, "{\"status\":\"ready\"}")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"not ready\"}")
            };
            return Ok(head::plain(status, text, visit.leave()));
        }
        let directory = machine.register.directory_full();
        let entry = Entry { machine, directory: &directory, head, said, peer, target: target.as_ref().ok(), visit };
        if let Some(answer) = machine.chain.enter(entry).await? {
            return Ok(answer);
        }
        match target? {
            Target::Models => Ok(head::json(machine, route::models(machine, visit), visit.leave())),
            Target::Model(name) => Ok(head::json(machine, route::model(machine, visit, &name)?, visit.leave())),
            Target::Call(operation) => self.call(machine, said, body, operation, visit).await,
            Target::Service(service) => self.service(machine, (head, said), body, &service, visit).await,
            Target::Health | Target::Ready => Err(Error::new(Kind::Internal, Origin::Gateway, "Answered already.")),
        }
    }

    async fn call<B: Arriving>(
        &self,
        machine: &Machine,
        said: &mut Said<'_>,
        body: B,
        operation: Operation,
        visit: &mut Visit,
    ) -> Result<Response<Outgoing>> {
        visit.operation = Some(operation);
        let (bytes, held) = arrival::read(said.content_length, body, &machine.limits, &self.store).await?;
        visit.held = Some(held);
        visit.received = bytes.len() as u64;
        machine.chain.body(visit, &bytes)?;
        let call = arrival::understand(bytes, arrival::envelope(said, operation), &*self.workers).await?;
        // A name nobody serves is not kept: it is the client's text, and metrics are labelled with names.
        let known = machine.roster.models.get(&call.model).filter(|model| !model.service);
        visit.model = known.map(|model| model.name.clone());
        visit.stream = call.stream;
        if known.is_none() {
            return Err(route::unknown_model(call.model.as_str()));
        }
        self.pass_on(machine, said, call, visit).await
    }

    /// A request to a plain service.
    async fn service<B: Arriving>(
        &self,
        machine: &Machine,
        (head, said): (&Parts, &mut Said<'_>),
        body: B,
        service: &Service,
        visit: &mut Visit,
    ) -> Result<Response<Outgoing>> {
        visit.operation = Some(Operation::Service);
        visit.model = Some(service.model.clone());
        let (bytes, held) = arrival::read(said.content_length, body, &machine.limits, &self.store).await?;
        visit.held = Some(held);
        visit.received = bytes.len() as u64;
        machine.chain.body(visit, &bytes)?;
        let anybody = Caller::anonymous();
        let caller = visit.caller.as_ref().unwrap_or(&anybody);
        let plain = service::plain(head, service, caller, visit.address);
        let call = arrival::plain(bytes, plain, service.model.clone(), said);
        self.pass_on(machine, said, call, visit).await
    }

    /// Takes a call past its gates and to whoever answers it.
    async fn pass_on(
        &self,
        machine: &Machine,
        said: &Said<'_>,
        call: Call,
        visit: &mut Visit,
    ) -> Result<Response<Outgoing>> {
        let known = machine.roster.models.get(&call.model);
        let caller = visit.caller.clone().unwrap_or_else(Caller::anonymous);
        if !caller.terms.models.allows(&call.model) {
            return Err(route::not_allowed(&call.model));
        }
        let call = machine.chain.call(machine, known.map(|model| &**model), &caller.terms, visit, call)?;
        let ctx = context(said, visit, caller, known.and_then(|model| model.priority))?;
        visit.ctx = Some(ctx.clone());
        let reply: Reply = machine.core.serve(&ctx, call).await?;
        Ok(head::reply(machine, reply, visit.leave(), Arc::clone(&self.closing)))
    }

    fn enter(self: &Arc<Self>) -> Inside {
        self.inside.fetch_add(1, Ordering::Relaxed);
        Inside(Arc::clone(self))
    }
}

impl Gauges for Door {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let mut show = |name, help, value| to(Sample { name, help, counter: false, labels: Vec::new(), value });
        show("sluice_requests_in_flight", "Requests inside, streams included.", self.inside() as f64);
        show("sluice_ready", "1 while new calls can be answered.", f64::from(u8::from(self.ready())));
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

fn context(said: &Said<'_>, visit: &Visit, caller: Caller, model: Option<Priority>) -> Result<Ctx> {
    let deadline = arrival::deadline(said.deadline)?.map(|span| visit.started + span);
    let priority = caller.terms.priority(arrival::priority(said.priority)?, model);
    let explain = arrival::explain(said.explain, &caller)?;
    let tag = arrival::tag(said.tag)?;
    let (id, started) = (visit.id.clone(), visit.started);
    Ok(Ctx::new(ctx::Facts {
        id,
        caller,
        priority,
        started,
        asked: now(),
        deadline,
        explain,
        tag,
        budgeted: visit.budgeted,
    }))
}

/// Marks a request whose head gives its body two lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FramedTwice;

fn framed_twice() -> Error {
    let mut error =
        Error::invalid(None, "The request has both `Transfer-Encoding` and `Content-Length`: send one of them.");
    error.cause = "framed_twice".into();
    error
}

pub(crate) fn stopping() -> Error {
    Error::new(Kind::Unavailable, Origin::Gateway, "Sluice is stopping and could not wait for this answer any longer.")
        .after(std::time::Duration::from_secs(1))
}

/// Now, for those who must not read clocks elsewhere.
fn now() -> Moment {
    Moment::now()
}
