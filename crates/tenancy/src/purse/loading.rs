//! Bringing to the purse what the ledger knows: at the first call of a tenant, and again from time to time, because
//! balances are paid in and other nodes spend as well.
//!
//! Whoever posts charges does this as well, one after the other: then what is read of the ledger and what is settled here
//! but not posted add up exactly.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use kernel::contract::Period;
use kernel::store::Fault;
use kernel::store::ledger::{self, Account as Side, Dimension, Filter, Ledger, Sum};
use kernel::{Currency, KeyId, Money, TenantId, Timestamp};

use super::books::{Books, Counter};
use super::{Account, Purse, period};

/// What to ask the ledger about one tenant.
struct Questions {
    tenant: TenantId,
    /// Which periods, by number.
    periods: Vec<(Period, i64)>,
    balance: bool,
    currency: Currency,
}

/// What it answered.
struct Answers {
    sums: Vec<(Period, i64, Vec<Sum>)>,
    balance: Option<ledger::Balance>,
}

impl Purse {
    /// Asks the ledger about tenants that nothing is known of yet; with `again`, about all that were asked for something
    /// since the last time. May be given up in the middle: what is left is done the next time.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn load(&self, ledger: &dyn Ledger, again: bool) -> Result<(), Fault> {
        let mut touched: Vec<Arc<Account>> = Vec::new();
        if again {
            let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
            touched.extend(accounts.values().filter(|account| account.touched.load(Ordering::Relaxed)).cloned());
        }
        loop {
            let wanting = self.wanting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(account) = wanting.or_else(|| touched.pop()) else { return Ok(()) };
            // From here on the next call that finds it not loaded puts it on the list again.
            account.wanting.store(false, Ordering::Release);
            account.touched.store(false, Ordering::Relaxed);
            match account.questions().ask(ledger).await {
                Ok(answers) => {
                    account.lock().load(&answers);
                    self.ledger_failed(false);
                }
                Err(fault) => {
                    account.touched.store(true, Ordering::Relaxed);
                    self.ledger_failed(true);
                    let unloaded = account.lock().unloaded;
                    self.want(unloaded, &account);
                    return Err(fault);
                }
            }
        }
    }

    /// Tenants that the ledger has not been asked about.
    pub fn unknown(&self) -> usize {
        self.wanting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Account {
    fn questions(&self) -> Questions {
        let mut books = self.lock();
        let number = books.month.months.number().filter(|_| books.month.wanted);
        let month = number.map(|number| (Period::Month, number));
        let of = |(_, counter): (_, &mut Counter)| Some((counter.per, counter.spending.number()?));
        let mut periods: Vec<_> = books.counters().filter_map(of).chain(month).collect();
        periods.sort_unstable();
        periods.dedup();
        Questions { tenant: self.tenant.clone(), periods, balance: books.balance.wanted, currency: books.currency }
    }
}

impl Questions {
    async fn ask(&self, ledger: &dyn Ledger) -> Result<Answers, Fault> {
        let mut sums = Vec::with_capacity(self.periods.len());
        for (per, number) in &self.periods {
            let (from, until) = (period::begin(*per, *number), period::begin(*per, number + 1));
            let until = (*per != Period::Total).then_some(until);
            let filter = Filter { tenant: Some(self.tenant.clone()), from: Some(from), until, ..Filter::default() };
            let mut found = ledger.sums(&filter, &[Dimension::Key, Dimension::Model]).await?;
            found.retain(|sum| sum.currency == self.currency);
            sums.push((*per, *number, found));
        }
        let side = Side::Tenant(self.tenant.clone());
        let balance = if self.balance { Some(ledger.balance(&side, self.currency).await?) } else { None };
        Ok(Answers { sums, balance })
    }
}

impl Books {
    /// Whether the ledger has told all there is to know.
    fn loaded(&mut self) -> bool {
        let rest =
            (self.balance.loaded || !self.balance.wanted) && (self.month.months.now().loaded || !self.month.wanted);
        rest && self.counters().all(|(_, counter)| counter.spending.now().loaded)
    }

    fn load(&mut self, answers: &Answers) {
        for (per, number, sums) in &answers.sums {
            for (keys, counter) in self.counters() {
                // A period may have ended meanwhile: then it is hardly of use.
                let Some(tally) = counter.spending.at(*number).filter(|_| counter.per == *per) else { continue };
                let counts = |sum: &&Sum| {
                    let part = |nth: usize| sum.of.get(nth).and_then(Option::as_deref);
                    let model = |pattern: &String| kernel::contract::matches(pattern, part(1).unwrap_or_default());
                    keys.is_none_or(|keys| keys.iter().any(|key| Some(key.as_str()) == part(0)))
                        && (counter.models.is_empty() || counter.models.iter().any(model))
                };
                tally.posted = sums.iter().filter(counts).map(|sum| sum.amount).sum();
                tally.loaded = true;
            }
            let month = self.month.months.at(*number).filter(|_| *per == Period::Month && self.month.wanted);
            if let Some(month) = month {
                month.posted = sums.iter().map(|sum| sum.usage.total().0).sum();
                month.loaded = true;
            }
        }
        if let Some(balance) = answers.balance {
            self.balance.posted = balance.credits - balance.debits;
            self.balance.loaded = true;
        }
        self.unloaded = !self.loaded();
    }
}

/// What is known of one tenant's money, for the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Whose: the tenant's, or a key's by the id of the first of its line.
    pub key: Option<String>,
    /// Per what.
    pub per: Period,
    /// Which models; empty: all.
    pub models: Vec<String>,
    /// What is spent in this period.
    pub spent: Money,
    /// What is reserved.
    pub pending: Money,
    /// Whether the ledger has been asked.
    pub loaded: bool,
}

impl Purse {
    /// What a tenant has spent under each of its budgets, and what is left of its balance where calls are paid from one.
    pub fn view(&self, tenant: &TenantId, now: Timestamp) -> (Vec<View>, Option<Money>) {
        let Some(account) = self.known(tenant) else { return (Vec::new(), None) };
        let mut books = account.lock();
        let balance = books.balance.wanted.then(|| books.balance.left());
        let view = |(keys, counter): (Option<&[KeyId]>, &mut Counter)| {
            counter.roll(now);
            View {
                key: keys.and_then(<[KeyId]>::first).map(|key| key.as_str().to_owned()),
                per: counter.per,
                models: counter.models.to_vec(),
                spent: counter.spent(),
                pending: counter.pending,
                loaded: counter.spending.now().loaded,
            }
        };
        (books.counters().map(view).collect(), balance)
    }
}
