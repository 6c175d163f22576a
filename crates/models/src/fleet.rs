//! All instances of all models under one config, and the step that chooses among them.

mod group;
#[cfg(test)]
mod nginx;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kernel::error::Kind;
use kernel::fleet::{Ask, Choice, Choose, Deployment, Model, Roster, Seen};
use kernel::health::Readiness;
use kernel::sight::{Gauges, Sample};
use kernel::{
    Attempt, Ctx, Error, InstanceId, ModelName, Moment, Node, Note, Origin, Placed, Serve, Serving, Tokens, Version,
    kind, random,
};
use tokio::task::JoinSet;

use self::group::Group;
use crate::balance::{self, Balance};
use crate::endpoint::Endpoint;
use crate::health::{Standing, active};
use crate::instance::{Instance, Timeouts, Vitals};
use crate::load::{Sampling, Told, sampler};
use crate::provider;
use crate::settings::{InstanceSettings, ModelSettings, NodeSettings, VersionSettings};

/// What outlives configs, for as long as a fleet or a call still uses it: the vitals of every instance, by how it is
/// reached, what is out of every node, by its name, and what balances remember.
#[derive(Debug, Default)]
pub struct State(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    vitals: HashMap<u64, Weak<Vitals>>,
    nodes: HashMap<String, Weak<Node>>,
    /// By deployment and kind.
    balances: HashMap<(u64, &'static str), Weak<dyn Balance>>,
}

/// The machines behind one config.
pub struct Fleet {
    instances: Vec<Arc<Instance>>,
    groups: Vec<Group>,
    nodes: Vec<Arc<Node>>,
    roster: Arc<Roster>,
    /// Active checks and samplers; they end with the fleet.
    checks: Mutex<JoinSet<()>>,
}

/// Puts a fleet together while the config is read.
struct Builder<'a> {
    known: &'a mut Known,
    nodes: Vec<Arc<Node>>,
    instances: Vec<Arc<Instance>>,
    groups: Vec<Group>,
    roster: Roster,
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

    fn largest(&self, attempt: &Attempt) -> Option<Tokens> {
        self.groups.get(attempt.deployment.index)?.largest()
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
            if let Some(room) = instance.vitals.slots.room() {
                let tokens = instance.vitals.slots.tokens();
                show("sluice_instance_kv_tokens", "Tokens its KV cache holds.", false, room as f64);
                show("sluice_instance_kv_tokens_used", "Tokens reserved there by calls.", false, tokens as f64);
            }
            for (name, help, value) in instance.told(now).iter().flat_map(Told::gauges) {
                show(name, help, false, value);
            }
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
        for node in &self.nodes {
            for (amount, out) in node.stock() {
                let labels = || vec![("node", node.name().to_string()), ("resource", amount.name.to_string())];
                let mut show = |name, help, milli: u64| {
                    to(Sample { name, help, counter: false, labels: labels(), value: milli as f64 / 1000.0 });
                };
                show("sluice_node_resources", "What a node has of a resource.", amount.milli);
                show("sluice_node_resources_used", "What calls have taken of it.", out);
            }
        }
    }
}

// === impl Builder ===

impl Known {
    fn node(&mut self, settings: &NodeSettings) -> Arc<Node> {
        let has = settings.amounts();
        let known = self.nodes.get(&settings.name).and_then(Weak::upgrade);
        let node = known.unwrap_or_else(|| Node::new(settings.name.as_str(), &[]));
        node.set(&has);
        self.nodes.insert(settings.name.clone(), Arc::downgrade(&node));
        node
    }

    /// The deployment's balance of this kind: the one it had, so that a new config does not make it forget.
    fn balance(&mut self, label: u64, name: &str) -> Arc<dyn Balance> {
        let kind = kind::find(balance::KINDS, name).unwrap_or(&balance::DEFAULT);
        let known = self.balances.get(&(label, kind.name)).and_then(Weak::upgrade);
        let balance = known.unwrap_or_else(|| (kind.build)().into());
        self.balances.insert((label, kind.name), Arc::downgrade(&balance));
        balance
    }
}

