//! Tenants: made, listed, changed.

use std::collections::HashSet;
use std::sync::Arc;

use kernel::settings::Findings;
use kernel::store::Fault;
use kernel::store::registry::{Source, SubscriptionRow, TenantRow};
use kernel::{Caller, TenantId, Timestamp};
use serde_json::{Map, Value};

use super::Register;
use super::gather::tenant_terms;
use crate::{CertificateName, PlanSettings, Refused, TenantSettings, shape};

/// Bound: it stands in every metric and log line.
const ID_MAX: usize = 64;

impl Register {
    /// Makes a tenant of settings as a config has them, but for keys.
    ///
    /// # Errors
    /// Why not.
    pub async fn make_tenant(self: &Arc<Self>, settings: TenantSettings) -> Result<TenantRow, Refused> {
        if !word(&settings.id, ID_MAX) {
            let message = format!("must be 1 to {ID_MAX} letters, digits, `.`, `_` or `-`, a letter or digit first");
            return Err(Refused::invalid("id", message));
        }
        self.check_tenant(&settings).await?;
        let now = Timestamp::now();
        let row = TenantRow {
            id: TenantId::new(settings.id.as_str()),
            source: Source::Api,
            plan: settings.plan.clone(),
            suspended: settings.suspended,
            terms: tenant_terms(&settings),
            created: now,
            updated: now,
        };
        match self.store.make_tenant(row.clone()).await {
            Ok(()) => {}
            Err(Fault::Conflict(_)) => {
                let message = format!("There is a tenant `{}` already.", settings.id);
                return Err(Refused::Taken { field: "id", message });
            }
            Err(fault) => return Err(Refused::by(fault, "tenant")),
        }
        self.refresh().await;
        Ok(row)
    }

    /// Puts a patch over a tenant's settings: what it names is changed, `null` takes away. `seen`: only if it was last
    /// changed then.
    ///
    /// # Errors
    /// Why not.
    pub async fn change_tenant(
        self: &Arc<Self>,
        id: &TenantId,
        changes: Map<String, Value>,
        seen: Option<Timestamp>,
    ) -> Result<TenantRow, Refused> {
        let mut row = self.tenant(id).await?;
        if row.source == Source::Config {
            return Err(Refused::Declared("tenant"));
        }
        let before = row.updated;
        if seen.is_some_and(|seen| seen != before) {
            return Err(Refused::Changed);
        }
        let mut fields = tenant_fields(&row)?;
        shape::patch(&mut fields, changes);
        let settings: TenantSettings = shape::read(Value::Object(fields))?;
        if settings.id != id.as_str() {
            return Err(Refused::invalid("id", "cannot be changed: bills refer to it"));
        }
        self.check_tenant(&settings).await?;
        row.plan.clone_from(&settings.plan);
        row.suspended = settings.suspended;
        row.terms = tenant_terms(&settings);
        // Two changes within a millisecond must not look like one.
        row.updated = Timestamp(Timestamp::now().millis().max(before.millis() + 1));
        self.store.change_tenant(row.clone(), before).await.map_err(|fault| match fault {
            Fault::Conflict(_) => Refused::Changed,
            other => Refused::by(other, "tenant"),
        })?;
        self.refresh().await;
        Ok(row)
    }

    /// One tenant.
    ///
    /// # Errors
    /// Why not.
    pub async fn tenant(&self, id: &TenantId) -> Result<TenantRow, Refused> {
        let found = self.store.tenant(id).await.map_err(|fault| Refused::by(fault, "tenant"))?;
        found.ok_or(Refused::Missing("tenant"))
    }

    /// Tenants in order of id, after one, at most so many.
    ///
    /// # Errors
    /// Why not.
    pub async fn tenants(&self, after: Option<&TenantId>, most: u32) -> Result<Vec<TenantRow>, Refused> {
        self.store.tenants(after, most).await.map_err(|fault| Refused::by(fault, "tenant"))
    }

    /// The plans a tenant was on, in order of time.
    ///
    /// # Errors
    /// Why not.
    pub async fn subscriptions(&self, id: &TenantId) -> Result<Vec<SubscriptionRow>, Refused> {
        self.tenant(id).await?;
        self.store.subscriptions(id).await.map_err(|fault| Refused::by(fault, "tenant"))
    }

    async fn check_tenant(&self, settings: &TenantSettings) -> Result<(), Refused> {
        if !settings.keys.is_empty() {
            let message = "cannot be given here: make keys with POST /admin/v1/tenants/{tenant}/keys";
            return Err(Refused::invalid("keys", message));
        }
        let plans = match &settings.plan {
            None => Vec::new(),
            Some(name) => vec![self.plan_in_force(name).await?.ok_or_else(|| {
                Refused::invalid("plan", format!("There is no plan `{name}`: make it with PUT /admin/v1/plans/{name}."))
            })?],
        };
        let mut findings = Findings::default();
        settings.validate("", &plans, &mut HashSet::new(), &mut findings);
        Refused::found(findings)?;
        let directory = self.directory.load();
        let others = |tenant: &TenantId| tenant.as_str() != settings.id;
        for jwt in &settings.jwt {
            let mut bindings = directory.identities().issuer(&jwt.issuer).iter();
            if bindings.any(|binding| others(&binding.caller.tenant) && binding.settings.overlaps(jwt)) {
                let message =
                    "Another tenant takes these tokens too: give both a `tenant_claim`, or `clients` of their own.";
                return Err(Refused::Taken { field: "jwt", message: message.into() });
            }
        }
        self.certificates_free(&settings.certificates, |owner| !others(&owner.tenant) && owner.key.is_none())
    }

    /// Refuses names of certificates that stand for somebody else already.
    pub(super) fn certificates_free(
        &self,
        names: &[CertificateName],
        own: impl Fn(&Caller) -> bool,
    ) -> Result<(), Refused> {
        let directory = self.directory.load();
        let taken = |name: &&CertificateName| {
            directory.identities().certificate(&[name.plain()]).is_some_and(|owner| !own(owner))
        };
        match names.iter().find(taken) {
            None => Ok(()),
            Some(name) => {
                let message = format!("`{name}` stands for somebody else already.");
                Err(Refused::Taken { field: "certificates", message })
            }
        }
    }

    /// A plan that tenants can be put on; the config's goes before the store's.
    async fn plan_in_force(&self, name: &str) -> Result<Option<PlanSettings>, Refused> {
        if let Some(plan) = self.declared().plans.iter().find(|plan| plan.name == name) {
            return Ok(Some(plan.clone()));
        }
        let latest = self.plan_versions(name).await?.pop().filter(|row| row.retired.is_none());
        latest.map(|row| super::plans::settings(&row)).transpose()
    }
}

/// A tenant's row in the shape of a config.
///
/// # Errors
/// Where the row cannot be understood.
pub fn tenant_fields(row: &TenantRow) -> Result<Map<String, Value>, Refused> {
    let mut fields = Map::new();
    fields.insert("id".into(), row.id.as_str().into());
    if let Some(plan) = &row.plan {
        fields.insert("plan".into(), plan.as_str().into());
    }
    if row.suspended {
        fields.insert("suspended".into(), true.into());
    }
    fields.extend(shape::object(&row.terms).map_err(Refused::Broken)?);
    Ok(fields)
}

/// Whether a text can stand in paths and metrics as it is.
pub(super) fn word(text: &str, most: usize) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    first && text.len() <= most && text.as_bytes().iter().all(plain)
}
