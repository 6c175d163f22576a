//! What is kept twice for speed: accounts, and charges summed up by the hour, and by the day for budgets.
//!
//! A batch is summed up here first, so that a thousand charges of one tenant touch one row; the database then adds, in one
//! statement. Rows are touched in order of their ids, so that two who post at once wait for each other and never deadlock.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use kernel::store::ledger::{Balance, Charge, Transfer};
use kernel::{Currency, Money, Usage};

use crate::store::bulk::Bulk;
use crate::store::columns::{Parts, bind_money, clean, counted, hex};
use crate::store::failure::Failure;
use crate::store::session::Session;

/// Sums are kept by the hour.
pub(super) const HOUR_MILLIS: i64 = 3_600_000;
/// What budgets ask for is kept by the day.
pub(super) const DAY_MILLIS: i64 = 86_400_000;

static SUMS: Bulk = Bulk::new(
    "INSERT INTO sums (id, hour, tenant, key, model, tag, price, plan, currency, calls, estimated, input, cached, \
     cache_write, audio_input, output, reasoning, audio_output, images, gpu_millis, units, pico, carried) VALUES",
    23,
    " ON CONFLICT (id) DO UPDATE SET calls = sums.calls + excluded.calls, estimated = sums.estimated + \
     excluded.estimated, input = sums.input + excluded.input, cached = sums.cached + excluded.cached, cache_write = \
     sums.cache_write + excluded.cache_write, audio_input = sums.audio_input + excluded.audio_input, output = \
     sums.output + excluded.output, reasoning = sums.reasoning + excluded.reasoning, audio_output = sums.audio_output \
     + excluded.audio_output, images = sums.images + excluded.images, gpu_millis = sums.gpu_millis + \
     excluded.gpu_millis, units = sums.units + excluded.units + (sums.pico + excluded.pico) / 1000000000000, pico = \
     (sums.pico + excluded.pico) % 1000000000000, carried = sums.carried + excluded.carried",
);

static SPENT: Bulk = Bulk::new(
    "INSERT INTO spent (tenant, day, key, model, price, plan, currency, calls, estimated, input, cached, cache_write, \
     audio_input, output, reasoning, audio_output, images, gpu_millis, units, pico) VALUES",
    20,
    " ON CONFLICT (tenant, day, key, model, price, plan, currency) DO UPDATE SET calls = spent.calls + excluded.calls, \
     estimated = spent.estimated + excluded.estimated, input = spent.input + excluded.input, cached = spent.cached + \
     excluded.cached, cache_write = spent.cache_write + excluded.cache_write, audio_input = spent.audio_input + \
     excluded.audio_input, output = spent.output + excluded.output, reasoning = spent.reasoning + excluded.reasoning, \
     audio_output = spent.audio_output + excluded.audio_output, images = spent.images + excluded.images, gpu_millis = \
     spent.gpu_millis + excluded.gpu_millis, units = spent.units + excluded.units + (spent.pico + excluded.pico) / \
     1000000000000, pico = (spent.pico + excluded.pico) % 1000000000000",
);

static ACCOUNTS: Bulk = Bulk::new(
    "INSERT INTO accounts (name, currency, debit_units, debit_pico, credit_units, credit_pico) VALUES",
    6,
    " ON CONFLICT (name, currency) DO UPDATE SET debit_units = accounts.debit_units + excluded.debit_units + \
     (accounts.debit_pico + excluded.debit_pico) / 1000000000000, debit_pico = (accounts.debit_pico + \
     excluded.debit_pico) % 1000000000000, credit_units = accounts.credit_units + excluded.credit_units + \
     (accounts.credit_pico + excluded.credit_pico) / 1000000000000, credit_pico = (accounts.credit_pico + \
     excluded.credit_pico) % 1000000000000",
);

/// What charges are summed up by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group<'c> {
    pub(super) hour: i64,
    pub(super) tenant: Cow<'c, str>,
    pub(super) key: Option<Cow<'c, str>>,
    pub(super) model: Cow<'c, str>,
    pub(super) tag: Option<Cow<'c, str>>,
    pub(super) price: Option<Cow<'c, str>>,
    pub(super) plan: Option<Cow<'c, str>>,
    pub(super) currency: Currency,
}

/// What charges are summed up by for budgets: tenant, day, then key, model, price and plan as they are kept, currency.
type Spent<'g> = (&'g str, i64, [Cow<'g, str>; 4], Currency);

/// What a group of charges sums up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) calls: i64,
    pub(super) estimated: i64,
    /// From `input` to `images`, as in the table.
    pub(super) counts: [i64; 8],
    pub(super) gpu_millis: i64,
    pub(super) amount: Money,
}