impl Builder<'_> {
    fn model(&mut self, model: &ModelSettings) {
        let name = ModelName::new(model.model_name.as_str());
        let deployments = model.versions().iter().map(|version| self.deployment(model, &name, version)).collect();
        self.roster.models.insert(
            name.clone(),
            Arc::new(Model {
                name,
                deployments,
                timeout: model.timeout_ms.duration(),
                attempts_max: model.retry.attempts_max,
                retry_percent: model.retry.budget_percent,
                retry_min: model.retry.budget_min,
                priority: model.priority,
            }),
        );
    }

    fn deployment(&mut self, model: &ModelSettings, name: &ModelName, version: &VersionSettings) -> Arc<Deployment> {
        let first = self.instances.len();
        let ids: Vec<InstanceId> = (first..first + version.instances.len()).map(|at| InstanceId(at as u32)).collect();
        let deployment = Arc::new(Deployment {
            index: self.groups.len(),
            model: name.clone(),
            version: Version::new(version.version.as_str()),
            weight: version.weight,
            instances: ids.clone(),
            names: version.instances.iter().enumerate().map(|(nth, one)| name_of(model, one, nth)).collect(),
            label: format!("{}@{}", model.model_name, version.version).into(),
        });
        for (at, instance) in version.instances.iter().enumerate() {
            let same =
                |other: &&InstanceSettings| (&other.endpoint, &other.name) == (&instance.endpoint, &instance.name);
            let nth = version.instances.iter().take(at).filter(same).count();
            let instance = self.instance(model, version, (instance, at, nth), &deployment);
            self.instances.push(instance);
        }
        let members = ids.into_iter().zip(self.instances.iter().skip(first).cloned()).collect();
        let label = random::hash(deployment.label.as_bytes());
        let balance = self.known.balance(label, &model.balance.0);
        self.groups.push(Group { label, members, balance, panic_percent: model.health.panic_percent });
        deployment
    }

    fn instance(
        &mut self,
        model: &ModelSettings,
        version: &VersionSettings,
        (settings, at, nth): (&InstanceSettings, usize, usize),
        deployment: &Arc<Deployment>,
    ) -> Arc<Instance> {
        let endpoint = settings.endpoint.as_deref().and_then(|text| Endpoint::parse(text).ok());
        let limit = settings.max_concurrency.or(model.max_concurrency);
        let reach = model.reach(&version.version, settings, nth);
        let load = Sampling::of(model, settings, endpoint.as_ref());
        let made = || Arc::new(Vitals::new(limit, endpoint.as_ref()));
        let vitals = self.known.vitals.get(&reach).and_then(Weak::upgrade).unwrap_or_else(made);
        let found_out = model.adaptive.as_ref().map(|rules| vitals.adaptive.begin(rules));
        if found_out.is_none() {
            vitals.adaptive.forget();
        }
        vitals.slots.set_limit(found_out.or(limit));
        vitals.slots.set_room(settings.kv_tokens.or(model.kv_tokens));
        self.known.vitals.insert(reach, Arc::downgrade(&vitals));
        let upstream = version.upstream_model.clone().or_else(|| model.upstream_model.clone());
        let make =
            kind::find(provider::KINDS, &model.provider.0).map_or(provider::DEFAULT.build.make, |row| row.build.make);
        Arc::new(Instance {
            name: deployment.names.get(at).cloned().unwrap_or_else(|| name_of(model, settings, at)),
            deployment: Arc::clone(deployment),
            upstream_model: upstream
                .filter(|upstream| *upstream != model.model_name)
                .map(|upstream| wire::openai::request::quoted(&upstream)),
            endpoint,
            identity: reach,
            weight: settings.weight,
            node: self.nodes.iter().find(|node| Some(&**node.name()) == settings.node.as_deref()).cloned(),
            needs: settings.needs.amounts(),
            call_needs: model.call_needs.amounts(),
            timeouts: Timeouts {
                connect: model.connect_timeout_ms.duration(),
                first_byte: model.first_byte_timeout_ms.map(|span| span.duration()),
                idle: model.idle_timeout_ms.duration(),
            },
            rules: model.health.clone(),
            adaptive: model.adaptive.clone(),
            load,
            alone: version.instances.len() == 1,
            force_usage: model.force_usage,
            limits: (&model.pool).into(),
            warm: model.pool.warm,
            provider: make(model, settings),
            vitals,
        })
    }
}

