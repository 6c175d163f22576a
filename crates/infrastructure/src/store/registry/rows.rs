//! Tenants, keys, plans, subscriptions and prices as rows of their tables.

use std::borrow::Cow;

use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Source, SubscriptionRow, TenantRow};
use kernel::time::Timestamp;
use kernel::{KeyId, TenantId};
use sqlx::any::AnyRow;

use crate::store::bulk::Bulk;
use crate::store::columns::{Columns, Fields, hex, unhex};
use crate::store::failure::Failure;
use crate::store::packed;
use crate::store::session::{Session, Statement};

/// A row of one of the registry's tables, for what is done to all of them alike.
pub(super) trait Kept: Sized + Send + Sync {
    /// Its table, and all columns of it.
    const TABLE: (&'static str, &'static [&'static str]);
    /// Inserts rows of these columns.
    const INSERT: &'static Bulk;

    /// Reads these columns, in that order.
    fn read(columns: &mut dyn Fields) -> Result<Self, Failure>;

    /// Binds them.
    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q>;
}

/// Reads rows.
pub(super) fn read<T: Kept>(rows: &[AnyRow]) -> Result<Vec<T>, Failure> {
    rows.iter().map(|row| T::read(&mut Columns::of(row))).collect()
}

/// Reads all rows that fulfil a condition, in order of id; `number` is the condition's `$7` if it has one.
pub(super) async fn all<T: Kept>(
    session: &mut Session<'_>,
    condition: &'static str,
    number: Option<i64>,
) -> Result<Vec<T>, Failure> {
    let mut rows = Vec::new();
    each(session, condition, number, |page| rows.extend(page)).await?;
    Ok(rows)
}

/// The same, page by page.
pub(super) async fn each<T: Kept>(
    session: &mut Session<'_>,
    condition: &'static str,
    number: Option<i64>,
    take: impl FnMut(Vec<T>),
) -> Result<(), Failure> {
    packed::each(session, T::TABLE, (condition, number), T::read, take).await
}

/// Inserts rows.
pub(super) async fn insert<T: Kept>(session: &mut Session<'_>, rows: &[T]) -> Result<(), Failure> {
    for (statement, group) in T::INSERT.over(session.engine(), rows) {
        session.run(group.iter().fold(statement, |statement, row| row.bind(statement))).await?;
    }
    Ok(())
}

static TENANTS: Bulk =
    Bulk::new("INSERT INTO tenants (id, source, plan, suspended, terms, created, updated) VALUES", 7, "");
static KEYS: Bulk = Bulk::new(
    "INSERT INTO keys (id, tenant, source, name, hash, terms, created, expires, revoked, replaces, used) VALUES",
    11,
    "",
);
static PLANS: Bulk = Bulk::new("INSERT INTO plans (id, name, source, terms, created, retired, earlier) VALUES", 7, "");
static PRICES: Bulk = Bulk::new("INSERT INTO prices (id, source, terms, created, withdrawn) VALUES", 5, "");
static SUBSCRIPTIONS: Bulk = Bulk::new("INSERT INTO subscriptions (tenant, plan, begins, ends) VALUES", 4, "");

impl Kept for TenantRow {
    const TABLE: (&'static str, &'static [&'static str]) =
        ("tenants", &["id", "source", "plan", "suspended", "terms", "created", "updated"]);
    const INSERT: &'static Bulk = &TENANTS;

    fn read(columns: &mut dyn Fields) -> Result<Self, Failure> {
        Ok(Self {
            id: TenantId::new(columns.text()?),
            source: source(&columns.text()?)?,
            plan: columns.maybe_text()?.map(Cow::into_owned),
            suspended: columns.flag()?,
            terms: columns.text()?.into_owned(),
            created: columns.time()?,
            updated: columns.time()?,
        })
    }

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        statement
            .bind(self.id.as_str().to_owned())
            .bind(self.source.as_str())
            .bind(self.plan.clone())
            .bind(i64::from(self.suspended))
            .bind(self.terms.clone())
            .bind(self.created.millis())
            .bind(self.updated.millis())
    }
}

impl Kept for KeyRow {
    const TABLE: (&'static str, &'static [&'static str]) = (
        "keys",
        &["id", "tenant", "source", "name", "hash", "terms", "created", "expires", "revoked", "replaces", "used"],
    );
    const INSERT: &'static Bulk = &KEYS;

    fn read(columns: &mut dyn Fields) -> Result<Self, Failure> {
        Ok(Self {
            id: KeyId::new(columns.text()?),
            tenant: TenantId::new(columns.text()?),
            source: source(&columns.text()?)?,
            name: columns.text()?.into_owned(),
            hash: unhex(&columns.text()?).ok_or_else(|| Failure::broken("the hash of a key is none"))?,
            terms: columns.text()?.into_owned(),
            created: columns.time()?,
            expires: columns.maybe_time()?,
            revoked: columns.maybe_time()?,
            replaces: columns.maybe_text()?.map(KeyId::new),
            used: columns.maybe_time()?,
        })
    }

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        statement
            .bind(self.id.as_str().to_owned())
            .bind(self.tenant.as_str().to_owned())
            .bind(self.source.as_str())
            .bind(self.name.clone())
            .bind(hex(&self.hash))
            .bind(self.terms.clone())
            .bind(self.created.millis())
            .bind(self.expires.map(Timestamp::millis))
            .bind(self.revoked.map(Timestamp::millis))
            .bind(self.replaces.as_ref().map(|id| id.as_str().to_owned()))
            .bind(self.used.map(Timestamp::millis))
    }
}

/// In the table `created` is the last time that a version was put in force, by which they are in order, and `earlier` has
/// those before it.
impl Kept for PlanRow {
    const TABLE: (&'static str, &'static [&'static str]) =
        ("plans", &["id", "name", "source", "terms", "created", "retired", "earlier"]);
    const INSERT: &'static Bulk = &PLANS;

    fn read(columns: &mut dyn Fields) -> Result<Self, Failure> {
        let (id, name) = (columns.text()?.into_owned(), columns.text()?.into_owned());
        let (source, terms) = (source(&columns.text()?)?, columns.text()?.into_owned());
        let (last, retired) = (columns.time()?, columns.maybe_time()?);
        let mut times = earlier(columns.maybe_text()?.as_deref().unwrap_or_default())?;
        times.push(last);
        let created = times.remove(0);
        Ok(Self { id, name, source, terms, created, again: times, retired })
    }

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let times: Vec<Timestamp> = std::iter::once(self.created).chain(self.again.iter().copied()).collect();
        let before = times.split_last().map(|(_, before)| before).filter(|before| !before.is_empty());
        statement
            .bind(self.id.clone())
            .bind(self.name.clone())
            .bind(self.source.as_str())
            .bind(self.terms.clone())
            .bind(self.entered().millis())
            .bind(self.retired.map(Timestamp::millis))
            .bind(before.map(|before| before.iter().map(|at| at.millis().to_string()).collect::<Vec<_>>().join(",")))
    }
}

/// Times with commas between.
fn earlier(text: &str) -> Result<Vec<Timestamp>, Failure> {
    let time = |text: &str| text.parse().map(Timestamp);
    let times: Result<Vec<Timestamp>, _> = text.split(',').filter(|text| !text.is_empty()).map(time).collect();
    times.map_err(|_| Failure::broken("the times of a plan's version are no numbers"))
}

impl Kept for PriceRow {
    const TABLE: (&'static str, &'static [&'static str]) =
        ("prices", &["id", "source", "terms", "created", "withdrawn"]);
    const INSERT: &'static Bulk = &PRICES;

    fn read(columns: &mut dyn Fields) -> Result<Self, Failure> {
        Ok(Self {
            id: columns.text()?.into_owned(),
            source: source(&columns.text()?)?,
            terms: columns.text()?.into_owned(),
            created: columns.time()?,
            withdrawn: columns.maybe_time()?,
        })
    }

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        statement
            .bind(self.id.clone())
            .bind(self.source.as_str())
            .bind(self.terms.clone())
            .bind(self.created.millis())
            .bind(self.withdrawn.map(Timestamp::millis))
    }
}

impl Kept for SubscriptionRow {
    const TABLE: (&'static str, &'static [&'static str]) = ("subscriptions", &["tenant", "plan", "begins", "ends"]);
    const INSERT: &'static Bulk = &SUBSCRIPTIONS;

    fn read(columns: &mut dyn Fields) -> Result<Self, Failure> {
        Ok(Self {
            tenant: TenantId::new(columns.text()?),
            plan: columns.text()?.into_owned(),
            from: columns.time()?,
            until: columns.maybe_time()?,
        })
    }

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        statement
            .bind(self.tenant.as_str().to_owned())
            .bind(self.plan.clone())
            .bind(self.from.millis())
            .bind(self.until.map(Timestamp::millis))
    }
}

fn source(text: &str) -> Result<Source, Failure> {
    let known = [Source::Config, Source::Api].into_iter().find(|source| source.as_str() == text);
    known.ok_or_else(|| Failure::broken(format!("`{text}` is no source of a row")))
}
