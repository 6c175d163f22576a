//! Adding everything up again.
//!
//! One view of all of it, so that what is posted meanwhile disturbs nothing. Sums are compared day by day: a ledger of
//! years need not fit into memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use kernel::store::ledger::Balance;
use kernel::{Currency, Money};
use sqlx::any::AnyRow;

use super::sums::summed_money;
use super::totals::{DAY_MILLIS, Group, Totals};
use crate::store::Store;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::session::Session;

const ACCOUNTS: &str = "SELECT name, currency, debit_units, debit_pico, credit_units, credit_pico FROM accounts";
const DEBITS: &str = "SELECT debit, currency, CAST(SUM(units) AS BIGINT), CAST(SUM(pico / 1000000) AS BIGINT), \
                      CAST(SUM(pico % 1000000) AS BIGINT) FROM transfers GROUP BY debit, currency";
const CREDITS: &str = "SELECT credit, currency, CAST(SUM(units) AS BIGINT), CAST(SUM(pico / 1000000) AS BIGINT), \
                       CAST(SUM(pico % 1000000) AS BIGINT) FROM transfers GROUP BY credit, currency";
const DAYS: &str = "SELECT DISTINCT hour - hour % 86400000 AS day FROM sums UNION \
                    SELECT DISTINCT at - at % 86400000 AS day FROM charges ORDER BY day";
const KEPT: &str = "SELECT hour, tenant, key, model, tag, price, plan, currency, calls, estimated, input, cached, \
                    cache_write, audio_input, output, reasoning, audio_output, images, gpu_millis, units, \
                    pico / 1000000, pico % 1000000 FROM sums WHERE hour >= $1 AND hour < $2";
const COUNTED: &str = "SELECT at - at % 3600000, tenant, key, model, tag, price, plan, currency, COUNT(*), \
    CAST(SUM(estimated) AS BIGINT), CAST(SUM(input) AS BIGINT), CAST(SUM(cached) AS BIGINT), \
    CAST(SUM(cache_write) AS BIGINT), CAST(SUM(audio_input) AS BIGINT), CAST(SUM(output) AS BIGINT), \
    CAST(SUM(reasoning) AS BIGINT), CAST(SUM(audio_output) AS BIGINT), CAST(SUM(images) AS BIGINT), \
    CAST(SUM(gpu_millis) AS BIGINT), CAST(SUM(units) AS BIGINT), CAST(SUM(pico / 1000000) AS BIGINT), \
    CAST(SUM(pico % 1000000) AS BIGINT) FROM charges WHERE at >= $1 AND at < $2 \
    GROUP BY at - at % 3600000, tenant, key, model, tag, price, plan, currency";

const SPENT: &str = "SELECT tenant, day, key, model, price, plan, currency, calls, estimated, input, cached, cache_write, \
                     audio_input, output, reasoning, audio_output, images, gpu_millis, units, pico / 1000000, \
                     pico % 1000000 FROM spent WHERE day = $1";
const ASTRAY: &str = "SELECT DISTINCT tenant FROM sums WHERE carried <> calls";

/// Bound: nobody reads more, and a ledger that is wrong all over must not fill the memory.
const FINDINGS_MAX: usize = 100;

type Books = BTreeMap<(String, Currency), Balance>;

impl Store {
    pub(super) async fn audit_books(&self) -> Result<Vec<String>, Failure> {
        let mut session = self.surveying(self.long("audit")).await?;
        let mut found = Vec::new();
        self.audit_accounts(&mut session, &mut found).await?;
        let days = session.rows(sqlx::query(DAYS)).await?;
        for day in &days {
            if found.len() >= FINDINGS_MAX {
                found.push(format!("and more: this stopped at the first {FINDINGS_MAX}"));
                break;
            }
            // Each day has the time-out that any report has.
            session.renew(self.long("audit"));
            audit_day(&mut session, Columns::of(day).number()?, &mut found).await?;
        }
        session.commit().await?;
        Ok(found)
    }

    async fn audit_accounts(&self, session: &mut Session<'_>, found: &mut Vec<String>) -> Result<(), Failure> {
        let mut kept = Books::new();
        for row in &session.rows(sqlx::query(ACCOUNTS)).await? {
            let mut columns = Columns::of(row);
            let account = (columns.text()?.to_owned(), columns.currency()?);
            kept.insert(account, Balance { debits: columns.money()?, credits: columns.money()? });
        }
        let mut counted = Books::new();
        session.renew(self.long("audit"));
        for row in &session.rows(sqlx::query(DEBITS)).await? {
            let (account, amount) = one_side(row)?;
            counted.entry(account).or_default().debits = amount;
        }
        session.renew(self.long("audit"));
        for row in &session.rows(sqlx::query(CREDITS)).await? {
            let (account, amount) = one_side(row)?;
            counted.entry(account).or_default().credits = amount;
        }
        compare_accounts(&kept, &counted, found);
        Ok(())
    }
}

fn one_side(row: &AnyRow) -> Result<((String, Currency), Money), Failure> {
    let mut columns = Columns::of(row);
    let account = (columns.text()?.to_owned(), columns.currency()?);
    Ok((account, summed_money(&mut columns)?))
}

