//! A directory in the making: rows of the config and the store brought together, terms that are the same made once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use kernel::store::registry::{KeyRow, PlanRow, Source, TenantRow};
use kernel::{Caller, KeyId, TenantId, Terms, Timestamp};
use serde_json::{Map, Value, json};

use super::Declared;
use super::directory::{Directory, Entry, Tenant};
use super::texts::{Text, Texts};
use crate::directory::{KeySettings, TenantSettings};
use crate::{Identities, Pepper, PlanSettings, key, plan, shape};

/// What was gathered so far.
#[derive(Default)]
pub(super) struct Gathering {
    texts: Texts,
    plans: HashMap<String, PlanSettings>,
    tenants: Vec<Tenant>,
    by_tenant: HashMap<TenantId, u32>,
    entries: Vec<Entry>,
    identities: Identities,
    /// `None` where something cannot be understood.
    terms: HashMap<MadeOf, Option<Arc<Terms>>>,
    /// What could not be understood, for the operator's log.
    pub(super) faults: Vec<String>,
}

/// What terms are made of: plan, tenant's settings, key's settings.
type MadeOf = (Option<Text>, Text, Option<Text>);

/// A key, by whatever it came.
struct Known<'a> {
    id: KeyId,
    hash: [u8; 32],
    terms: &'a str,
    expires: Option<Timestamp>,
}

/// Bound: more faults than this tell nothing more.
const FAULTS_MAX: usize = 20;

impl Gathering {
    /// Begins with what the config declares; `stored` are the plans in force in the store, for tenants of the API.
    pub(super) fn of(declared: &Declared, stored: &[PlanRow], pepper: Option<&Pepper>) -> Self {
        let mut this = Self::default();
        for row in stored {
            match shape::kept::<PlanSettings>(&row.terms, name("name", &row.name)) {
                Ok(settings) => drop(this.plans.insert(row.name.clone(), settings)),
                Err(fault) => this.fault(format!("plan {}: {fault}", row.id)),
            }
        }
        // The config's word goes before what another config left in the store.
        this.plans.extend(declared.plans.iter().map(|plan| (plan.name.clone(), plan.clone())));
        for tenant in &declared.tenants {
            let terms = tenant_terms(tenant);
            this.tenant(&tenant.id, Source::Config, tenant.plan.as_deref(), tenant.suspended, &terms);
            let Some(place) = this.by_tenant.get(tenant.id.as_str()).copied() else { continue };
            for key in &tenant.keys {
                if let Some((id, hash)) = pepper.and_then(|pepper| known_by(key, pepper)) {
                    this.key(place, Source::Config, Known { id, hash, terms: &key_terms(key), expires: key.expiry() });
                }
            }
        }
        this
    }

    /// Adds tenants that the store keeps. Rows are used up one by one, so that not all is there twice.
    pub(super) fn tenants(&mut self, tenants: Vec<TenantRow>) {
        for row in tenants {
            if row.source == Source::Api {
                self.tenant(row.id.as_str(), row.source, row.plan.as_deref(), row.suspended, &row.terms);
            }
        }
    }

    /// Adds keys that the store keeps, of tenants that are there.
    pub(super) fn keys(&mut self, keys: Vec<KeyRow>) {
        for row in keys {
            let Some(place) = self.by_tenant.get(&row.tenant).copied() else { continue };
            if row.source == Source::Api && row.revoked.is_none() {
                let known = Known { id: row.id, hash: row.hash, terms: &row.terms, expires: row.expires };
                self.key(place, row.source, known);
            }
        }
    }

    /// Adds what the store kept when another directory was made.
    pub(super) fn taken_over(&mut self, before: &Directory) {
        for tenant in before.tenants.iter().filter(|tenant| tenant.source == Source::Api) {
            let (plan, terms) = (tenant.plan.map(|plan| before.texts.at(plan)), before.texts.at(tenant.text));
            self.tenant(tenant.id.as_str(), Source::Api, plan, tenant.suspended, terms);
        }
        for entry in before.entries.iter().filter(|entry| entry.source == Source::Api) {
            let Some(tenant) = before.tenants.get(entry.tenant as usize) else { continue };
            let Some(place) = self.by_tenant.get(&tenant.id).copied() else { continue };
            let expires = (entry.expires < i64::MAX).then_some(Timestamp(entry.expires));
            let (id, terms) = (entry.id.clone(), before.texts.at(entry.text));
            self.key(place, Source::Api, Known { id, hash: entry.hash, terms, expires });
        }
    }

    /// Packs it.
    pub(super) fn pack(self, pepper: Option<Pepper>, before: &Directory) -> Directory {
        Directory::pack(pepper, self.texts, self.tenants, self.by_tenant, (self.entries, self.identities), before)
    }

