//! What one tenant has spent, has reserved and may still spend.
//!
//! Behind one short lock: whatever happens to a call's money happens at all levels in one step or not at all. Pure: knows
//! no store and no clock.

use std::collections::HashMap;

use kernel::contract::{Budget, BudgetScope, Period};
use kernel::store::ledger::Charge;
use kernel::{Currency, KeyId, ModelName, Money, Terms, Timestamp};
use smallvec::SmallVec;

use super::habit::Habit;
use super::period;

/// Bound: models a tenant has habits with; others are thought to be like any.
const HABITS_MAX: usize = 1000;

/// One tenant's books.
#[derive(Debug, Default)]
pub(super) struct Books {
    tenant: Vec<Counter>,
    keys: HashMap<KeyId, Vec<Counter>>,
    habits: HashMap<ModelName, Habit>,
    pub(super) balance: Balance,
    pub(super) month: Included,
    /// The currency of its plan.
    pub(super) currency: Currency,
    /// Whether there may be something that the ledger has not been asked about.
    pub(super) unloaded: bool,
}

/// What is spent under one budget, or under several that count the same.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) per: Period,
    pub(super) models: Box<[String]>,
    /// Which period the rest is of.
    pub(super) number: i64,
    /// What the ledger knows.
    pub(super) posted: Money,
    /// What is settled here and not posted yet.
    pub(super) unposted: Money,
    /// Tokens beyond a month's included ones: they are charged by its invoice, but spent now.
    pub(super) overage: Money,
    /// What is reserved.
    pub(super) pending: Money,
    /// Whether the ledger has been asked.
    pub(super) loaded: bool,
}

/// What was paid in, where calls are paid from that.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// What the ledger knows.
    pub(super) posted: Money,
    pub(super) unposted: Money,
    pub(super) pending: Money,
    /// Whether anybody asked for it.
    pub(super) wanted: bool,
    pub(super) loaded: bool,
}

/// Tokens of this month, where a fee includes some.
#[derive(Debug, Default)]
pub(super) struct Included {
    pub(super) number: i64,
    pub(super) posted: u64,
    pub(super) unposted: u64,
    pub(super) pending: u64,
    pub(super) wanted: bool,
    pub(super) loaded: bool,
}

/// One budget that applies to a call, and where it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) key: bool,
    at: usize,
    pub(super) limit: Money,
    pub(super) per: Period,
    pub(super) hard: bool,
    /// Whether it is the first of those that are counted in the same place.
    first: bool,
}

/// The budgets that apply to a call.
pub(super) type Limits = SmallVec<[Limit; 4]>;

/// Why there is no money.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spent {
    /// A budget: which, and what is spent or reserved.
    Budget { key: bool, limit: Money, per: Period, spent: Money },
    /// The balance, and what of it is left.
    Balance(Money),
    /// Nobody knows: the ledger has not been asked yet.
    Unknown,
}

/// A soft budget that was just spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Crossed {
    pub(super) key: bool,
    pub(super) limit: Money,
    pub(super) per: Period,
    pub(super) spent: Money,
}

// === impl Books ===

impl Books {
    /// The budgets that apply to a call; makes counters for those seen for the first time.
    pub(super) fn limits(&mut self, terms: &Terms, key: Option<&KeyId>, model: &str, now: Timestamp) -> Limits {
        let mut limits = Limits::new();
        for (budget, own) in
            terms.budgets.iter().map(|budget| (budget, false)).chain(terms.key_budgets.iter().map(|own| (own, true)))
        {
            if !budget.counts(model) {
                continue;
            }
            let by_key = own || budget.scope == BudgetScope::Key;
            let counters = match key.filter(|_| by_key) {
                Some(key) if self.keys.contains_key(key) => self.keys.get_mut(key),
                Some(key) => Some(self.keys.entry(key.clone()).or_default()),
                None if by_key => continue,
                None => Some(&mut self.tenant),
            };
            let Some(counters) = counters else { continue };
            let at = counters.iter().position(|counter| counter.is(budget)).unwrap_or_else(|| {
                counters.push(Counter::new(budget, now));
                self.unloaded = true;
                counters.len() - 1
            });
            if let Some(counter) = counters.get_mut(at) {
                counter.roll(now);
            }
            let first = !limits.iter().any(|other: &Limit| other.key == by_key && other.at == at);
            limits.push(Limit { key: by_key, at, limit: budget.limit, per: budget.per, hard: budget.hard, first });
        }
        limits
    }

