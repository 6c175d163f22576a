//! Who may still spend, and how much: reserve, top up, settle, void.
//!
//! Nothing is sent to a backend without a reservation, at all levels at once: the tenant's budgets, the key's, those of
//! some models, the balance paid in. Reservations are what a call will likely cost, never the worst it could; where little
//! is left a call gets what is left, and more while its answer flows, until there is no more. A purse outlives configs.
//! It never waits for a store: what the ledger knows is brought to it from outside.

mod books;
mod budgets;
mod counter;
mod dated;
mod fees;
mod habit;
mod lease;
pub mod loading;
mod pace;
pub(crate) mod period;
mod refusal;
mod reservation;
mod shares;
pub mod sharing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use foldhash::fast::FixedState;
use kernel::sight::{Gauges, Sample};
use kernel::store::Registry;
use kernel::store::ledger::{Charge, PostingId};
use kernel::{Caller, Error, ModelName, Money, TenantId, Timestamp, Tokens, Usage};
use tokio::sync::Notify;

use self::books::{Books, Crossed, Spent};
pub use self::budgets::BudgetStanding;
use self::fees::Fees;
use self::habit::Guess;
use self::lease::{Footing, Room};
pub(crate) use self::refusal::UNKNOWN;
pub use self::reservation::Reservation;
use self::sharing::Standing;
use crate::catalogue::Listed;
use crate::rating;

/// What a call takes at least of which anything is charged for: where nothing is left, nothing begins.
const LEAST: Money = Money::from_pico(1);
/// Parts of a unit of money that amounts are counted in.
const PICO: f64 = 1e12;

/// The purses of all tenants.
pub struct Purse {
    accounts: RwLock<HashMap<TenantId, Arc<Account>, FixedState>>,
    /// Accounts that the ledger is to be asked about, the next one last.
    wanting: Mutex<Vec<Arc<Account>>>,
    /// Whether other processes spend the same, and how this one stands to them.
    standing: Standing,
    /// Who knows what monthly fees include.
    fees: OnceLock<Fees>,
    /// Whether calls are refused as long as nobody knows what is left.
    strict: AtomicBool,
    /// Whether there is a ledger that tells what was spent, and whether it failed to the last time.
    expected: AtomicBool,
    failing: AtomicBool,
    /// Rings when the ledger has told something.
    loaded: Notify,
    /// Who is told of soft budgets that are spent.
    told: Arc<dyn Fn(&Notice<'_>) + Send + Sync>,
    refused: AtomicU64,
    cut_off: AtomicU64,
    crossed: AtomicU64,
}

/// One tenant's purse.
pub(crate) struct Account {
    tenant: TenantId,
    books: Mutex<Books>,
    /// Whether it is among those that want to be loaded.
    wanting: AtomicBool,
    /// Whether it is among those whose leases are looked after, and among those that are in a hurry.
    listed: AtomicBool,
    hurried: AtomicBool,
    /// Whether anything was asked of it since it was last loaded.
    touched: AtomicBool,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What it will be posted under.
    pub id: PostingId,
    /// Who pays.
    pub caller: &'a Caller,
    /// The model called.
    pub model: &'a ModelName,
    /// Its price.
    pub listed: Option<&'a Arc<Listed>>,
    /// Bytes of its prompt.
    pub bytes: usize,
    /// Tokens of an answer it allows at most.
    pub output_max: Option<Tokens>,
    /// How many answers are generated for it, each as long.
    pub choices: u16,
    /// Whether it has an answer in tokens.
    pub answers: bool,
    /// Whether the answer can be cut off on its way.
    pub streams: bool,
    /// Whether tokens, images and GPU time are counted of it: not of a plain service.
    pub measured: bool,
    /// Whether it takes time of GPUs.
    pub gpus: bool,
    /// Whether it is held to budgets and balances; if not, it only counts.
    pub held: bool,
    /// Whether to go by what is known here if the ledger has not told what was spent.
    pub blind: bool,
    /// When.
    pub now: Timestamp,
}

/// A soft budget has been spent.
#[derive(Debug)]
pub struct Notice<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Whether it is one of a single key.
    pub key: bool,
    /// The budget.
    pub limit: Money,
    /// What is spent.
    pub spent: Money,
}

// === impl Purse ===