    fn tenant(&mut self, id: &str, source: Source, plan: Option<&str>, suspended: bool, terms: &str) {
        if self.by_tenant.contains_key(id) {
            return;
        }
        let id = TenantId::new(id);
        let (plan, text) = (plan.map(|plan| self.texts.place(plan)), self.texts.place(terms));
        let made = self.terms(plan, text, None);
        if let Some(made) = made.as_ref().filter(|_| names_others(terms)) {
            let caller = Caller { tenant: id.clone(), key: None, terms: Arc::clone(made) };
            if let Ok(settings) = shape::kept::<TenantSettings>(terms, name("id", id.as_str())) {
                self.identities.add_tenant(&settings, &caller);
            }
        }
        let terms = made;
        let place = u32::try_from(self.tenants.len()).unwrap_or(u32::MAX);
        self.by_tenant.insert(id.clone(), place);
        self.tenants.push(Tenant { id, source, plan, text, terms, suspended });
    }

    fn key(&mut self, tenant: u32, source: Source, known: Known<'_>) {
        let Known { id, hash, terms, expires } = known;
        let text = self.texts.place(terms);
        let Some((plan, of)) = self.tenants.get(tenant as usize).map(|tenant| (tenant.plan, tenant.text)) else {
            return;
        };
        let made = self.terms(plan, of, Some(text));
        if let (Some(made), Some(tenant)) =
            (made.as_ref().filter(|_| names_others(terms)), self.tenants.get(tenant as usize))
        {
            let caller = Caller { tenant: tenant.id.clone(), key: Some(id.clone()), terms: Arc::clone(made) };
            if let Ok(settings) = shape::kept::<KeySettings>(terms, name("name", "-")) {
                self.identities.add_certificates(&settings.certificates, &caller);
            }
        }
        let terms = made;
        let expires = expires.map_or(i64::MAX, Timestamp::millis);
        self.entries.push(Entry { hash, id, tenant, source, text, terms, expires, used: AtomicU32::new(0) });
    }

    /// The terms of a key, or of a tenant without one.
    fn terms(&mut self, plan: Option<Text>, tenant: Text, key: Option<Text>) -> Option<Arc<Terms>> {
        if let Some(made) = self.terms.get(&(plan, tenant, key)) {
            return made.clone();
        }
        let made = self.make_terms(plan, tenant, key).map_err(|fault| self.fault(fault)).ok().map(Arc::new);
        self.terms.insert((plan, tenant, key), made.clone());
        made
    }

    fn make_terms(&self, plan: Option<Text>, tenant: Text, key: Option<Text>) -> Result<Terms, String> {
        let plan = match plan.map(|plan| self.texts.at(plan)) {
            None => None,
            Some(name) => Some(self.plans.get(name).ok_or_else(|| format!("there is no plan `{name}`"))?),
        };
        let tenant = self.texts.at(tenant);
        let settings: TenantSettings =
            shape::kept(tenant, name("id", "-")).map_err(|fault| format!("a tenant's settings {tenant}: {fault}"))?;
        let text = key.map_or("{}", |key| self.texts.at(key));
        let key: KeySettings =
            shape::kept(text, name("name", "-")).map_err(|fault| format!("a key's settings {text}: {fault}"))?;
        Ok(plan::terms(plan, &settings, &key))
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

/// Whether settings say by which tokens or certificates somebody is known: few do, and only those are read one by one.
fn names_others(terms: &str) -> bool {
    terms.contains("\"jwt\"") || terms.contains("\"certificates\"")
}

/// A tenant's settings without what has columns of its own.
pub(super) fn tenant_terms(settings: &TenantSettings) -> String {
    let nothing: Option<TenantSettings> = serde_json::from_value(json!({ "id": "" })).ok();
    written(nothing.map(|nothing| shape::said(settings, &nothing, &["id", "plan", "suspended", "keys"])))
}

/// A key's settings without what has columns of its own, and without the key.
pub(super) fn key_terms(settings: &KeySettings) -> String {
    let nothing: Option<KeySettings> = serde_json::from_value(json!({ "name": "" })).ok();
    written(nothing.map(|nothing| shape::said(settings, &nothing, &["name", "hash", "key", "expires"])))
}

fn written(fields: Option<Map<String, Value>>) -> String {
    Value::Object(fields.unwrap_or_default()).to_string()
}

fn name(field: &str, value: &str) -> Map<String, Value> {
    [(field.to_owned(), Value::from(value))].into_iter().collect()
}

/// The id and the hash of a key that a config declares.
pub(super) fn known_by(settings: &KeySettings, pepper: &Pepper) -> Option<(KeyId, [u8; 32])> {
    match (&settings.hash, &settings.key) {
        (Some(hash), _) => key::parse_hash(hash),
        (None, Some(secret)) => {
            let hash = pepper.hash(secret.expose());
            Some((key::public_id(secret.expose(), &hash), hash))
        }
        (None, None) => None,
    }
}
