//! One instance as this config sees it, over the vitals that outlive configs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kernel::fleet::Deployment;
use kernel::{Amount, Moment, Node, Slots};

use crate::adaptive::{Adaptive, Awaited};
use crate::connection::Inbound;
use crate::endpoint::Endpoint;
use crate::health::{Health, Standing};
use crate::load::{Load, Sampling, Told};
use crate::pool::{Limits, Pool};
use crate::provider::Provider;
use crate::settings::{AdaptiveSettings, HealthSettings};
use crate::timing::PeakEwma;

/// What is known of an instance whatever the config says: who uses it, how it fares, who is connected.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) slots: Slots,
    pub(crate) health: Health,
    pub(crate) timing: PeakEwma,
    pub(crate) load: Load,
    pub(crate) adaptive: Adaptive,
    /// `None` for the simulator, which is no process.
    pub(crate) pool: Option<Pool>,
    /// Whether it was said already that it refuses our credentials.
    pub(crate) refuses_us: AtomicBool,
}

/// One instance under one config.
pub(crate) struct Instance {
    pub(crate) name: Arc<str>,
    pub(crate) deployment: Arc<Deployment>,
    /// The name the backend knows the model by, where it differs, as it stands in JSON.
    pub(crate) upstream_model: Option<Bytes>,
    pub(crate) endpoint: Option<Endpoint>,
    /// Stable over reloads and restarts.
    pub(crate) identity: u64,
    pub(crate) weight: u32,
    /// Where it runs, if that was said.
    pub(crate) node: Option<Arc<Node>>,
    /// What it needs of its node while it has a call at all.
    pub(crate) needs: Vec<Amount>,
    /// What each of its calls needs beside that.
    pub(crate) call_needs: Vec<Amount>,
    pub(crate) timeouts: Timeouts,
    pub(crate) rules: HealthSettings,
    /// How its limit is found out, if it is.
    pub(crate) adaptive: Option<AdaptiveSettings>,
    /// Where it tells its load, if it is to be asked.
    pub(crate) load: Option<Sampling>,
    /// Whether its deployment has no other instance.
    pub(crate) alone: bool,
    pub(crate) force_usage: bool,
    pub(crate) limits: Limits,
    pub(crate) warm: u32,
    pub(crate) provider: Box<dyn Provider>,
    pub(crate) vitals: Arc<Vitals>,
}

/// How long each phase of a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) idle: Duration,
}

impl Vitals {
    pub(crate) fn new(limit: Option<u32>, endpoint: Option<&Endpoint>) -> Self {
        Self {
            slots: Slots::new(limit),
            health: Health::default(),
            timing: PeakEwma::new(),
            load: Load::default(),
            adaptive: Adaptive::default(),
            pool: endpoint.map(|endpoint| Pool::new(endpoint.clone())),
            refuses_us: AtomicBool::new(false),
        }
    }
}

impl Instance {
    /// How it stands, and the part of its slots and weight it may use.
    pub(crate) fn look(&self, now: Moment) -> (Standing, f64) {
        self.vitals.health.look(&self.rules, self.alone, now)
    }

    pub(crate) fn standing(&self, now: Moment) -> Standing {
        self.vitals.health.standing(&self.rules, self.alone, now)
    }

    /// What it said last of its load, if it is asked and that is still worth anything.
    pub(crate) fn told(&self, now: Moment) -> Option<Told> {
        self.load.as_ref().and_then(|sampling| self.vitals.load.told(sampling.interval, now))
    }

    /// A call to it came to a good start, after so long.
    pub(crate) fn succeeded(&self, awaited: Awaited, took: Duration, now: Moment) {
        if let Some(rules) = &self.adaptive {
            self.vitals.adaptive.succeeded(rules, &self.vitals.slots, (awaited, took), now);
        }
        self.vitals.health.succeeded(&self.rules, now);
        self.vitals.timing.observe(took, now);
        if self.vitals.refuses_us.load(Ordering::Relaxed) {
            self.vitals.refuses_us.store(false, Ordering::Relaxed);
        }
    }

    /// An answer of its has been read to its end: the connection may serve again.
    pub(crate) fn give_back(&self, body: &mut Inbound, now: Moment) {
        if let (Some(pool), Some(connection)) = (&self.vitals.pool, body.take_connection()) {
            pool.put(connection, self.limits, now);
        }
    }

    /// It did its work, whatever became of the call.
    pub(crate) fn worked(&self) {
        self.vitals.health.succeeded(&self.rules, Moment::now());
    }

    /// It refused our credentials: said once until it accepts them again.
    pub(crate) fn refused_us(&self, status: u16) {
        self.worked();
        if !self.vitals.refuses_us.swap(true, Ordering::Relaxed) {
            tracing::error!(model = %self.deployment.label, instance = %self.name, status, "the backend refuses our credentials: check api_key");
        }
    }

    /// A call to it failed by its own fault.
    pub(crate) fn failed(&self, cause: &str, rest: Option<Duration>) {
        let now = Moment::now();
        if let Some(rules) = &self.adaptive {
            self.vitals.adaptive.failed(rules, &self.vitals.slots, cause, now);
        }
        let before = self.standing(now);
        self.vitals.health.failed(&self.rules, rest, now);
        self.vitals.timing.observe(crate::timing::FAILURE, now);
        let after = self.standing(now);
        if before == Standing::Usable && after != Standing::Usable {
            tracing::warn!(model = %self.deployment.label, instance = %self.name, cause, standing = after.as_str(), "instance is passed over");
        }
    }
}
