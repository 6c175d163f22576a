//! Versions of plans, and prices.

use kernel::store::Fault;
use kernel::store::registry::{PlanRow, PriceRow};
use kernel::time::Timestamp;

use super::publish;
use super::rows::{Kept, insert, read};
use crate::store::Store;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::session::Session;

const PLANS: &str = "SELECT id, name, source, terms, created, retired, earlier FROM plans ORDER BY name, created";
const IN_FORCE: &str = "SELECT id, name, source, terms, created, retired, earlier FROM plans WHERE name = $1 \
                        ORDER BY created DESC LIMIT 1";
const PUT_BACK: &str = "UPDATE plans SET source = $2, created = $3, retired = NULL, \
                        earlier = COALESCE(earlier || ',', '') || CAST(created AS TEXT) WHERE id = $1";
const RETIRE: &str = "UPDATE plans SET retired = $2 WHERE id = $1 AND retired IS NULL";
const ON_IT: &str = "SELECT id FROM tenants WHERE plan = $1 LIMIT 1";
const PRICES: &str = "SELECT id, source, terms, created, withdrawn FROM prices ORDER BY created, id";
const PRICE: &str = "SELECT id, source, terms, created, withdrawn FROM prices WHERE id = $1";
const ENTER_AGAIN: &str = "UPDATE prices SET source = $2, withdrawn = NULL WHERE id = $1";
const WITHDRAW: &str = "UPDATE prices SET withdrawn = $2 WHERE id = $1 AND withdrawn IS NULL";

impl Store {
    pub(super) async fn put_plan(&self, plan: &PlanRow) -> Result<(), Failure> {
        let mut session = self.changing(self.short("enter plan")).await?;
        let in_force = in_force(&mut session, &plan.name).await?;
        if enter_plan(&mut session, in_force.as_ref(), plan).await? {
            publish(session).await
        } else {
            session.rollback().await
        }
    }

    pub(super) async fn end_plan(&self, name: &str, at: Timestamp) -> Result<(), Failure> {
        let mut session = self.changing(self.short("retire plan")).await?;
        let plan = in_force(&mut session, name).await?.ok_or(Fault::Missing)?;
        if session.row(sqlx::query(ON_IT).bind(name)).await?.is_some() {
            return Err(Fault::Conflict("there are tenants on the plan").into());
        }
        if retire(&mut session, &plan.id, at).await? { publish(session).await } else { session.rollback().await }
    }

    pub(super) async fn put_price(&self, price: &PriceRow) -> Result<(), Failure> {
        let mut session = self.changing(self.short("enter price")).await?;
        let row = session.row(sqlx::query(PRICE).bind(price.id.as_str())).await?;
        let before = row.map(|row| PriceRow::read(&mut Columns::of(&row))).transpose()?;
        if enter_price(&mut session, before.as_ref(), price).await? {
            publish(session).await
        } else {
            session.rollback().await
        }
    }

    pub(super) async fn end_price(&self, id: &str, at: Timestamp) -> Result<(), Failure> {
        let mut session = self.changing(self.short("withdraw price")).await?;
        session.row(sqlx::query(PRICE).bind(id)).await?.ok_or(Fault::Missing)?;
        if withdraw(&mut session, id, at).await? { publish(session).await } else { session.rollback().await }
    }

    pub(super) async fn list_plans(&self) -> Result<Vec<PlanRow>, Failure> {
        let mut session = self.reading(self.short("list plans")).await?;
        let rows = session.rows(sqlx::query(PLANS)).await?;
        session.done();
        read(&rows)
    }

    pub(super) async fn list_prices(&self) -> Result<Vec<PriceRow>, Failure> {
        let mut session = self.reading(self.short("list prices")).await?;
        let rows = session.rows(sqlx::query(PRICES)).await?;
        session.done();
        read(&rows)
    }
}

/// Puts a version in force, given the one that is; false if that is it.
///
/// The one entered last is in force, so a version's time is always later than that of the one before it.
pub(super) async fn enter_plan(
    session: &mut Session<'_>,
    in_force: Option<&PlanRow>,
    plan: &PlanRow,
) -> Result<bool, Failure> {
    if in_force.is_some_and(|in_force| in_force.id == plan.id && in_force.retired.is_none()) {
        return Ok(false);
    }
    let later = in_force.map_or(plan.created, |in_force| Timestamp(in_force.entered().millis().saturating_add(1)));
    let created = plan.created.max(later);
    let again = sqlx::query(PUT_BACK).bind(plan.id.as_str()).bind(plan.source.as_str()).bind(created.millis());
    if session.run(again).await? == 0 {
        insert(session, &[PlanRow { created, again: Vec::new(), retired: None, ..plan.clone() }]).await?;
    }
    Ok(true)
}

/// Retires the version in force; false if it is.
pub(super) async fn retire(session: &mut Session<'_>, id: &str, at: Timestamp) -> Result<bool, Failure> {
    Ok(session.run(sqlx::query(RETIRE).bind(id).bind(at.millis())).await? > 0)
}

/// Enters a price, given its row if it has one; false if it is in force already.
pub(super) async fn enter_price(
    session: &mut Session<'_>,
    before: Option<&PriceRow>,
    price: &PriceRow,
) -> Result<bool, Failure> {
    match before {
        None => insert(session, &[PriceRow { withdrawn: None, ..price.clone() }]).await?,
        Some(before) if before.withdrawn.is_none() => return Ok(false),
        Some(_) => {
            let again = sqlx::query(ENTER_AGAIN).bind(price.id.as_str()).bind(price.source.as_str());
            session.run(again).await?;
        }
    }
    Ok(true)
}

/// Withdraws a price; false if it is.
pub(super) async fn withdraw(session: &mut Session<'_>, id: &str, at: Timestamp) -> Result<bool, Failure> {
    Ok(session.run(sqlx::query(WITHDRAW).bind(id).bind(at.millis())).await? > 0)
}

async fn in_force(session: &mut Session<'_>, name: &str) -> Result<Option<PlanRow>, Failure> {
    let row = session.row(sqlx::query(IN_FORCE).bind(name)).await?;
    row.map(|row| PlanRow::read(&mut Columns::of(&row))).transpose()
}
