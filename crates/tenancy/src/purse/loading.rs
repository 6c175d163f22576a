//! Bringing to the purse what the ledger knows: at the first call of a tenant, and again from time to time, because
//! balances are paid in and other nodes spend as well.
//!
//! Whoever posts charges does this as well, one after the other: then what is read of the ledger and what is settled here
//! but not posted add up exactly. Several tenants are asked about at once, as many as [`Pace`] says, and no more than that
//! before posting goes on.
//!
//! A question that is not answered in time is no sign that the store is away: it may be well, and have much to add up. So it
//! is then asked something small. If it answers that, fewer tenants are asked about the next time, and one that takes too long
//! by itself is put off and fails alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kernel::contract::Period;
use kernel::store::Fault;
use kernel::store::ledger::{self, Account as Side, Dimension, Filter, Ledger, Sum};
use kernel::{Currency, TenantId};
use tokio::time::{Instant, timeout};

use super::books::Books;
use super::counter::Counter;
use super::fees::Known;
pub use super::pace::Pace;
use super::{Account, Purse, period};

/// Bound: for a store that is well to find one row. One that does not is away.
const THERE: Duration = Duration::from_secs(3);

/// What to ask the ledger about one tenant.
pub(super) struct Questions {
    pub(super) account: Arc<Account>,
    /// Which periods, by number.
    pub(super) periods: Vec<(Period, i64)>,
    pub(super) balance: bool,
    /// Whether a fee includes tokens, and how many by the plan as it is.
    pub(super) monthly: bool,
    pub(super) included: u64,
    pub(super) currency: Currency,
}

/// What it answered.
#[derive(Default)]
struct Answers {
    sums: HashMap<TenantId, Vec<(Period, i64, Vec<Sum>)>>,
    balances: HashMap<(TenantId, Currency), ledger::Balance>,
    fees: HashMap<TenantId, Known>,
}

impl Purse {
    /// Asks the ledger about tenants that nothing is known of yet; with `again`, about all that were asked for something
    /// since the last time as well. It asks about some and leaves the rest, [`unknown`](Self::unknown), to the next time;
    /// those of which nothing is known come first. May be given up in the middle.
    ///
    /// # Errors
    /// When the store is away. Tenants that it takes too long to add up are no error: they are put off.
    pub async fn load_at(&self, pace: &mut Pace, ledger: &dyn Ledger, again: bool) -> Result<(), Fault> {
        if again {
            self.want_again();
            pace.refresh();
        }
        let (accounts, before) = self.next(pace);
        let some: Vec<Questions> = accounts.into_iter().map(Questions::about).collect();
        let Some(first) = some.first() else {
            pace.through();
            return Ok(());
        };
        let (began, patience) = (Instant::now(), pace.patience(some.len()));
        let late = |_| Err(Fault::Down(format!("no answer within {} s", patience.as_secs())));
        match timeout(patience, self.ask(ledger, &some)).await.unwrap_or_else(late) {
            Ok(answers) => {
                pace.answered(some.len(), began.elapsed());
                for asked in &some {
                    asked.account.lock().load(asked, &answers);
                }
            }
            Err(fault) => {
                let took = began.elapsed();
                if !is_there(ledger, &first.account.tenant).await {
                    self.give_back(&some);
                    self.ledger_failed(true);
                    return Err(fault);
                }
                match some.as_slice() {
                    [one] => self.put_off(pace, (&one.account, before), (took, &fault)),
                    several => {
                        self.give_back(several);
                        pace.failed(several.len(), took);
                    }
                }
            }
        }
        self.ledger_failed(false);
        if self.unknown() == 0 {
            pace.through();
        }
        Ok(())
    }

    /// The same for tests, which have little to add up.
    #[cfg(test)]
    pub(crate) async fn load(&self, ledger: &dyn Ledger, again: bool) -> Result<(), Fault> {
        self.load_at(&mut Pace::widest(), ledger, again).await
    }