/// What an instance is called: its name, else its host and port, else what answers.
fn name_of(model: &ModelSettings, settings: &InstanceSettings, at: usize) -> Arc<str> {
    let endpoint = settings.endpoint.as_deref().and_then(|text| Endpoint::parse(text).ok());
    let named = settings.name.clone().or_else(|| endpoint.map(|endpoint| endpoint.authority.to_string()));
    named.unwrap_or_else(|| format!("{}-{at}", model.provider.0)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adaptive::Awaited;
    use crate::settings::AdaptiveSettings;

    fn fleet(state: &State, adaptive: Option<AdaptiveSettings>, max_concurrency: Option<u32>) -> Fleet {
        let mut model = ModelSettings::short("m", Some("http://127.0.0.1:1".into()), "openai");
        (model.adaptive, model.max_concurrency) = (adaptive, max_concurrency);
        Fleet::new(&[model], &[], state)
    }

    fn slots(fleet: &Fleet) -> Option<f64> {
        let mut found = None;
        fleet.show(&mut |sample| {
            if sample.name == "sluice_instance_slots" {
                found = Some(sample.value);
            }
        });
        found
    }

    #[test]
    fn a_limit_found_out_survives_reloads_and_is_forgotten_when_one_is_given() {
        let (state, rules) = (State::default(), AdaptiveSettings::default());
        let first = fleet(&state, Some(rules.clone()), None);
        assert_eq!(slots(&first), Some(16.0));
        first.instances[0].failed("status_503", None);
        assert_eq!(slots(&first), Some(12.0));
        let second = fleet(&state, Some(AdaptiveSettings { initial: 100, ..rules.clone() }), None);
        assert_eq!(slots(&second), Some(12.0));
        let third = fleet(&state, Some(AdaptiveSettings { min: 14, ..rules.clone() }), None);
        assert_eq!(slots(&third), Some(14.0), "new bounds hold at once");
        let given = fleet(&state, None, Some(3));
        // A call of an older config ends.
        second.instances[0].succeeded(Awaited::FirstPiece, Duration::from_millis(5), Moment::now());
        assert_eq!(slots(&given), Some(3.0));
        assert_eq!(slots(&fleet(&state, None, None)), None);
        assert_eq!(slots(&fleet(&state, Some(rules), None)), Some(16.0));
    }

    #[tokio::test]
    async fn a_429_on_the_wire_lowers_the_limit() {
        let mut model = ModelSettings::short("m", None, "sim");
        model.adaptive = Some(AdaptiveSettings::default());
        model.sim = Some(sim::Settings { models: Vec::new(), rate_limit_rate: 1.0, ..sim::Settings::default() });
        let fleet = Fleet::new(&[model], &[], &State::default());
        let body = bytes::Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#);
        let envelope = wire::openai::request::Envelope {
            operation: kernel::Operation::Chat,
            session: None,
            forward: Arc::new([]),
        };
        let call = wire::openai::request::read(body, envelope).unwrap();
        let deployment = Arc::clone(&fleet.roster.models[&call.model].deployments[0]);
        let deadline = Moment::now() + Duration::from_secs(10);
        let attempt = Attempt { call, deployment, tried: Vec::new(), deadline };
        let facts = kernel::ctx::Facts {
            id: kernel::RequestId::new("r"),
            caller: kernel::Caller::anonymous(),
            priority: kernel::Priority::Normal,
            started: Moment::now(),
            deadline: None,
            explain: false,
        };
        let ctx = Ctx::new(facts);
        let tenant = kernel::TenantId::new("t");
        let ask = Ask { tenant: &tenant, tokens: kernel::Tokens(0), insists: false };
        let Choice::Taken(instance, permit) = fleet.choose(&attempt, &ask, &mut |_| {}) else { panic!("it is idle") };
        assert!(fleet.serve(&ctx, Placed { attempt, instance, permit }).await.is_err());
        assert_eq!(slots(&fleet), Some(12.0));
    }

    #[test]
    fn quick_answers_under_full_use_let_more_calls_in() {
        let fleet = fleet(&State::default(), Some(AdaptiveSettings::default()), None);
        let instance = &fleet.instances[0];
        let (mut now, mut permits) = (Moment::from_micros(1_000_000_000), Vec::new());
        for _ in 0..400 {
            let room = kernel::Room { ceiling: u32::MAX, ..kernel::Room::default() };
            permits.extend(std::iter::from_fn(|| instance.vitals.slots.try_take(room)));
            now = now + Duration::from_millis(100);
            instance.succeeded(Awaited::FirstPiece, Duration::from_millis(50), now);
        }
        assert!(slots(&fleet).unwrap() > 30.0, "{:?}", slots(&fleet));
    }
}
