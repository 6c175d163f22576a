//! Keys: made, listed, changed, rotated, revoked.

use std::sync::Arc;
use std::time::Duration;

use kernel::settings::{Findings, Secret};
use kernel::store::Fault;
use kernel::store::registry::{KeyRow, Source};
use kernel::{KeyId, TenantId, Timestamp};
use serde_json::{Map, Value};

use super::Register;
use super::gather::key_terms;
use crate::directory::{FORMER_MAX, KeySettings};
use crate::{NewKey, Refused, key, shape, when};

/// A key just made, with all of it: the only time it can be seen.
#[derive(Debug)]
pub struct MadeKey {
    /// What is kept of it.
    pub row: KeyRow,
    /// The whole key, for its owner.
    pub key: Secret,
    /// What its owner signs requests with, where they are to be signed.
    pub signing_secret: Secret,
}

/// Bound: a tenant with more should have several tenants, or tokens of an issuer.
const KEYS_MAX: usize = 1000;
/// Bound: for people to read.
const NAME_MAX: usize = 100;
/// For so long an old key goes on beside the new one where nothing is said.
pub const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// Bound: a longer overlap is no rotation.
pub const OVERLAP_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

impl Register {
    /// Makes a key of settings as a config has them, but for `hash` and `key`.
    ///
    /// # Errors
    /// Why not.
    pub async fn make_key(self: &Arc<Self>, tenant: &TenantId, settings: KeySettings) -> Result<MadeKey, Refused> {
        check(&settings)?;
        line_kept(&settings, &[])?;
        self.certificates_free(&settings.certificates, |_| false)?;
        self.tenant(tenant).await?;
        self.room(tenant).await?;
        let made = self.enter_key(tenant, &settings, None).await?;
        self.refresh().await;
        Ok(made)
    }

    /// A tenant's keys, revoked and expired ones included, in order of making.
    ///
    /// # Errors
    /// Why not.
    pub async fn keys(&self, tenant: &TenantId) -> Result<Vec<KeyRow>, Refused> {
        self.tenant(tenant).await?;
        let mut rows = self.store.keys(tenant).await.map_err(|fault| Refused::by(fault, "tenant"))?;
        let directory = self.directory.load();
        for row in &mut rows {
            row.used = row.used.max(directory.used(&row.id));
        }
        Ok(rows)
    }

    /// One key of a tenant.
    ///
    /// # Errors
    /// Why not.
    pub async fn key(&self, tenant: &TenantId, id: &KeyId) -> Result<KeyRow, Refused> {
        self.keys(tenant).await?.into_iter().find(|row| row.id == *id).ok_or(Refused::Missing("key"))
    }

    /// Puts a patch over a key's settings: what it names is changed, `null` takes away.
    ///
    /// # Errors
    /// Why not.
    pub async fn change_key(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: &KeyId,
        changes: Map<String, Value>,
    ) -> Result<KeyRow, Refused> {
        let mut row = self.living(tenant, id).await?;
        let mut fields = key_fields(&row)?;
        let before: KeySettings = shape::kept(&row.terms, key_columns(&row)).map_err(Refused::Broken)?;
        shape::patch(&mut fields, changes);
        let settings: KeySettings = shape::read(Value::Object(fields))?;
        check(&settings)?;
        line_kept(&settings, &before.former)?;
        self.certificates_free(&settings.certificates, |owner| owner.key.as_ref() == Some(id))?;
        row.name.clone_from(&settings.name);
        row.terms = key_terms(&settings);
        row.expires = settings.expiry();
        self.put_key(row.clone()).await?;
        self.refresh().await;
        Ok(row)
    }

    /// Makes a key that takes the place of another, with its name and settings. The old one goes on for `overlap`.
    ///
    /// # Errors
    /// Why not.
    pub async fn rotate_key(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: &KeyId,
        overlap: Duration,
    ) -> Result<(MadeKey, KeyRow), Refused> {
        if overlap > OVERLAP_MAX {
            let message = format!("must be at most {} (90 days)", OVERLAP_MAX.as_millis());
            return Err(Refused::invalid("overlap_ms", message));
        }
        let mut old = self.living(tenant, id).await?;
        self.room(tenant).await?;
        let settings: KeySettings = shape::kept(&old.terms, key_columns(&old)).map_err(Refused::Broken)?;
        let name = std::mem::take(&mut old.name);
        // The new one comes first, and under another name: whatever happens between the steps, a key is in force.
        let former = line(&settings.former, id);
        let another = KeySettings { name: format!("{name} (new)"), expires: None, former, ..settings };
        let mut made = self.enter_key(tenant, &another, Some(id.clone())).await?;
        let until = Timestamp::now().millis().saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
        old.expires = Some(old.expires.map_or(Timestamp(until), |expires| expires.min(Timestamp(until))));
        old.name = format!("{name} (until {})", old.expires.map(when::text).unwrap_or_default());
        self.put_key(old.clone()).await?;
        made.row.name = name;
        self.put_key(made.row.clone()).await?;
        self.refresh().await;
        Ok((made, old))
    }

