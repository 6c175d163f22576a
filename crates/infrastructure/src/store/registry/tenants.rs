//! Tenants with their subscriptions, and keys.

use std::collections::BTreeMap;

use kernel::store::Fault;
use kernel::store::registry::{KeyRow, SubscriptionRow, TenantRow};
use kernel::time::Timestamp;
use kernel::{KeyId, TenantId};

use sqlx::AssertSqlSafe;

use super::publish;
use super::rows::{Kept, insert, read};
use crate::store::Store;
use crate::store::bulk::Bulk;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::ledger::Condition;
use crate::store::session::Session;

const TENANT: &str = "SELECT id, source, plan, suspended, terms, created, updated FROM tenants WHERE id = $1";
const TENANTS: &str = "SELECT id, source, plan, suspended, terms, created, updated FROM tenants \
                       WHERE id > $1 ORDER BY id LIMIT $2";
const CHANGE_TENANT: &str =
    "UPDATE tenants SET source = $2, plan = $3, suspended = $4, terms = $5, updated = $6 WHERE id = $1";
const KEYS: &str = "SELECT id, tenant, source, name, hash, terms, created, expires, revoked, replaces, used FROM keys \
                    WHERE tenant = $1 ORDER BY created, id";
const NAMED: &str = "SELECT id FROM keys WHERE tenant = $1 AND name = $2 AND revoked IS NULL LIMIT 1";
const CHANGE_KEY: &str = "UPDATE keys SET name = $3, terms = $4, expires = $5 WHERE tenant = $1 AND id = $2";
const REVOKE: &str = "UPDATE keys SET revoked = $3 WHERE tenant = $1 AND id = $2 AND revoked IS NULL";
const KEY_THERE: &str = "SELECT id FROM keys WHERE tenant = $1 AND id = $2";
const SUBSCRIPTIONS: &str = "SELECT tenant, plan, begins, ends FROM subscriptions WHERE tenant = $1 ORDER BY begins";
const SUBSCRIPTIONS_OF: &str = "SELECT tenant, plan, begins, ends FROM subscriptions";
const UNSUBSCRIBE: &str = "UPDATE subscriptions SET ends = $2 WHERE tenant = $1 AND ends IS NULL";
static USED: Bulk = Bulk::new(
    "WITH seen (id, at) AS (VALUES",
    2,
    ") UPDATE keys SET used = (SELECT seen.at FROM seen WHERE seen.id = keys.id) WHERE id IN (SELECT id FROM seen) \
     AND COALESCE(used, 0) < (SELECT seen.at FROM seen WHERE seen.id = keys.id)",
);

impl Store {
    pub(super) async fn add_tenant(&self, tenant: &TenantRow) -> Result<(), Failure> {
        let mut session = self.changing(self.short("make tenant")).await?;
        let made = insert(&mut session, std::slice::from_ref(tenant)).await;
        made.map_err(|failure| failure.taken("there is a tenant of that id already"))?;
        subscribe(&mut session, &tenant.id, tenant.plan.as_deref(), tenant.created).await?;
        publish(session).await
    }

    pub(super) async fn put_tenant(&self, tenant: &TenantRow, seen: Timestamp) -> Result<(), Failure> {
        let mut session = self.changing(self.short("change tenant")).await?;
        let row = session.row(sqlx::query(TENANT).bind(tenant.id.as_str())).await?;
        let before = row.map(|row| TenantRow::read(&mut Columns::of(&row))).transpose()?.ok_or(Fault::Missing)?;
        if before.updated != seen {
            return Err(Fault::Conflict("the tenant was changed by somebody else meanwhile").into());
        }
        change_tenant(&mut session, &before, tenant).await?;
        publish(session).await
    }

    pub(super) async fn add_key(&self, key: &KeyRow) -> Result<(), Failure> {
        let mut session = self.changing(self.short("make key")).await?;
        let tenant = session.row(sqlx::query("SELECT id FROM tenants WHERE id = $1").bind(key.tenant.as_str())).await?;
        tenant.ok_or(Fault::Missing)?;
        let named = sqlx::query(NAMED).bind(key.tenant.as_str()).bind(key.name.as_str());
        if session.row(named).await?.is_some() {
            return Err(Fault::Conflict("the tenant has a key of that name already").into());
        }
        let made = insert(&mut session, std::slice::from_ref(key)).await;
        made.map_err(|failure| failure.taken("there is a key of that id or hash already"))?;
        publish(session).await
    }

    pub(super) async fn put_key(&self, key: &KeyRow) -> Result<(), Failure> {
        let mut session = self.changing(self.short("change key")).await?;
        let change = sqlx::query(CHANGE_KEY)
            .bind(key.tenant.as_str())
            .bind(key.id.as_str())
            .bind(key.name.as_str())
            .bind(key.terms.as_str())
            .bind(key.expires.map(Timestamp::millis));
        if session.run(change).await? == 0 {
            return Err(Fault::Missing.into());
        }
        publish(session).await
    }