fn compare_accounts(kept: &Books, counted: &Books, found: &mut Vec<String>) {
    let mut totals: BTreeMap<Currency, Balance> = BTreeMap::new();
    for ((name, currency), kept) in kept {
        let counted = counted.get(&(name.clone(), *currency)).copied().unwrap_or_default();
        if *kept != counted {
            found.push(format!(
                "account {name}: {} debited and {} credited in {currency} are kept, its transfers say {} and {}",
                kept.debits, kept.credits, counted.debits, counted.credits
            ));
        }
        let total = totals.entry(*currency).or_default();
        total.debits += kept.debits;
        total.credits += kept.credits;
    }
    for (name, currency) in counted.keys().filter(|account| !kept.contains_key(*account)) {
        found.push(format!("account {name}: has transfers in {currency} and no totals"));
    }
    for (currency, total) in totals.iter().filter(|(_, total)| total.debits != total.credits) {
        found.push(format!("debits of {} and credits of {} in {currency} do not agree", total.debits, total.credits));
    }
    found.truncate(FINDINGS_MAX);
}

async fn audit_day(session: &mut Session<'_>, day: i64, found: &mut Vec<String>) -> Result<(), Failure> {
    let mut sides = [HashMap::new(), HashMap::new()];
    for (side, sql) in sides.iter_mut().zip([KEPT, COUNTED]) {
        let rows = session.rows(sqlx::query(sql).bind(day).bind(day.saturating_add(DAY_MILLIS))).await?;
        for row in &rows {
            let (group, totals) = read_group(row)?;
            if side.insert(group, totals).is_some() {
                found.push(format!("a sum of the day at {day} is kept twice"));
            }
        }
    }
    let [kept, counted] = &sides;
    for (group, kept) in kept {
        let counted = counted.get(group).copied().unwrap_or_default();
        if *kept != counted && found.len() < FINDINGS_MAX {
            found.push(format!(
                "sum of {} on {} in the hour at {}: {} calls and {} {} are kept, the charges say {} and {} ({kept:?}, {counted:?})",
                group.tenant, group.model, group.hour, kept.calls, kept.amount, group.currency, counted.calls, counted.amount
            ));
        }
    }
    for group in counted.keys().filter(|group| !kept.contains_key(*group)) {
        if found.len() < FINDINGS_MAX {
            found.push(format!(
                "charges of {} on {} in the hour at {} have no sum",
                group.tenant, group.model, group.hour
            ));
        }
    }
    audit_spent(session, day, kept, found).await
}

/// What budgets go by, against the sums of the day; of tenants that the version before has posted for they go by the sums.
async fn audit_spent(
    session: &mut Session<'_>,
    day: i64,
    sums: &HashMap<Group<'static>, Totals>,
    found: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut astray = HashSet::new();
    for row in &session.rows(sqlx::query(ASTRAY)).await? {
        astray.insert(Columns::of(row).text()?.to_owned());
    }
    let mut expected: HashMap<_, Totals> = HashMap::new();
    for (group, totals) in sums.iter().filter(|(group, _)| !astray.contains(group.tenant.as_ref())) {
        expected.entry(group.spent()).or_default().join(totals);
    }
    let rows = session.rows(sqlx::query(SPENT).bind(day)).await?;
    for row in &rows {
        let mut columns = Columns::of(row);
        let (tenant, day) = (columns.text()?, columns.number()?);
        let parts = [columns.text()?, columns.text()?, columns.text()?, columns.text()?].map(Cow::Borrowed);
        let currency = columns.currency()?;
        let kept = read_totals(&mut columns)?;
        let summed = expected.remove(&(tenant, day, parts, currency)).unwrap_or_default();
        if summed != kept && !astray.contains(tenant) && found.len() < FINDINGS_MAX {
            let (own, other) = (kept.amount, summed.amount);
            found.push(format!(
                "what {tenant} has spent on the day at {day}: {own} {currency} are kept, sums say {other}"
            ));
        }
    }
    if let Some((tenant, ..)) = expected.into_keys().next().filter(|_| found.len() < FINDINGS_MAX) {
        found.push(format!("what {tenant} has spent on the day at {day} is not kept"));
    }
    Ok(())
}

fn read_group(row: &AnyRow) -> Result<(Group<'static>, Totals), Failure> {
    let mut columns = Columns::of(row);
    let owned = |text: Option<&str>| text.map(|text| Cow::Owned(text.to_owned()));
    let hour = columns.number()?;
    let tenant = Cow::Owned(columns.text()?.to_owned());
    let key = owned(columns.maybe_text()?);
    let model = Cow::Owned(columns.text()?.to_owned());
    let (tag, price, plan) = (owned(columns.maybe_text()?), owned(columns.maybe_text()?), owned(columns.maybe_text()?));
    let group = Group { hour, tenant, key, model, tag, price, plan, currency: columns.currency()? };
    Ok((group, read_totals(&mut columns)?))
}

fn read_totals(columns: &mut Columns<'_>) -> Result<Totals, Failure> {
    let (calls, estimated) = (columns.number()?, columns.number()?);
    let mut counts = [0; 8];
    for count in &mut counts {
        *count = columns.number()?;
    }
    let gpu_millis = columns.number()?;
    Ok(Totals { calls, estimated, counts, gpu_millis, amount: summed_money(columns)? })
}
