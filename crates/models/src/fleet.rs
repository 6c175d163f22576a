//! All instances of all models under one config, and the step that chooses among them.

mod builder;
mod group;
#[cfg(test)]
mod nginx;
mod shown;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::error::Kind;
use kernel::fleet::{Ask, Choice, Choose, Rooms, Roster, Seen};
use kernel::health::Readiness;
use kernel::{Attempt, Ctx, Error, Moment, Node, Note, Origin, Placed, Serve, Serving, TenantId};
use tokio::task::JoinSet;

use self::builder::{Builder, Known};
use self::group::Group;
use crate::health::{Standing, active};
use crate::instance::Instance;
use crate::load::sampler;
use crate::settings::{ModelSettings, NodeSettings};

/// What outlives configs, for as long as a fleet or a call still uses it: the vitals of every instance, by how it is
/// reached, what is out of every node, by its name, and what balances remember.
#[derive(Debug, Default)]
pub struct State(Mutex<Known>);

/// The machines behind one config.
pub struct Fleet {
    instances: Vec<Arc<Instance>>,
    groups: Vec<Group>,
    nodes: Vec<Arc<Node>>,
    roster: Arc<Roster>,
    /// Active checks and samplers; they end with the fleet.
    checks: Mutex<JoinSet<()>>,
}

// === impl Fleet ===

impl Fleet {
    /// Builds the fleet of a validated config, taking over the vitals of instances that are still there.
    pub fn new(models: &[ModelSettings], nodes: &[NodeSettings], state: &State) -> Self {
        let mut known = state.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.vitals.retain(|_, vitals| vitals.strong_count() > 0);
        known.nodes.retain(|_, node| node.strong_count() > 0);
        known.balances.retain(|_, balance| balance.strong_count() > 0);
        let nodes = nodes.iter().map(|settings| known.node(settings)).collect();
        let (instances, groups, roster) = (Vec::new(), Vec::new(), Roster::default());
        let mut builder = Builder { known: &mut known, nodes, instances, groups, roster };
        models.iter().for_each(|model| builder.model(model));
        Self {
            instances: builder.instances,
            groups: builder.groups,
            nodes: builder.nodes,
            roster: Arc::new(builder.roster),
            checks: Mutex::default(),
        }
    }

    /// The models, as the upper stages may see them.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// Starts the active checks and the sampling of loads on the running runtime. They end when the fleet is dropped.
    pub fn watch(&self) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        for instance in &self.instances {
            match &instance.rules.path {
                Some(path) => drop(checks.spawn(active::watch(Arc::clone(instance), path.clone()))),
                None => instance.vitals.health.unchecked(),
            }
            if instance.load.is_some() {
                checks.spawn(sampler::watch(Arc::clone(instance)));
            }
        }
        let swept = self.instances.clone();
        checks.spawn(async move {
            const SWEEP: Duration = Duration::from_secs(5);
            loop {
                tokio::time::sleep(SWEEP).await;
                let now = Moment::now();
                for instance in &swept {
                    if let Some(pool) = &instance.vitals.pool {
                        pool.sweep(instance.limits, now);
                    }
                }
            }
        });
    }

    /// Ends the active checks: another fleet takes over.
    pub fn unwatch(&self) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Opens connections ahead to every instance; to be run once on each data-plane thread.
    pub async fn warm(&self) {
        for instance in &self.instances {
            if let Some(pool) = &instance.vitals.pool {
                pool.warm(instance.limits, instance.warm, instance.timeouts.connect).await;
            }
        }
    }
}

impl Choose for Fleet {
    fn choose(&self, attempt: &Attempt, ask: &Ask<'_>, witness: &mut dyn FnMut(Seen)) -> Choice {
        match self.groups.get(attempt.deployment.index) {
            Some(group) => group.choose(attempt, ask, Moment::now(), witness),
            None => Choice::Down(None),
        }
    }

    fn rooms(&self, attempt: &Attempt) -> Rooms {
        self.groups.get(attempt.deployment.index).map(|group| group.rooms(attempt)).unwrap_or_default()
    }

    fn prepare(&self, attempt: &Attempt, tenant: &TenantId) {
        if let Some(group) = self.groups.get(attempt.deployment.index) {
            group.prepare(attempt, tenant);
        }
    }
}

impl Readiness for Fleet {
    fn ready(&self) -> bool {
        let now = Moment::now();
        self.instances.iter().any(|instance| instance.standing(now) == Standing::Usable)
    }
}

impl Serve<Placed> for Fleet {
    fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed) -> Serving<'a> {
        let id = placed.instance;
        let Some(instance) = self.instances.get(id.0 as usize) else {
            let error =
                Error::new(Kind::Internal, Origin::Gateway, "A call was placed on an instance that does not exist.");
            return Box::pin(std::future::ready(Err(error)));
        };
        ctx.note(Note::Placed(Arc::clone(&instance.deployment), Arc::clone(&instance.name)));
        // If this call was to probe an instance and its client leaves before the verdict, another call may probe.
        let probe = Probe(instance);
        Box::pin(async move {
            let answer = instance.provider.serve(ctx, placed, instance).await;
            // It has come to its verdict.
            std::mem::forget(probe);
            answer.map_err(|error| {
                ctx.note(Note::Failed(error.cause.as_ref().into()));
                error.at(id)
            })
        })
    }
}

/// A call on its way to its verdict.
struct Probe<'a>(&'a Instance);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.vitals.health.abandoned(&self.0.rules);
    }
}