impl Purse {
    /// Empty purses; `told` hears of soft budgets that are spent. It is called under no lock and must not block.
    pub fn new(told: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            accounts: RwLock::default(),
            wanting: Mutex::default(),
            standing: Standing::default(),
            fees: OnceLock::new(),
            strict: AtomicBool::new(false),
            expected: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            loaded: Notify::new(),
            told: Arc::new(told),
            refused: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            crossed: AtomicU64::new(0),
        })
    }

    /// Whether calls with a hard budget or a balance are refused as long as the ledger has not told what is left
    /// (`on_store_loss: refuse`).
    pub fn set_strict(&self, strict: bool) {
        self.strict.store(strict, Ordering::Relaxed);
    }

    /// From now on there is a ledger that will tell what was spent.
    pub fn expect_ledger(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }

    /// From now on other processes spend the same: [`sharing::share`] is about to find out how many.
    pub fn expect_others(&self) {
        self.standing.join();
    }

    /// From now on tokens beyond those of a monthly fee are reckoned as the invoice does, by the plans that are kept here.
    pub fn expect_fees(&self, registry: Arc<dyn Registry>) {
        // A second one would know the same.
        let _ = self.fees.set(Fees::new(registry));
    }

    /// The ledger did not tell, or does again.
    pub(crate) fn ledger_failed(&self, failed: bool) {
        self.failing.store(failed, Ordering::Relaxed);
        self.loaded.notify_waiters();
    }

    /// Waits until the ledger has told something more, at most so long.
    pub(crate) async fn loaded(&self, within: Duration) {
        // Whether it was told or it took too long: whoever waits looks again.
        let _ = tokio::time::timeout(within, self.loaded.notified()).await;
    }

    /// Whether there is a ledger that tells what was spent, and does so.
    fn is_being_told(&self) -> bool {
        self.expected.load(Ordering::Relaxed) && !self.failing.load(Ordering::Relaxed)
    }

    /// Whether it makes sense to wait until it is known what is left: for a ledger that tells, or for other processes.
    pub(crate) fn will_know(&self) -> bool {
        let shared = matches!(self.standing.footing(), Footing::Joining | Footing::Together { .. });
        self.is_being_told() || (shared && !self.strict())
    }

    /// Whether calls go by what is known here where the ledger has not told.
    fn blind(&self) -> bool {
        !self.strict() && !self.is_being_told()
    }

    /// Whether calls are refused as long as the ledger has not told.
    pub(crate) fn strict(&self) -> bool {
        self.strict.load(Ordering::Relaxed)
    }

    /// Sets aside what a call will likely cost; `rate` says what a usage costs, with GPU time
    /// in milliseconds.
    ///
    /// # Errors
    /// `OverBudget` where not even a short answer can be paid for: which budget, its limit, when it starts anew.
    pub fn reserve(self: &Arc<Self>, ask: &Ask<'_>, rate: impl Fn(&Usage, u64) -> Money) -> Result<Reservation, Error> {
        let terms = &ask.caller.terms;
        let billing = &terms.billing;
        let (prepaid, monthly) = (billing.prepaid, billing.monthly.is_some() && !billing.by_token());
        let account = self.account(&ask.caller.tenant);
        let blind = self.blind() || ask.blind;
        let mut books = account.lock();
        let line = ask.caller.key.as_ref().filter(|_| terms.counts_keys()).map(|key| books.line(key, &terms.kin));
        let key = line.as_ref();
        books.want(prepaid, monthly);
        let limits = books.limits(terms, key, ask.model.as_str(), ask.now);
        books.currency = billing.currency();
        let before = if monthly { books.month.used(ask.now) } else { 0 };
        let included = books.included(billing);
        let (guess, few) = books.habit(ask.model).guess(ask);
        let rates = ask.listed.map(|listed| &listed.rates);
        let cost = |guess: &Guess| {
            rate(&guess.usage, guess.gpu_millis) + rating::overage(billing, rates, (before, included), &guess.usage)
        };
        let (likely, least) = (cost(&guess), cost(&few));
        let charged = likely.is_positive() || rating::chargeable_now(billing, rates, ask.measured) || {
            let beyond = before.saturating_add(guess.usage.total().0.max(1)) > included;
            beyond && rating::chargeable(billing, rates, ask.measured)
        };
        // Of what is charged for, something must be left, whatever little is known of it.
        let (likely, least) = if charged { (likely.max(LEAST), least.max(LEAST)) } else { (likely, least) };
        let mut amount = likely;
        let footing = self.standing.footing().known(ask.blind);
        let left = if ask.held { books.left(&limits, key, prepaid, blind, footing) } else { Ok(None) };
        // What cannot be cut off needs all of it.
        let needed = if ask.streams { least } else { likely };
        let mut hurry = false;
        let refused = match left {
            Ok(Some((Room { money, more: true, .. }, _))) if charged && money < needed && !ask.blind => {
                hurry = true;
                Some(Spent::Unknown)
            }
            Ok(Some((Room { money, .. }, spent))) if charged && money < least => Some(spent),
            Ok(Some((Room { money, more, .. }, _))) => {
                amount = likely.min(money.max(Money::ZERO));
                hurry = more && money < likely.times(2);
                None
            }
            Ok(None) => None,
            // What costs nothing cannot spend too much.
            Err(_) if !charged => None,
            Err(unknown) => Some(unknown),
        };
        let shared = matches!(footing, Footing::Together { .. }) && ask.held && charged;
        if shared && left.is_ok_and(|left| left.is_some()) {
            books.need(&limits, key, prepaid, (likely, footing));
            self.standing.list(&account, hurry);
        }
        let wanting = books.unloaded;
        account.touched.store(true, Ordering::Relaxed);
        if let Some(spent) = refused {
            drop(books);
            self.want(wanting, &account);
            // Who waits for the ledger asks again: that is no refusal yet, and none because something is spent.
            if spent != Spent::Unknown {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            return Err(refusal::error(spent, least, &ask.caller.tenant, billing.currency(), ask.now));
        }
        books.set_aside(&limits, key, prepaid, amount);
        let tokens = if monthly { guess.usage.total().0 } else { 0 };
        books.month.pending = books.month.pending.saturating_add(tokens);
        drop(books);
        self.want(wanting, &account);
        Ok(Reservation {
            id: ask.id,
            purse: Arc::clone(self),
            account,
            caller: ask.caller.clone(),
            line,
            model: ask.model.clone(),
            listed: ask.listed.cloned(),
            limits,
            prepaid,
            held: ask.held,
            amount,
            before,
            included,
            tokens,
            bytes: ask.bytes,
            choices: ask.choices,
            estimate: guess.usage,
            settled: false,
        })
    }

    /// Charges that were settled here have been posted.
    pub fn posted<'a>(&self, charges: impl IntoIterator<Item = &'a Charge>) {
        for charge in charges {
            if let Some(account) = self.known(&charge.tenant) {
                account.lock().posted(charge);
            }
        }
    }

    fn account(&self, tenant: &TenantId) -> Arc<Account> {
        if let Some(known) = self.known(tenant) {
            return known;
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(accounts.entry(tenant.clone()).or_insert_with(|| {
            let (books, wanting, listed, hurried, touched) = Default::default();
            Arc::new(Account { tenant: tenant.clone(), books, wanting, listed, hurried, touched })
        }))
    }

    fn known(&self, tenant: &TenantId) -> Option<Arc<Account>> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    /// Puts an account on the list of those the ledger is to be asked about, once.
    fn want(&self, wanting: bool, account: &Arc<Account>) {
        if wanting && !account.wanting.swap(true, Ordering::AcqRel) {
            self.wanting.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(account));
        }
    }

    fn tell(&self, tenant: &TenantId, crossed: &[Crossed]) {
        for crossed in crossed {
            self.crossed.fetch_add(1, Ordering::Relaxed);
            let Crossed { key, limit, spent, .. } = *crossed;
            (self.told)(&Notice { tenant, key, limit, spent });
        }
    }

    /// What is reserved at all levels of all tenants; zero when no call is under way.
    pub fn pending(&self) -> Money {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let of = |account: &Arc<Account>| {
            let mut books = account.lock();
            books.balance.pending + books.counters().map(|(_, counter)| counter.pending).sum()
        };
        accounts.values().map(of).sum()
    }

    /// What is spent and what is reserved of a tenant, the most of any of its counters. For tests and audits.
    pub fn taken(&self, tenant: &TenantId) -> (Money, Money) {
        let Some(account) = self.known(tenant) else { return Default::default() };
        let mut books = account.lock();
        let of = |(_, counter): (_, &mut counter::Counter)| (counter.spent(), counter.pending);
        books.counters().map(of).max_by_key(|(spent, pending)| *spent + *pending).unwrap_or_default()
    }
}

impl Gauges for Purse {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let mut show = |name, help, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed) as f64;
            to(Sample { name, help, counter: true, labels: Vec::new(), value });
        };
        show("sluice_budget_refused_total", "Calls refused because a budget or balance is spent.", &self.refused);
        show("sluice_budget_cut_off_total", "Streams cut off because a budget or balance was spent.", &self.cut_off);
        show("sluice_budget_soft_spent_total", "Soft budgets that were spent.", &self.crossed);
        let help =
            "What is set aside for calls under way, summed over all budgets and balances, whatever their currency.";
        let value = self.pending().pico() as f64 / PICO;
        to(Sample { name: "sluice_budget_reserved", help, counter: false, labels: Vec::new(), value });
        self.standing.show(to);
    }
}

// === impl Account ===

impl Account {
    fn lock(&self) -> MutexGuard<'_, Books> {
        // Poisoned or not, the books are whole: each change is plain arithmetic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod history;
#[cfg(test)]
mod slowly;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;
#[cfg(test)]
mod view;
