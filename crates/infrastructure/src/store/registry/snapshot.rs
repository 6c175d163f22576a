//! Everything a gateway must know, at one moment.

use std::collections::HashMap;
use std::time::Duration;

use kernel::store::registry::{Part, PlanRow};
use kernel::time::Timestamp;

use super::revision;
use super::rows::{each, read};
use crate::store::Store;
use crate::store::failure::Failure;

const LIVE: &str = "revoked IS NULL AND (expires IS NULL OR expires > $7)";
const PLANS: &str = "SELECT id, name, source, terms, created, retired, earlier FROM plans ORDER BY name, created";
const PRICES: &str =
    "SELECT id, source, terms, created, withdrawn FROM prices WHERE withdrawn IS NULL ORDER BY created, id";

/// Bound: for so long after its end an expired key is still told from an unknown one.
const LONG_EXPIRED: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    pub(super) async fn read_parts(
        &self,
        known: Option<i64>,
        take: &(dyn Fn(Part) + Sync),
    ) -> Result<Option<i64>, Failure> {
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
        let plans = session.rows(sqlx::query(PLANS)).await?;
        take(Part::Plans(latest(read(&plans)?)));
        take(Part::Prices(read(&session.rows(sqlx::query(PRICES)).await?)?));
        each(&mut session, "1 = 1", None, |tenants| take(Part::Tenants(tenants))).await?;
        each(&mut session, LIVE, Some(expired), |keys| take(Part::Keys(keys))).await?;
        session.commit().await?;
        Ok(Some(revision))
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
