//! All instances of all models under one config, and the step that chooses among them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kernel::error::Kind;
use kernel::fleet::{Choice, Choose, Deployment, Model, Roster};
use kernel::health::Readiness;
use kernel::sight::{Gauges, Sample};
use kernel::{Attempt, Ctx, Error, InstanceId, ModelName, Moment, Note, Origin, Placed, Serve, Serving, Version, kind};
use tokio::task::JoinSet;

use crate::balance::{self, Balance, Candidate};
use crate::endpoint::Endpoint;
use crate::health::{Standing, active};
use crate::instance::{Instance, Timeouts, Vitals};
use crate::provider;
use crate::settings::{InstanceSettings, ModelSettings, VersionSettings};

/// What outlives configs: the vitals of every instance, by how it is reached, for as long as a fleet or a call
/// still uses them.
#[derive(Debug, Default)]
pub struct State(Mutex<HashMap<u64, Weak<Vitals>>>);

/// The machines behind one config.
pub struct Fleet {
    instances: Vec<Arc<Instance>>,
    groups: Vec<Group>,
    roster: Arc<Roster>,
    /// Active checks; they end with the fleet.
    checks: Mutex<JoinSet<()>>,
}

/// The instances of one deployment and how one of them is chosen.
struct Group {
    members: Vec<(InstanceId, Arc<Instance>)>,
    balance: Box<dyn Balance>,
    panic_percent: u32,
}

/// Puts a fleet together while the config is read.
#[derive(Default)]
struct Builder {
    instances: Vec<Arc<Instance>>,
    groups: Vec<Group>,
    roster: Roster,
}

// === impl Fleet ===