/// Adds charges to the sums.
pub(super) async fn add_charges<'c>(
    session: &mut Session<'_>,
    charges: impl Iterator<Item = &'c Charge> + Send,
) -> Result<(), Failure> {
    let mut groups: HashMap<Group<'c>, Totals> = HashMap::new();
    for charge in charges {
        groups.entry(Group::of(charge)).or_default().add(charge);
    }
    let mut rows: Vec<(String, Group<'c>, Totals)> =
        groups.into_iter().map(|(group, totals)| (group.id(), group, totals)).collect();
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (mut statement, part) in SUMS.over(session.engine(), &rows) {
        for (id, group, totals) in part {
            statement = statement
                .bind(id.as_str())
                .bind(group.hour)
                .bind(group.tenant.as_ref())
                .bind(group.key.as_deref())
                .bind(group.model.as_ref())
                .bind(group.tag.as_deref())
                .bind(group.price.as_deref())
                .bind(group.plan.as_deref())
                .bind(group.currency.as_str())
                .bind(totals.calls)
                .bind(totals.estimated);
            statement = totals.counts.into_iter().fold(statement, |statement, count| statement.bind(count));
            statement = bind_money(statement.bind(totals.gpu_millis), Parts::of(totals.amount)?).bind(totals.calls);
        }
        session.run(statement).await?;
    }
    add_spent(session, &rows).await
}

/// Adds the same to what budgets ask for, in order of its key.
async fn add_spent(session: &mut Session<'_>, rows: &[(String, Group<'_>, Totals)]) -> Result<(), Failure> {
    let mut days: BTreeMap<Spent<'_>, Totals> = BTreeMap::new();
    for (_, group, totals) in rows {
        days.entry(group.spent()).or_default().join(totals);
    }
    let rows: Vec<(Spent<'_>, Totals)> = days.into_iter().collect();
    for (mut statement, part) in SPENT.over(session.engine(), &rows) {
        for ((tenant, day, parts, currency), totals) in part {
            let [key, model, price, plan] = parts;
            statement = statement.bind(*tenant).bind(*day).bind(key.as_ref()).bind(model.as_ref()).bind(price.as_ref());
            statement = statement.bind(plan.as_ref()).bind(currency.as_str()).bind(totals.calls).bind(totals.estimated);
            statement = totals.counts.into_iter().fold(statement, |statement, count| statement.bind(count));
            statement = bind_money(statement.bind(totals.gpu_millis), Parts::of(totals.amount)?);
        }
        session.run(statement).await?;
    }
    Ok(())
}

/// Adds transfers to the accounts.
pub(super) async fn add_transfers<'t>(
    session: &mut Session<'_>,
    transfers: impl Iterator<Item = &'t Transfer> + Send,
) -> Result<(), Failure> {
    let mut moved: BTreeMap<(String, Currency), Balance> = BTreeMap::new();
    for transfer in transfers {
        let account = |name: String| (clean(&name).into_owned(), transfer.currency);
        moved.entry(account(transfer.debit.name())).or_default().debits += transfer.amount;
        moved.entry(account(transfer.credit.name())).or_default().credits += transfer.amount;
    }
    let rows: Vec<_> = moved.into_iter().collect();
    for (mut statement, part) in ACCOUNTS.over(session.engine(), &rows) {
        for ((name, currency), balance) in part {
            statement = statement.bind(name.as_str()).bind(currency.as_str());
            statement = bind_money(statement, Parts::of(balance.debits)?);
            statement = bind_money(statement, Parts::of(balance.credits)?);
        }
        session.run(statement).await?;
    }
    Ok(())
}

// === impl Group ===

impl<'c> Group<'c> {
    fn of(charge: &'c Charge) -> Self {
        Self {
            hour: charge.at.millis().div_euclid(HOUR_MILLIS) * HOUR_MILLIS,
            tenant: clean(charge.tenant.as_str()),
            key: charge.key.as_ref().map(|key| clean(key.as_str())),
            model: clean(charge.model.as_str()),
            tag: charge.tag.as_deref().map(clean),
            price: charge.price.as_deref().map(clean),
            plan: charge.plan.as_deref().map(clean),
            currency: charge.currency,
        }
    }

    /// The group that it is in for budgets.
    pub(super) fn spent(&self) -> Spent<'_> {
        let there =
            |part: &Option<Cow<'c, str>>| part.as_ref().map_or(Cow::Borrowed(""), |text| format!("={text}").into());
        let model = Cow::Borrowed(self.model.as_ref());
        let parts = [there(&self.key), model, there(&self.price), there(&self.plan)];
        (self.tenant.as_ref(), self.hour.div_euclid(DAY_MILLIS) * DAY_MILLIS, parts, self.currency)
    }

    /// A hash of it all: what may be missing cannot be part of a key that is unique on both databases.
    fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hour.to_le_bytes()).update(self.currency.as_str().as_bytes());
        let whole = [Some(&self.tenant), self.key.as_ref(), Some(&self.model)];
        for part in whole.into_iter().chain([self.tag.as_ref(), self.price.as_ref(), self.plan.as_ref()]) {
            // The length first, so that no two groups are the same bytes; one more than it is, so that missing is not empty.
            let length = part.map_or(0, |text| text.len() as u64 + 1);
            hasher.update(&length.to_le_bytes()).update(part.map_or("", |text| text).as_bytes());
        }
        let hash = hasher.finalize();
        // Half of it is as good as a UUID.
        hex(hash.as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]))
    }
}

// === impl Totals ===

impl Totals {
    /// Adds another group's.
    pub(super) fn join(&mut self, other: &Self) {
        self.calls += other.calls;
        self.estimated += other.estimated;
        for (total, count) in self.counts.iter_mut().zip(other.counts) {
            *total = total.saturating_add(count);
        }
        self.gpu_millis = self.gpu_millis.saturating_add(other.gpu_millis);
        self.amount += other.amount;
    }

    fn add(&mut self, charge: &Charge) {
        self.calls += 1;
        self.estimated += i64::from(charge.usage.estimated);
        for (total, count) in self.counts.iter_mut().zip(counts(&charge.usage)) {
            *total = total.saturating_add(count);
        }
        self.gpu_millis = self.gpu_millis.saturating_add(counted(charge.gpu_millis));
        self.amount += charge.amount;
    }
}

fn counts(usage: &Usage) -> [i64; 8] {
    let Usage { input, cached, cache_write, audio_input, output, reasoning, audio_output, images, estimated: _ } =
        usage;
    let [input, cached, cache_write, audio_input, output, reasoning, audio_output] =
        [input, cached, cache_write, audio_input, output, reasoning, audio_output].map(|tokens| counted(tokens.0));
    [input, cached, cache_write, audio_input, output, reasoning, audio_output, i64::from(*images)]
}
