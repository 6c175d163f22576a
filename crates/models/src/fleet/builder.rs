//! How a fleet is put together from a config, over what earlier ones have left.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use kernel::fleet::{Deployment, Model, Roster};
use kernel::{InstanceId, ModelName, Node, Version, kind, random};

use super::group::Group;
use crate::balance::{self, Balance};
use crate::endpoint::Endpoint;
use crate::instance::{Instance, Timeouts, Vitals};
use crate::load::Sampling;
use crate::provider;
use crate::settings::{InstanceSettings, ModelSettings, NodeSettings, VersionSettings};

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) vitals: HashMap<u64, Weak<Vitals>>,
    pub(super) nodes: HashMap<String, Weak<Node>>,
    /// By deployment and kind.
    pub(super) balances: HashMap<(u64, &'static str), Weak<dyn Balance>>,
}

/// Puts a fleet together while the config is read.
pub(super) struct Builder<'a> {
    pub(super) known: &'a mut Known,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) instances: Vec<Arc<Instance>>,
    pub(super) groups: Vec<Group>,
    pub(super) roster: Roster,
}

// === impl Builder ===

impl Known {
    pub(super) fn node(&mut self, settings: &NodeSettings) -> Arc<Node> {
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
    pub(super) fn model(&mut self, model: &ModelSettings) {
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
                middleware: model.middleware.as_ref().map(|list| list.as_slice().into()),
                service: model.provider.0 == provider::SERVICE.name,
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
        let make = provider::named(&model.provider.0).build.make;
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
