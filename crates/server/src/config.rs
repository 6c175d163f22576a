//! The config as a whole: each crate's section, and what only makes sense across them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use access::credential::{IntrospectionSettings, IssuerSettings};
use access::{
    AdminSettings, Auth, CorsSettings, GateName, IpFilterSettings, LimitSettings, ListenSettings, Service, Services,
    gate,
};
use infrastructure::config::{Document, Faults};
use infrastructure::store::StorageSettings;
use infrastructure::telemetry;
use kernel::settings::{Findings, Millis};
use kernel::{ModelName, Price};
use models::ModelSettings;
use models::settings::{NodeSettings, ServiceSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenancy::tokens::Tokenizers;
use tenancy::{Declared, PlanSettings, TenantSettings, catalogue};

use crate::environment;

/// The port of the data plane where none is given.
const PORT: u16 = 8080;

/// `sluice.yaml`. Every key has a default; unknown keys are errors.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where Sluice listens.
    pub(crate) listen: ListenSettings,
    /// The control plane's API.
    pub(crate) admin: AdminSettings,
    /// Whether callers must show a key. Default: `required` as soon as a tenant has one; without any, calls are open
    /// and only loopback is served.
    pub(crate) auth: Option<Auth>,
    /// What every request passes, in order. Default: every gate, as listed.
    pub(crate) middleware: Option<Vec<GateName>>,
    /// Which web pages may call from a browser.
    pub(crate) cors: Option<CorsSettings>,
    /// Who may come in, by address.
    pub(crate) ip_filter: IpFilterSettings,
    /// Addresses of proxies whose `x-forwarded-for` counts, as in `10.0.0.0/8`.
    pub(crate) proxies: Vec<String>,
    /// Addresses of services of ours whose `x-tenant-id` counts without any credential, as in `10.0.0.7`: whoever can
    /// send from there can be any tenant. Their `x-forwarded-for` counts too.
    pub(crate) trusted_peers: Vec<String>,
    /// How the issuers that tenants trust are asked for their keys.
    pub(crate) issuers: IssuerSettings,
    /// An authorization server to ask about tokens that say nothing themselves.
    pub(crate) introspection: Option<IntrospectionSettings>,
    /// What clients may send.
    pub(crate) limits: LimitSettings,
    /// The models, with the backends that answer for them.
    pub(crate) models: Vec<ModelSettings>,
    /// Plain HTTP services behind the same door.
    pub(crate) services: Vec<ServiceSettings>,
    /// The machines that instances are on, and what they have.
    pub(crate) nodes: Vec<NodeSettings>,
    /// Who runs next, and who waits how long.
    pub(crate) scheduling: scheduling::Settings,
    /// What tenants are promised.
    pub(crate) plans: Vec<PlanSettings>,
    /// What models cost.
    pub(crate) prices: Vec<Price>,
    /// Where tenants, keys and what they owe are kept.
    pub(crate) storage: StorageSettings,
    /// Who may call. The admin API and `sluice tenant` manage further ones.
    pub(crate) tenants: Vec<TenantSettings>,
    /// Logs.
    pub(crate) telemetry: telemetry::Settings,
    /// Stopping.
    pub(crate) shutdown: ShutdownSettings,
}

/// What happens on SIGTERM and SIGINT.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownSettings {
    /// For so long `/ready` says no while calls are still accepted, so that load balancers can turn away.
    pub(crate) delay_ms: Millis,
    /// For so long calls may finish; then they end with an error.
    pub(crate) grace_ms: Millis,
}

/// Addresses given on the command line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Listen {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
}

/// A config, and which one it is.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// A fingerprint of its values.
    pub(crate) print: String,
    /// Tokenizers of the models that have their own, read from the files that it names.
    pub(crate) tokenizers: Tokenizers,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { delay_ms: Millis(0), grace_ms: Millis(30_000) }
    }
}

impl Config {
    /// Reads and validates a file whole; `listen` are the addresses that replace its own, and of the `known` tokenizers
    /// those are kept that have not changed.
    pub(crate) fn load(path: &Path, listen: &Listen, data_dir: &Path, known: &Tokenizers) -> Result<Loaded, Faults> {
        let document = Document::open(path, &environment::variable)?;
        let mut config: Self = document.read()?;
        config.listen_at(listen);
        let mut findings = Findings::default();
        config.validate(data_dir, &mut findings);
        let tokenizers = Tokenizers::read(config.tokenizers(), known, &mut |i, message| {
            findings.add(format!("models[{i}].tokenizer"), message);
        });
        let faults = findings.0.into_iter().map(|finding| document.fault(&finding.path, finding.message)).collect();
        document.refuse(faults)?;
        Ok(Loaded { config, print: document.fingerprint(), tokenizers })
    }

    /// Replaces addresses.
    pub(crate) fn listen_at(&mut self, listen: &Listen) {
        self.listen.http = listen.http.or(self.listen.http);
        self.listen.admin = listen.admin.unwrap_or(self.listen.admin);
    }