    /// Revokes a key: the next call with it is refused, here at once and on other replicas within their `refresh_ms`.
    ///
    /// # Errors
    /// Why not.
    pub async fn revoke_key(self: &Arc<Self>, tenant: &TenantId, id: &KeyId) -> Result<(), Refused> {
        let row = self.key(tenant, id).await?;
        if row.source == Source::Config {
            return Err(Refused::Declared("key"));
        }
        let done = self.store.revoke_key(tenant, id, Timestamp::now()).await;
        done.map_err(|fault| Refused::by(fault, "key"))?;
        self.refresh().await;
        Ok(())
    }

    /// A key that can be changed.
    async fn living(&self, tenant: &TenantId, id: &KeyId) -> Result<KeyRow, Refused> {
        let row = self.key(tenant, id).await?;
        if row.source == Source::Config {
            return Err(Refused::Declared("key"));
        }
        if row.revoked.is_some() {
            return Err(Refused::Conflict("The key was revoked: make another one.".into()));
        }
        Ok(row)
    }

    async fn room(&self, tenant: &TenantId) -> Result<(), Refused> {
        let now = Timestamp::now();
        let living = |row: &&KeyRow| row.revoked.is_none() && row.expires.is_none_or(|expires| expires > now);
        if self.keys(tenant).await?.iter().filter(living).count() < KEYS_MAX {
            return Ok(());
        }
        Err(Refused::Conflict(format!("The tenant has {KEYS_MAX} keys in force: revoke some before making more.")))
    }

    async fn enter_key(
        &self,
        tenant: &TenantId,
        settings: &KeySettings,
        replaces: Option<KeyId>,
    ) -> Result<MadeKey, Refused> {
        let none = || Refused::Broken("no key pepper can be kept in the data directory".into());
        let pepper = self.pepper().ok_or_else(none)?;
        let made = NewKey::generate(pepper).map_err(|fault| Refused::Broken(fault.to_string()))?;
        let (id, hash) = key::parse_hash(&made.hash).ok_or_else(none)?;
        let row = KeyRow {
            id,
            tenant: tenant.clone(),
            source: Source::Api,
            name: settings.name.clone(),
            hash,
            terms: key_terms(settings),
            created: Timestamp::now(),
            expires: settings.expiry(),
            revoked: None,
            replaces,
            used: None,
        };
        match self.store.make_key(row.clone()).await {
            Ok(()) => {
                let signing_secret = pepper.signing_secret(row.id.as_str());
                Ok(MadeKey { row, key: made.key, signing_secret })
            }
            Err(fault) => Err(named(fault, &settings.name)),
        }
    }

    async fn put_key(&self, row: KeyRow) -> Result<(), Refused> {
        let name = row.name.clone();
        self.store.change_key(row).await.map_err(|fault| named(fault, &name))
    }
}

/// A key's row in the shape of a config, without its hash.
///
/// # Errors
/// Where the row cannot be understood.
pub fn key_fields(row: &KeyRow) -> Result<Map<String, Value>, Refused> {
    let mut fields = key_columns(row);
    fields.extend(shape::object(&row.terms).map_err(Refused::Broken)?);
    Ok(fields)
}

fn key_columns(row: &KeyRow) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("name".into(), row.name.as_str().into());
    if let Some(expires) = row.expires {
        fields.insert("expires".into(), when::text(expires).into());
    }
    fields
}

/// The keys of a line up to this one. The first stays, as the line is called by it.
pub(super) fn line(former: &[String], id: &KeyId) -> Vec<String> {
    let mut line: Vec<String> = former.iter().cloned().chain([id.as_str().to_owned()]).collect();
    if line.len() > FORMER_MAX {
        line.drain(1..=line.len() - FORMER_MAX);
    }
    line
}

fn named(fault: Fault, name: &str) -> Refused {
    match fault {
        Fault::Conflict(_) => Refused::Taken {
            field: "name",
            message: format!("The tenant has a key named `{name}` already: take another name, or rotate that one."),
        },
        Fault::Missing => Refused::Missing("key"),
        other => Refused::by(other, "key"),
    }
}

/// Whose place a key took is a fact that only rotation makes: set by hand it would move what was spent.
fn line_kept(settings: &KeySettings, before: &[String]) -> Result<(), Refused> {
    if settings.former == before {
        return Ok(());
    }
    let message = "is set by rotation and cannot be given: rotate the old key (POST …/keys/{key}/rotate, or sluice key \
                   rotate), and the new one goes on with its budgets";
    Err(Refused::invalid("former", message))
}

fn check(settings: &KeySettings) -> Result<(), Refused> {
    if settings.hash.is_some() || settings.key.is_some() {
        let field = if settings.hash.is_some() { "hash" } else { "key" };
        return Err(Refused::invalid(field, "cannot be given: keys are made here, and shown once"));
    }
    let name = settings.name.trim();
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refused::invalid("name", format!("must be 1 to {NAME_MAX} bytes of plain text")));
    }
    let mut findings = Findings::default();
    settings.validate("", &mut findings);
    Refused::found(findings)
}
