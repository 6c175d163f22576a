//! Everything a gateway must know, at one moment.

use std::collections::HashMap;
use std::time::Duration;

use kernel::store::registry::{KeyRow, PlanRow, Snapshot, TenantRow};
use kernel::time::Timestamp;

use super::revision;
use super::rows::read;
use crate::store::Store;
use crate::store::failure::Failure;

const TENANTS: &str = "SELECT id, source, plan, suspended, terms, created, updated FROM tenants \
                       WHERE id > $1 ORDER BY id LIMIT 4096";
const KEYS: &str = "SELECT id, tenant, source, name, hash, terms, created, expires, revoked, replaces, used FROM keys \
                    WHERE id > $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2) ORDER BY id LIMIT 4096";
/// Bound: as in the statements. A row as sqlx has it takes a kilobyte and more; all at once would be most of the memory of
/// a gateway with very many keys.
const PAGE: usize = 4096;
const PLANS: &str = "SELECT id, name, source, terms, created, retired FROM plans ORDER BY name, created";
const PRICES: &str =
    "SELECT id, source, terms, created, withdrawn FROM prices WHERE withdrawn IS NULL ORDER BY created, id";

/// Bound: for so long after its end an expired key is still told from an unknown one.
const LONG_EXPIRED: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    pub(super) async fn read_snapshot(&self, known: Option<i64>) -> Result<Option<Snapshot>, Failure> {
        if let Some(known) = known {
            // Asked every second by every gateway: one row, and mostly that is all.
            let mut session = self.reading(self.short("look for changes")).await?;
            let current = revision(&mut session).await?;
            session.done();
            if current == known {
                return Ok(None);
            }
        }
        let mut session = self.viewing(self.long("read the registry")).await?;
        let revision = revision(&mut session).await?;
        let expired = Timestamp::now().millis() - i64::try_from(LONG_EXPIRED.as_millis()).unwrap_or(0);
        let mut tenants: Vec<TenantRow> = Vec::new();
        loop {
            let after = tenants.last().map_or(String::new(), |row| row.id.as_str().to_owned());
            let page = session.rows(sqlx::query(TENANTS).bind(after)).await?;
            tenants.extend(read(&page)?);
            if page.len() < PAGE {
                break;
            }
        }
        let mut keys: Vec<KeyRow> = Vec::new();
        loop {
            let after = keys.last().map_or(String::new(), |row| row.id.as_str().to_owned());
            let page = session.rows(sqlx::query(KEYS).bind(after).bind(expired)).await?;
            keys.extend(read(&page)?);
            if page.len() < PAGE {
                break;
            }
        }
        let plans = session.rows(sqlx::query(PLANS)).await?;
        let prices = read(&session.rows(sqlx::query(PRICES)).await?)?;
        session.commit().await?;
        let plans = latest(read(&plans)?);
        Ok(Some(Snapshot { revision, tenants, keys, plans, prices }))
    }
}

/// Of the versions of each name, the one entered last; given in order of name and time.
pub(super) fn latest(versions: Vec<PlanRow>) -> Vec<PlanRow> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut plans: Vec<PlanRow> = Vec::new();
    for version in versions {
        match places.get(&version.name).and_then(|place| plans.get_mut(*place)) {
            Some(plan) => *plan = version,
            None => {
                places.insert(version.name.clone(), plans.len());
                plans.push(version);
            }
        }
    }
    plans
}