    /// From now on its balance, or its month's tokens, are asked for.
    pub(super) fn want(&mut self, balance: bool, month: bool) {
        self.unloaded |= (balance && !self.balance.wanted) || (month && !self.month.wanted);
        self.balance.wanted |= balance;
        self.month.wanted |= month;
    }

    /// What may still be spent of everything that has an end; `None`: nothing has.
    ///
    /// # Errors
    /// `Unknown` where the ledger has not been asked, and nothing may be spent before it is.
    pub(super) fn left(
        &self,
        limits: &Limits,
        key: Option<&KeyId>,
        prepaid: bool,
        blind: bool,
    ) -> Result<Option<(Money, Spent)>, Spent> {
        let mut least: Option<(Money, Spent)> = None;
        let mut note = |left: Money, spent: Spent| {
            if least.is_none_or(|(other, _)| left < other) {
                least = Some((left, spent));
            }
        };
        for limit in limits.iter().filter(|limit| limit.hard) {
            let Some(counter) = self.counter(limit, key) else { continue };
            if !counter.loaded && !blind {
                return Err(Spent::Unknown);
            }
            let spent = counter.spent() + counter.pending;
            note(limit.limit - spent, Spent::Budget { key: limit.key, limit: limit.limit, per: limit.per, spent });
        }
        if prepaid {
            match (self.balance.loaded, blind) {
                (true, _) => note(self.balance.left(), Spent::Balance(self.balance.left())),
                (false, true) => {}
                (false, false) => return Err(Spent::Unknown),
            }
        }
        Ok(least)
    }

    /// Sets money aside, or frees it: `change` is added everywhere.
    pub(super) fn set_aside(&mut self, limits: &Limits, key: Option<&KeyId>, prepaid: bool, change: Money) {
        for limit in limits.iter().filter(|limit| limit.first) {
            if let Some(counter) = self.counter_mut(limit, key) {
                counter.pending += change;
            }
        }
        if prepaid {
            self.balance.pending += change;
        }
    }

    /// Spends: `amount` will be posted, `overage` will not. Gives the soft budgets that are spent by it.
    pub(super) fn spend(
        &mut self,
        limits: &Limits,
        key: Option<&KeyId>,
        prepaid: bool,
        (amount, overage): (Money, Money),
        at: Timestamp,
    ) -> SmallVec<[Crossed; 1]> {
        let mut crossed = SmallVec::new();
        for limit in limits.iter() {
            let Some(counter) = self.counter_mut(limit, key) else { continue };
            counter.roll(at);
            // What ended just before midnight belongs to the day that is over.
            let current = counter.number == period::number(counter.per, at);
            if limit.first && current {
                counter.unposted += amount;
                counter.overage += overage;
            }
            let (spent, before) = (counter.spent(), counter.spent() - amount - overage);
            if !limit.hard && current && before <= limit.limit && spent > limit.limit {
                crossed.push(Crossed { key: limit.key, limit: limit.limit, per: limit.per, spent });
            }
        }
        if prepaid {
            self.balance.unposted += amount;
        }
        crossed
    }

