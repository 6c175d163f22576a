//! What a config declares, as rows.

use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Seed, Source, TenantRow};
use kernel::{Price, TenantId, Timestamp};

use super::Declared;
use super::gather::{key_terms, known_by, tenant_terms};
use crate::{Pepper, PlanSettings, catalogue};

/// The rows.
pub(super) fn seed(declared: &Declared, pepper: Option<&Pepper>) -> Seed {
    let now = Timestamp::now();
    let mut seed = Seed::default();
    for tenant in &declared.tenants {
        let id = TenantId::new(tenant.id.as_str());
        for key in &tenant.keys {
            let Some((key_id, hash)) = pepper.and_then(|pepper| known_by(key, pepper)) else { continue };
            seed.keys.push(KeyRow {
                id: key_id,
                tenant: id.clone(),
                source: Source::Config,
                name: key.name.clone(),
                hash,
                terms: key_terms(key),
                created: now,
                expires: key.expiry(),
                revoked: None,
                replaces: None,
                used: None,
            });
        }
        seed.tenants.push(TenantRow {
            id,
            source: Source::Config,
            plan: tenant.plan.clone(),
            suspended: tenant.suspended,
            terms: tenant_terms(tenant),
            created: now,
            updated: now,
        });
    }
    seed.plans = declared.plans.iter().map(|plan| plan_row(plan, Source::Config, now)).collect();
    seed.prices = declared.prices.iter().map(|price| price_row(price, Source::Config, now)).collect();
    seed
}

/// A version of a plan.
pub(super) fn plan_row(plan: &PlanSettings, source: Source, now: Timestamp) -> PlanRow {
    let terms = serde_json::to_string(plan).unwrap_or_default();
    PlanRow { id: plan.id(), name: plan.name.clone(), source, terms, created: now, again: Vec::new(), retired: None }
}

/// An entry of the catalogue.
pub(super) fn price_row(price: &Price, source: Source, now: Timestamp) -> PriceRow {
    let terms = serde_json::to_string(price).unwrap_or_default();
    PriceRow { id: catalogue::id(price), source, terms, created: now, withdrawn: None }
}