    /// Whom to ask about next: the last ones that came, else one that was put off, and how long that was.
    fn next(&self, pace: &mut Pace) -> (Vec<Arc<Account>>, Option<Duration>) {
        let mut wanting = self.wanting.lock().unwrap_or_else(PoisonError::into_inner);
        let from = wanting.len().saturating_sub(pace.at_once());
        let some: Vec<_> = wanting.drain(from..).collect();
        drop(wanting);
        let off = if some.is_empty() { pace.take_due() } else { None };
        match off {
            Some((account, wait)) => (vec![account], Some(wait)),
            None => (some, None),
        }
    }

    /// Puts tenants that nothing was told of where they were: new ones at the end, others at the beginning.
    fn give_back(&self, some: &[Questions]) {
        let mut others = Vec::new();
        for Questions { account, .. } in some {
            account.touched.store(true, Ordering::Relaxed);
            let unloaded = account.lock().unloaded;
            self.want(unloaded, account);
            if !unloaded && !account.wanting.swap(true, Ordering::AcqRel) {
                others.push(Arc::clone(account));
            }
        }
        self.wanting.lock().unwrap_or_else(PoisonError::into_inner).splice(0..0, others);
    }

    /// One that takes too long by itself, or cannot be added up: until it is asked about again no call puts it on the list.
    fn put_off(
        &self,
        pace: &mut Pace,
        (account, before): (&Arc<Account>, Option<Duration>),
        (took, fault): (Duration, &Fault),
    ) {
        account.touched.store(true, Ordering::Relaxed);
        if account.wanting.swap(true, Ordering::AcqRel) {
            let mut wanting = self.wanting.lock().unwrap_or_else(PoisonError::into_inner);
            wanting.retain(|other| !Arc::ptr_eq(other, account));
        }
        let wait = pace.put_off(Arc::clone(account), before, took);
        let tenant = &account.tenant;
        match fault {
            Fault::Down(_) => tracing::warn!(
                %tenant, ?took, again_in = ?wait,
                "what a tenant has spent takes long to add up, and the store is well: its budgets go by what is known here"
            ),
            fault => tracing::error!(
                %tenant, %fault, again_in = ?wait,
                "what a tenant has spent cannot be added up: its budgets go by what is known here"
            ),
        }
    }

    /// Tenants that the ledger has not been asked about, or not lately.
    pub fn unknown(&self) -> usize {
        self.wanting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Puts all that were asked for something behind those of which nothing is known.
    fn want_again(&self) {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let touched = accounts.values().filter(|account| account.touched.load(Ordering::Relaxed));
        let again: Vec<_> = touched.filter(|account| !account.wanting.swap(true, Ordering::AcqRel)).cloned().collect();
        drop(accounts);
        self.wanting.lock().unwrap_or_else(PoisonError::into_inner).splice(0..0, again);
    }

    /// One question for each period of all, one for all balances, and what their fees include.
    async fn ask(&self, ledger: &dyn Ledger, some: &[Questions]) -> Result<Answers, Fault> {
        let mut periods: BTreeMap<(Period, i64), Vec<TenantId>> = BTreeMap::new();
        for asked in some {
            for of in &asked.periods {
                periods.entry(*of).or_default().push(asked.account.tenant.clone());
            }
        }
        let mut answers = Answers::default();
        for ((per, number), tenants) in periods {
            for sum in ledger.sums(&within(per, number, tenants.clone()), &BY).await? {
                let Some(tenant) = sum.of.first().and_then(Option::as_deref).map(TenantId::new) else { continue };
                let of = answers.sums.entry(tenant).or_default();
                match of.last_mut().filter(|(other, nth, _)| (*other, *nth) == (per, number)) {
                    Some((_, _, sums)) => sums.push(sum),
                    None => of.push((per, number, vec![sum])),
                }
            }
        }
        let paying = some.iter().filter(|asked| asked.balance);
        let sides: Vec<Side> = paying.map(|asked| Side::Tenant(asked.account.tenant.clone())).collect();
        if !sides.is_empty() {
            for (side, currency, balance) in ledger.balances_of(&sides).await? {
                if let Side::Tenant(tenant) = side {
                    answers.balances.insert((tenant, currency), balance);
                }
            }
        }
        if let Some(fees) = self.fees.get() {
            answers.fees = fees.ask(ledger, some).await?;
        }
        Ok(answers)
    }
}

/// Whether the store finds a row.
async fn is_there(ledger: &dyn Ledger, tenant: &TenantId) -> bool {
    let side = [Side::Tenant(tenant.clone())];
    matches!(timeout(THERE, ledger.balances_of(&side)).await, Ok(Ok(_)))
}

/// What spending is split by.
const BY: [Dimension; 3] = [Dimension::Tenant, Dimension::Key, Dimension::Model];

/// The charges of some tenants in a period.
pub(super) fn within(per: Period, number: i64, tenants: Vec<TenantId>) -> Filter {
    let until = (per != Period::Total).then(|| period::begin(per, number + 1));
    Filter { tenants, from: Some(period::begin(per, number)), until, ..Filter::default() }
}

impl Questions {
    /// From here on the next call that finds something missing puts the account on the list again.
    fn about(account: Arc<Account>) -> Self {
        account.wanting.store(false, Ordering::Release);
        account.touched.store(false, Ordering::Relaxed);
        let mut books = account.lock();
        let number = books.month.months.number().filter(|_| books.month.wanted);
        let month = number.map(|number| (Period::Month, number));
        let of = |(_, counter): (_, &mut Counter)| Some((counter.per, counter.spending.number()?));
        let mut periods: Vec<_> = books.counters().filter_map(of).chain(month).collect();
        periods.sort_unstable();
        periods.dedup();
        let (balance, monthly, currency) = (books.balance.wanted, books.month.wanted, books.currency);
        let included = books.month.promised;
        drop(books);
        Self { account, periods, balance, monthly, included, currency }
    }
}

impl Books {
    /// Whether the ledger has told all there is to know.
    fn loaded(&mut self) -> bool {
        let rest =
            (self.balance.loaded || !self.balance.wanted) && (self.month.months.now().loaded || !self.month.wanted);
        rest && self.counters().all(|(_, counter)| counter.spending.now().loaded)
    }