    pub(super) async fn end_key(&self, tenant: &TenantId, id: &KeyId, at: Timestamp) -> Result<(), Failure> {
        let mut session = self.changing(self.short("revoke key")).await?;
        let revoke = sqlx::query(REVOKE).bind(tenant.as_str()).bind(id.as_str()).bind(at.millis());
        if session.run(revoke).await? > 0 {
            return publish(session).await;
        }
        let there = session.row(sqlx::query(KEY_THERE).bind(tenant.as_str()).bind(id.as_str())).await?;
        there.ok_or(Fault::Missing)?;
        session.rollback().await
    }

    pub(super) async fn mark_used(&self, keys: &[(KeyId, Timestamp)]) -> Result<(), Failure> {
        let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
        for (id, at) in keys {
            let known = latest.entry(id.as_str()).or_default();
            *known = at.millis().max(*known);
        }
        let rows: Vec<(&str, i64)> = latest.into_iter().collect();
        // One statement at a time: none of them needs the others, and locks are held as short as can be.
        for (statement, group) in USED.over(self.engine, &rows) {
            let mut session = self.writing(self.short("note use of keys")).await?;
            session.run(group.iter().fold(statement, |statement, (id, at)| statement.bind(*id).bind(*at))).await?;
            session.commit().await?;
        }
        Ok(())
    }

    pub(super) async fn list_keys(&self, tenant: &TenantId) -> Result<Vec<KeyRow>, Failure> {
        let mut session = self.reading(self.short("list keys")).await?;
        let rows = session.rows(sqlx::query(KEYS).bind(tenant.as_str())).await?;
        session.done();
        read(&rows)
    }

    pub(super) async fn find_tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, Failure> {
        let mut session = self.reading(self.short("find tenant")).await?;
        let row = session.row(sqlx::query(TENANT).bind(id.as_str())).await?;
        session.done();
        row.map(|row| TenantRow::read(&mut Columns::of(&row))).transpose()
    }

    pub(super) async fn list_tenants(&self, after: Option<&TenantId>, most: u32) -> Result<Vec<TenantRow>, Failure> {
        let mut session = self.reading(self.short("list tenants")).await?;
        // An id is never empty, so all of them are beyond the empty text.
        let list = sqlx::query(TENANTS).bind(after.map_or("", TenantId::as_str)).bind(i64::from(most));
        let rows = session.rows(list).await?;
        session.done();
        read(&rows)
    }

    pub(super) async fn list_subscriptions(&self, tenant: &TenantId) -> Result<Vec<SubscriptionRow>, Failure> {
        let mut session = self.reading(self.short("list subscriptions")).await?;
        let rows = session.rows(sqlx::query(SUBSCRIPTIONS).bind(tenant.as_str())).await?;
        session.done();
        read(&rows)
    }

    pub(super) async fn list_subscriptions_of(&self, tenants: &[TenantId]) -> Result<Vec<SubscriptionRow>, Failure> {
        let mut condition = Condition::all();
        condition.any_of("tenant", tenants.iter().map(|tenant| tenant.as_str().to_owned()));
        let sql = format!("{SUBSCRIPTIONS_OF}{} ORDER BY tenant, begins", condition.sql());
        let mut session = self.reading(self.short("list subscriptions")).await?;
        let rows = session.rows(condition.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
        session.done();
        read(&rows)
    }
}

/// Puts a tenant's row in place of what it was, and follows its plan with the subscriptions.
///
/// A row's time of change always goes up, be two changes as close as they may: it is what tells them apart.
pub(super) async fn change_tenant(
    session: &mut Session<'_>,
    before: &TenantRow,
    tenant: &TenantRow,
) -> Result<(), Failure> {
    let at = tenant.updated.max(Timestamp(before.updated.millis().saturating_add(1)));
    let change = sqlx::query(CHANGE_TENANT)
        .bind(tenant.id.as_str())
        .bind(before.source.as_str())
        .bind(tenant.plan.as_deref())
        .bind(i64::from(tenant.suspended))
        .bind(tenant.terms.as_str())
        .bind(at.millis());
    session.run(change).await?;
    if before.plan != tenant.plan {
        unsubscribe(session, &tenant.id, at).await?;
        subscribe(session, &tenant.id, tenant.plan.as_deref(), at).await?;
    }
    Ok(())
}

/// Ends a tenant's subscription.
pub(super) async fn unsubscribe(session: &mut Session<'_>, tenant: &TenantId, at: Timestamp) -> Result<(), Failure> {
    session.run(sqlx::query(UNSUBSCRIBE).bind(tenant.as_str()).bind(at.millis())).await.map(drop)
}

/// Begins a tenant's subscription, if it has a plan.
async fn subscribe(
    session: &mut Session<'_>,
    tenant: &TenantId,
    plan: Option<&str>,
    from: Timestamp,
) -> Result<(), Failure> {
    let row = plan.map(|plan| SubscriptionRow { tenant: tenant.clone(), plan: plan.to_owned(), from, until: None });
    insert(session, row.as_slice()).await
}