impl Fleet {
    /// Builds the fleet of a validated config, taking over the vitals of instances that are still there.
    pub fn new(models: &[ModelSettings], state: &State) -> Self {
        let mut builder = Builder::default();
        let mut known = state.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, vitals| vitals.strong_count() > 0);
        models.iter().for_each(|model| builder.model(model, &mut known));
        Self {
            instances: builder.instances,
            groups: builder.groups,
            roster: Arc::new(builder.roster),
            checks: Mutex::default(),
        }
    }

    /// The models, as the upper stages may see them.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// Starts the active checks on the running runtime. They end when the fleet is dropped.
    pub fn watch(&self) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        for instance in &self.instances {
            match &instance.rules.path {
                Some(path) => drop(checks.spawn(active::watch(Arc::clone(instance), path.clone()))),
                None => instance.vitals.health.unchecked(),
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
    fn choose(&self, attempt: &Attempt) -> Choice {
        match self.groups.get(attempt.deployment.index) {
            Some(group) => group.choose(attempt, Moment::now()),
            None => Choice::Down(None),
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

impl Gauges for Fleet {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let now = Moment::now();
        for instance in &self.instances {
            let labels = || {
                vec![
                    ("model", instance.deployment.model.to_string()),
                    ("version", instance.deployment.version.to_string()),
                    ("instance", instance.name.to_string()),
                ]
            };
            let mut show = |name, help, counter, value| to(Sample { name, help, counter, labels: labels(), value });
            let standing = instance.standing(now);
            show(
                "sluice_instance_up",
                "1 while calls may go to the instance.",
                false,
                f64::from(u8::from(standing == Standing::Usable)),
            );
            show(
                "sluice_instance_busy",
                "Calls the instance is answering.",
                false,
                f64::from(instance.vitals.slots.busy()),
            );
            if let Some(limit) = instance.vitals.slots.limit() {
                show("sluice_instance_slots", "Calls the instance may answer at once.", false, f64::from(limit));
            }
            let census = instance.vitals.pool.as_ref().map(|pool| pool.census()).unwrap_or_default();
            show("sluice_pool_idle_connections", "Idle connections kept to the instance.", false, census.idle as f64);
            show("sluice_pool_opened_connections", "Connections opened to the instance.", true, census.opened as f64);
            show(
                "sluice_pool_reused_connections",
                "Calls that went over a kept connection.",
                true,
                census.reused as f64,
            );
            let mut labels = labels();
            labels.push(("standing", standing.as_str().to_owned()));
            to(Sample {
                name: "sluice_instance_standing",
                help: "1 for the instance's present standing.",
                counter: false,
                labels,
                value: 1.0,
            });
        }
    }
}

// === impl Group ===

impl Group {
    /// Usable instances first; all of them when too few are usable; among those with a free slot, whom the
    /// balance picks.
    fn choose(&self, attempt: &Attempt, now: Moment) -> Choice {
        let untried = |id: &InstanceId| !attempt.tried.contains(id);
        let standings: Vec<Standing> = self.members.iter().map(|(_, instance)| instance.standing(now)).collect();
        let count = standings.iter().filter(|standing| **standing == Standing::Usable).count();
        let panic = count * 100 < self.panic_percent as usize * self.members.len();
        let may = |standing: Standing| standing == Standing::Usable || (panic && standing.is_doubt());
        let members = standings.iter().zip(&self.members).enumerate();
        let mut open: Vec<usize> =
            members.filter(|(_, (standing, (id, _)))| may(**standing) && untried(id)).map(|(at, _)| at).collect();
        if open.is_empty() {
            let back =
                self.members.iter().map(|(_, instance)| instance.vitals.health.back_in(&instance.rules, now)).min();
            return Choice::Down(back.filter(|back| !back.is_zero()));
        }
        loop {
            let candidates: Vec<Candidate> = open.iter().filter_map(|at| self.candidate(*at, now)).collect();
            let picked = candidates.get(if candidates.is_empty() {
                0
            } else {
                self.balance.pick(&candidates, attempt.call.affinity, now)
            });
            let Some(index) = picked.map(|candidate| candidate.index) else { return Choice::Busy };
            let Some((id, instance)) = self.members.get(index) else { return Choice::Busy };
            if let Some(permit) = instance.vitals.slots.try_take(ceiling(instance, now)) {
                instance.vitals.health.chosen(&instance.rules, now);
                return Choice::Taken(*id, permit);
            }
            // Somebody else was faster: choose among the others.
            open.retain(|at| *at != index);
        }
    }

    /// The instance as the balance sees it; `None` when it has no free slot.
    fn candidate(&self, index: usize, now: Moment) -> Option<Candidate> {
        let (_, instance) = self.members.get(index)?;
        let (busy, ceiling) = (instance.vitals.slots.busy(), ceiling(instance, now));
        let share = (instance.vitals.health.considered() * instance.vitals.health.ramp(&instance.rules, now)).max(0.01);
        (busy < ceiling).then(|| Candidate {
            index,
            identity: instance.identity,
            weight: f64::from(instance.weight) * share,
            busy,
            limit: instance.vitals.slots.limit(),
            micros: instance.vitals.timing.micros(now),
        })
    }
}

/// Slots it may use now: all, or fewer while it starts slowly.
fn ceiling(instance: &Instance, now: Moment) -> u32 {
    let limit = instance.vitals.slots.limit().unwrap_or(u32::MAX);
    let ramp = instance.vitals.health.ramp(&instance.rules, now);
    if ramp >= 1.0 { limit } else { ((f64::from(limit) * ramp) as u32).max(1) }
}

// === impl Builder ===

impl Builder {
    fn model(&mut self, model: &ModelSettings, known: &mut HashMap<u64, Weak<Vitals>>) {
        let name = ModelName::new(model.model_name.as_str());
        let deployments =
            model.versions().iter().map(|version| self.deployment(model, &name, version, known)).collect();
        self.roster.models.insert(
            name.clone(),
            Arc::new(Model {
                name,
                deployments,
                timeout: model.timeout_ms.duration(),
                attempts_max: model.retry.attempts_max,
                retry_percent: model.retry.budget_percent,
                retry_min: model.retry.budget_min,
            }),
        );
    }

    fn deployment(
        &mut self,
        model: &ModelSettings,
        name: &ModelName,
        version: &VersionSettings,
        known: &mut HashMap<u64, Weak<Vitals>>,
    ) -> Arc<Deployment> {
        let first = self.instances.len();
        let ids: Vec<InstanceId> = (first..first + version.instances.len()).map(|at| InstanceId(at as u32)).collect();
        let deployment = Arc::new(Deployment {
            index: self.groups.len(),
            model: name.clone(),
            version: Version::new(version.version.as_str()),
            weight: version.weight,
            instances: ids.clone(),
            label: format!("{}@{}", model.model_name, version.version).into(),
        });
        for (at, instance) in version.instances.iter().enumerate() {
            let same =
                |other: &&InstanceSettings| (&other.endpoint, &other.name) == (&instance.endpoint, &instance.name);
            let nth = version.instances.iter().take(at).filter(same).count();
            let instance = self.instance(model, version, (instance, nth), &deployment, known);
            self.instances.push(instance);
        }
        let members = ids.into_iter().zip(self.instances.iter().skip(first).cloned()).collect();
        let build = kind::find(balance::KINDS, &model.balance.0).map_or(balance::DEFAULT.build, |row| row.build);
        self.groups.push(Group { members, balance: build(), panic_percent: model.health.panic_percent });
        deployment
    }

    fn instance(
        &mut self,
        model: &ModelSettings,
        version: &VersionSettings,
        (settings, nth): (&InstanceSettings, usize),
        deployment: &Arc<Deployment>,
        known: &mut HashMap<u64, Weak<Vitals>>,
    ) -> Arc<Instance> {
        let endpoint = settings.endpoint.as_deref().and_then(|text| Endpoint::parse(text).ok());
        let limit = settings.max_concurrency.or(model.max_concurrency);
        let reach = model.reach(&version.version, settings, nth);
        let made = || Arc::new(Vitals::new(limit, endpoint.as_ref()));
        let vitals = known.get(&reach).and_then(Weak::upgrade).unwrap_or_else(made);
        vitals.slots.set_limit(limit);
        known.insert(reach, Arc::downgrade(&vitals));
        let named = settings.name.clone().or_else(|| endpoint.as_ref().map(|endpoint| endpoint.authority.to_string()));
        let upstream = version.upstream_model.clone().or_else(|| model.upstream_model.clone());
        let make =
            kind::find(provider::KINDS, &model.provider.0).map_or(provider::DEFAULT.build.make, |row| row.build.make);
        Arc::new(Instance {
            name: named.unwrap_or_else(|| format!("{}-{nth}", model.provider.0)).into(),
            deployment: Arc::clone(deployment),
            upstream_model: upstream
                .filter(|upstream| *upstream != model.model_name)
                .map(|upstream| wire::openai::request::quoted(&upstream)),
            endpoint,
            identity: reach,
            weight: settings.weight,
            timeouts: Timeouts {
                connect: model.connect_timeout_ms.duration(),
                first_byte: model.first_byte_timeout_ms.map(|span| span.duration()),
                idle: model.idle_timeout_ms.duration(),
            },
            rules: model.health.clone(),
            alone: version.instances.len() == 1,
            force_usage: model.force_usage,
            limits: (&model.pool).into(),
            warm: model.pool.warm,
            provider: make(model, settings),
            vitals,
        })
    }
}