    fn load(&mut self, asked: &Questions, answers: &Answers) {
        let tenant = &asked.account.tenant;
        let told = answers.sums.get(tenant).map(Vec::as_slice).unwrap_or_default();
        let fees = answers.fees.get(tenant);
        for (per, number) in &asked.periods {
            let sums = told.iter().find(|(other, nth, _)| (other, nth) == (per, number));
            let sums = sums.map(|(_, _, sums)| sums.as_slice()).unwrap_or_default();
            let sums = || sums.iter().filter(|sum| sum.currency == asked.currency);
            for (keys, counter) in self.counters() {
                let Counter { per: own, models, spending, .. } = counter;
                // A period may have ended meanwhile: then it is hardly of use.
                let Some(tally) = spending.at(*number).filter(|_| own == per) else { continue };
                let counts = |key: Option<&str>, model: Option<&str>| {
                    keys.is_none_or(|keys| keys.iter().any(|own| Some(own.as_str()) == key))
                        && (models.is_empty()
                            || models.iter().any(|one| kernel::contract::matches(one, model.unwrap_or_default())))
                };
                let part = |sum: &Sum, nth: usize| sum.of.get(nth).cloned().flatten();
                let counted = sums().filter(|sum| counts(part(sum, 1).as_deref(), part(sum, 2).as_deref()));
                tally.posted = counted.map(|sum| sum.amount).sum();
                if let Some(known) = fees {
                    tally.overage = known.overage(*per, *number, counts);
                }
                tally.loaded = true;
            }
            let month = self.month.months.at(*number).filter(|_| *per == Period::Month && self.month.wanted);
            if let Some(month) = month {
                month.posted = fees.map_or_else(|| sums().map(|sum| sum.usage.total().0).sum(), |known| known.used);
                month.included = fees.and_then(|known| known.included);
                month.loaded = true;
            }
        }
        if asked.balance {
            let balance = answers.balances.get(&(tenant.clone(), asked.currency)).copied().unwrap_or_default();
            self.balance.posted = balance.credits - balance.debits;
            self.balance.credits = balance.credits;
            self.balance.loaded = true;
        }
        self.unloaded = !self.loaded();
    }
}