    /// The data plane's address.
    pub(crate) fn address(&self) -> SocketAddr {
        let guarded = self.auth.is_some() || self.has_keys();
        let ip = if guarded { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        self.listen.http.unwrap_or(SocketAddr::new(IpAddr::V4(ip), PORT))
    }

    /// Models with tokenizers of their own, each with its place in the list.
    fn tokenizers(&self) -> impl Iterator<Item = (usize, &str, &Path)> {
        let models = self.models.iter().enumerate();
        models.filter_map(|(i, model)| Some((i, model.model_name.as_str(), model.tokenizer.as_deref()?)))
    }

    /// The models and, as if they were some, the services.
    pub(crate) fn all_models(&self) -> Vec<ModelSettings> {
        self.models.iter().cloned().chain(self.services.iter().map(ServiceSettings::as_model)).collect()
    }

    /// The services by path; what is wrong with a path is told with the service's place.
    pub(crate) fn doors(&self, wrong: &mut dyn FnMut(usize, String)) -> Services {
        let mut doors = Services::default();
        for (i, service) in self.services.iter().enumerate() {
            let methods = service.methods.iter().filter_map(|method| method.parse().ok()).collect();
            let model = ModelName::new(service.model_name());
            let door = Service { model, methods, pass_credentials: service.pass_credentials };
            if let Err(message) = doors.add(&service.path, door) {
                wrong(i, message);
            }
        }
        doors
    }

    fn validate_chain(&self, findings: &mut Findings) {
        if let Some(names) = &self.middleware {
            gate::validate(names, self.auth, self.has_keys(), "middleware", findings);
        }
        let of_models = self.models.iter().map(|model| &model.middleware).enumerate();
        let of_services = self.services.iter().map(|service| &service.middleware).enumerate();
        let of_tenants = self.tenants.iter().map(|tenant| &tenant.middleware).enumerate();
        let all = of_models.map(|own| ("models", own)).chain(of_services.map(|own| ("services", own)));
        for (kind, (i, own)) in all.chain(of_tenants.map(|own| ("tenants", own))) {
            if let Some(names) = own {
                gate::validate_own(names, &format!("{kind}[{i}].middleware"), findings);
            }
        }
        if let Some(cors) = &self.cors {
            cors.validate("cors", findings);
        }
        self.ip_filter.validate("ip_filter", findings);
        gate::ip_filter::networks(&self.proxies, "proxies", findings);
        gate::ip_filter::networks(&self.trusted_peers, "trusted_peers", findings);
    }

    fn has_keys(&self) -> bool {
        let any = |tenant: &TenantSettings| {
            !tenant.keys.is_empty() || !tenant.jwt.is_empty() || !tenant.certificates.is_empty()
        };
        self.tenants.iter().any(any)
    }

    /// What the config declares for the register.
    pub(crate) fn declared(&self) -> Declared {
        Declared { tenants: self.tenants.clone(), plans: self.plans.clone(), prices: self.prices.clone() }
    }

    /// What the schema cannot say; `data_dir` is where a relative file of the store is.
    pub(crate) fn validate(&self, data_dir: &Path, findings: &mut Findings) {
        let unguarded = self.auth.is_none() && !self.has_keys() && !self.address().ip().is_loopback();
        findings.require(
            !unguarded,
            "listen.http",
            "would serve everyone who can reach it without a key: add keys under `tenants`, or say `auth: none` if that is meant",
        );
        self.limits.validate("limits", findings);
        self.validate_chain(findings);
        self.admin.validate("admin", findings);
        let tenants: Vec<&str> = self.tenants.iter().map(|tenant| tenant.id.as_str()).collect();
        self.scheduling.validate("scheduling", &tenants, findings);
        NodeSettings::validate_all(&self.nodes, &self.models, findings);
        findings.require(self.listen.threads != Some(0), "listen.threads", "must be at least 1");
        let served = !self.models.is_empty() || !self.services.is_empty();
        findings.require(served, "models", "is empty: name at least one model, or a service under `services`");
        let mut names = HashSet::new();
        for (i, model) in self.models.iter().enumerate() {
            model.validate(&format!("models[{i}]"), findings);
            findings.require(
                names.insert(model.model_name.clone()),
                format!("models[{i}].model_name"),
                format!("`{}` is listed twice", model.model_name),
            );
        }
        for (i, service) in self.services.iter().enumerate() {
            let path = format!("services[{i}]");
            service.validate(&path, findings);
            let (name, other) = (service.model_name(), "names a service that is there already: give it another `name`");
            findings.require(names.insert(name), format!("{path}.name"), other);
        }
        self.doors(&mut |i, message| findings.add(format!("services[{i}].path"), message));
        let mut plans = HashSet::new();
        for (i, plan) in self.plans.iter().enumerate() {
            plan.validate(&format!("plans[{i}]"), &mut plans, findings);
        }
        for (i, price) in self.prices.iter().enumerate() {
            catalogue::validate(price, &format!("prices[{i}]"), findings);
        }
        self.storage.validate("storage", data_dir, findings);
        self.issuers.validate("issuers", findings);
        if let Some(introspection) = &self.introspection {
            introspection.validate("introspection", findings);
        }
        tenancy::identity::validate_all(&self.tenants, "tenants", findings);
        let shown = self.listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let mut ids = HashSet::new();
        for (i, tenant) in self.tenants.iter().enumerate() {
            tenant.validate(&format!("tenants[{i}]"), &self.plans, &mut ids, findings);
            let keys = tenant.keys.iter().all(|key| key.certificates.is_empty());
            let used = (keys && tenant.certificates.is_empty()) || shown;
            let message = "means nothing without `listen.tls.client_ca`: clients are not asked for certificates";
            findings.require(used, format!("tenants[{i}].certificates"), message);
        }
        if let Some(tls) = &self.listen.tls {
            tls.validate("listen.tls", findings);
        }
    }
}