    /// A charge that was settled here has been posted.
    pub(super) fn posted(&mut self, charge: &Charge) {
        let own = charge.key.as_ref().and_then(|key| self.keys.get_mut(key));
        for counter in self.tenant.iter_mut().chain(own.into_iter().flatten()) {
            let counts = counter.number == period::number(counter.per, charge.at)
                && (counter.models.is_empty() || counter.models.iter().any(|model| matches(model, &charge.model)));
            if counts {
                // What was settled before the counter was there is in no `unposted`.
                let moved = charge.amount.min(counter.unposted);
                counter.unposted -= moved;
                counter.posted += moved;
            }
        }
        if self.balance.wanted {
            let moved = charge.amount.min(self.balance.unposted);
            self.balance.unposted -= moved;
            self.balance.posted -= moved;
        }
        if self.month.wanted && self.month.number == period::number(Period::Month, charge.at) {
            let moved = charge.usage.total().0.min(self.month.unposted);
            self.month.unposted -= moved;
            self.month.posted += moved;
        }
    }

    /// The size of calls to a model.
    pub(super) fn habit(&self, model: &ModelName) -> Habit {
        self.habits.get(model).copied().unwrap_or_default()
    }

    /// What a call turned out to be.
    pub(super) fn learn(&mut self, model: &ModelName, bytes: usize, usage: &kernel::Usage, choices: u16) {
        if let Some(habit) = self.habits.get_mut(model) {
            habit.learn(bytes, usage, choices);
        } else if self.habits.len() < HABITS_MAX {
            let mut habit = Habit::default();
            habit.learn(bytes, usage, choices);
            self.habits.insert(model.clone(), habit);
        }
    }

    /// All counters, with whose they are.
    pub(super) fn counters(&mut self) -> impl Iterator<Item = (Option<&KeyId>, &mut Counter)> {
        let own = self.keys.iter_mut().flat_map(|(key, list)| list.iter_mut().map(move |counter| (Some(key), counter)));
        self.tenant.iter_mut().map(|counter| (None, counter)).chain(own)
    }

    fn counter(&self, limit: &Limit, key: Option<&KeyId>) -> Option<&Counter> {
        let list = if limit.key { self.keys.get(key?)? } else { &self.tenant };
        list.get(limit.at)
    }

    fn counter_mut(&mut self, limit: &Limit, key: Option<&KeyId>) -> Option<&mut Counter> {
        let list = if limit.key { self.keys.get_mut(key?)? } else { &mut self.tenant };
        list.get_mut(limit.at)
    }
}

fn matches(pattern: &str, model: &ModelName) -> bool {
    kernel::contract::matches(pattern, model.as_str())
}

// === impl Counter ===

impl Counter {
    fn new(budget: &Budget, now: Timestamp) -> Self {
        Self {
            per: budget.per,
            models: budget.models.clone().into(),
            number: period::number(budget.per, now),
            posted: Money::ZERO,
            unposted: Money::ZERO,
            overage: Money::ZERO,
            pending: Money::ZERO,
            loaded: false,
        }
    }

    /// Whether a budget is counted here. How much it allows is no part of it: a new limit keeps what was spent.
    fn is(&self, budget: &Budget) -> bool {
        self.per == budget.per && *self.models == *budget.models
    }

    /// What is spent, posted or not.
    pub(super) fn spent(&self) -> Money {
        self.posted + self.unposted + self.overage
    }

    /// Begins a new period if it is time. What is reserved goes on into it: it will be spent there.
    pub(super) fn roll(&mut self, now: Timestamp) {
        let number = period::number(self.per, now);
        if number > self.number {
            self.number = number;
            (self.posted, self.unposted, self.overage) = (Money::ZERO, Money::ZERO, Money::ZERO);
        }
    }
}

// === impl Balance ===

impl Balance {
    /// What is left of it.
    pub(super) fn left(&self) -> Money {
        self.posted - self.unposted - self.pending
    }
}

// === impl Included ===

impl Included {
    /// Tokens used this month, those of calls under way included.
    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        let number = period::number(Period::Month, now);
        if number > self.number {
            // The very first time nothing is known of the month.
            self.loaded = self.loaded && self.number != 0;
            (self.number, self.posted, self.unposted) = (number, 0, 0);
        }
        self.posted.saturating_add(self.unposted).saturating_add(self.pending)
    }
}
