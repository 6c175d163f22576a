//! The machine, one line per stage.
//!
//! A call goes from the door to the orchestrator (what to try), to the meter (what it costs), to the scheduler (when and
//! where), to the fleet (who answers), and the reply comes back through the same calls. A reload builds a new machine over the same [`State`].

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use access::{Chain, Cors, Credentials, IpFilter, Machine};
use kernel::Network;
use kernel::fetch::Fetch;
use kernel::fleet::Roster;
use kernel::health::Readiness;
use kernel::settings::Secret;
use kernel::sight::{Gauges, Sample};
use models::Fleet;
use orchestration::Orchestrator;
use scheduling::Scheduler;
use tenancy::{Limiter, Meter, Register};

use crate::config::Loaded;
use crate::money::Money;

/// What outlives configs: slots, health and connections of instances; calls that wait; issuers' keys and nonces; what is
/// taken of limits, and what is spent.
pub(crate) struct State {
    pub(crate) fleet: models::State,
    pub(crate) queues: scheduling::State,
    pub(crate) credentials: Arc<access::credential::State>,
    pub(crate) limits: Arc<Limiter>,
    pub(crate) money: Money,
}

/// The stages that somebody must look after while they run.
pub(crate) struct Stages {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) scheduler: Arc<Scheduler<Fleet>>,
}

/// Request headers a backend may see.
const FORWARD: &[&str] = &["traceparent", "tracestate", "openai-beta"];

impl State {
    /// Nothing has happened yet.
    pub(crate) fn new(credentials: access::credential::State, money: Money) -> Self {
        Self {
            fleet: models::State::default(),
            queues: scheduling::State::default(),
            credentials: Arc::new(credentials),
            limits: Arc::default(),
            money,
        }
    }
}

/// Builds the machine of a config.
pub(crate) fn assemble(
    loaded: &Loaded,
    generation: u64,
    state: &State,
    register: &Arc<Register>,
    admin_token: Option<Secret>,
    fetch: &Arc<dyn Fetch>,
) -> (Machine, Stages) {
    let config = &loaded.config;
    let fleet = Arc::new(Fleet::new(&config.all_models(), &config.nodes, &state.fleet));
    let roster: Arc<Roster> = fleet.roster();
    let scheduler = Arc::new(Scheduler::new(&config.scheduling, &state.queues, fleet.clone(), &roster, fleet.clone()));
    state.money.till.tokenizers.store(Arc::new(loaded.tokenizers.clone()));
    tenancy::tokens::warm(roster.models.keys().map(|model| model.as_str().into()));
    let meter = Arc::new(Meter::new(scheduler.clone(), Arc::clone(&state.money.till)));
    let core = Arc::new(Orchestrator::new(&roster, meter));
    // What is judged before a call comes here stands in the chain of gates; further stages around the core are layered here.
    let machine = Machine {
        version: format!("{generation}-{}", loaded.print).into(),
        core,
        roster,
        register: Arc::clone(register),
        auth: config.auth,
        limiter: Arc::clone(&state.limits),
        chain: Chain::new(config.middleware.as_deref()),
        services: config.doors(&mut |_, _| {}),
        cors: config.cors.as_ref().map(Cors::new),
        ip_filter: IpFilter::new(&config.ip_filter),
        proxies: config.proxies.iter().chain(&config.trusted_peers).filter_map(|text| Network::parse(text)).collect(),
        credentials: Credentials::new(
            &config.issuers,
            config.introspection.as_ref(),
            &config.trusted_peers,
            &state.credentials,
            fetch,
        ),
        readiness: Arc::clone(&fleet) as Arc<dyn Readiness>,
        limits: config.limits.clone(),
        admin_token,
        forward: forward(loaded),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    (machine, Stages { fleet, scheduler })
}

fn forward(loaded: &Loaded) -> Vec<&'static str> {
    let simulated = loaded.config.models.iter().any(|model| model.provider.0 == "sim");
    FORWARD.iter().copied().chain(models::sim_headers().filter(|_| simulated)).collect()
}

impl Gauges for Stages {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        self.scheduler.show(to);
        self.fleet.show(to);
    }
}
