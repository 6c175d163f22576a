//! What one tenant has spent, has reserved and may still spend.
//!
//! Behind one short lock: whatever happens to a call's money happens at all levels in one step or not at all. Pure: knows
//! no store and no clock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use kernel::contract::{Budget, BudgetScope, Period};
use kernel::store::ledger::{Charge, PostingId};
use kernel::{Billing, Currency, KeyId, ModelName, Money, Terms, Timestamp};
use smallvec::SmallVec;

use super::counter::{Balance, Counter, Included};
use super::habit::Habit;
use super::lease::{Footing, Room};
use super::period;

/// Bound: models a tenant has habits with; others are thought to be like any.
const HABITS_MAX: usize = 1000;
/// Bound: charges with overage that wait to be posted. A daybook is full before; what is beyond counts twice once it is posted,
/// until its period ends.
const FRESH_MAX: usize = 1_000_000;

/// One tenant's books.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) tenant: Vec<Counter>,
    /// By the name of what a key descends from: keys that take each other's place spend the same.
    pub(super) keys: HashMap<KeyId, Own>,
    /// That name, for keys that have one beside their own.
    names: HashMap<KeyId, KeyId>,
    /// Overage of what is settled here and not posted yet, where there is any.
    fresh: HashMap<PostingId, Money>,
    habits: HashMap<ModelName, Habit>,
    pub(super) balance: Balance,
    pub(super) month: Included,
    /// The currency of its plan.
    pub(super) currency: Currency,
    /// Whether there may be something that the ledger has not been asked about.
    pub(super) unloaded: bool,
}

/// What the keys of one line spend: a key and those that it took the place of.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) ids: SmallVec<[KeyId; 1]>,
    pub(super) counters: Vec<Counter>,
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

/// Where a budget is counted: among a key's, or among the tenant's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) key: bool,
    at: usize,
}

/// The budgets that apply to a call.
pub(super) type Limits = SmallVec<[Limit; 4]>;

/// Why there is no money.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spent {
    /// A budget: which, what is spent of it, and what is reserved.
    Budget { key: bool, limit: Money, per: Period, spent: Money, reserved: Money },
    /// The balance: what of it is not spent, and what of that is reserved.
    Balance { left: Money, reserved: Money },
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
        self.unloaded |= self.month.wanted && !self.month.turn(now).loaded;
        for (budget, own) in
            terms.budgets.iter().map(|budget| (budget, false)).chain(terms.key_budgets.iter().map(|own| (own, true)))
        {
            if !budget.counts(model) {
                continue;
            }
            let Some(Place { key: by_key, at }) = self.place(budget, own, key, now) else { continue };
            let before = limits.iter().filter(|limit: &&Limit| limit.key == by_key && limit.at == at && limit.hard);
            let tightest = before.map(|limit| limit.limit).chain(budget.hard.then_some(budget.limit)).min();
            if let Some(counter) = self.counter_at(Place { key: by_key, at }, key) {
                counter.hard = tightest.or(counter.hard);
            }
            let first = !limits.iter().any(|other: &Limit| other.key == by_key && other.at == at);
            limits.push(Limit { key: by_key, at, limit: budget.limit, per: budget.per, hard: budget.hard, first });
        }
        limits
    }

    /// Where a budget is counted, which is made if there was none; `None`: it counts keys, and there is none.
    pub(super) fn place(&mut self, budget: &Budget, own: bool, key: Option<&KeyId>, now: Timestamp) -> Option<Place> {
        let by_key = own || budget.scope == BudgetScope::Key;
        let counters = match key.filter(|_| by_key) {
            Some(key) => &mut self.keys.entry(key.clone()).or_default().counters,
            None if by_key => return None,
            None => &mut self.tenant,
        };
        let at = counters.iter().position(|counter| counter.is(budget)).unwrap_or_else(|| {
            counters.push(Counter::new(budget, now));
            counters.len() - 1
        });
        if let Some(counter) = counters.get_mut(at) {
            counter.roll(now);
            self.unloaded |= !counter.spending.now().loaded;
        }
        Some(Place { key: by_key, at })
    }

    /// A key, and all keys whose spending counts as its own; gives the name under which that is counted. Where a key has spent
    /// already, that name stays whatever its line is said to be later: under another one what it spent would count twice.
    pub(super) fn line(&mut self, key: &KeyId, kin: &[KeyId]) -> KeyId {
        let known = self.names.get(key).or_else(|| self.keys.get_key_value(key).map(|(own, _)| own));
        let name = &known.or_else(|| kin.first()).unwrap_or(key).clone();
        let of = |id: &&KeyId| *id != name && !self.names.contains_key(*id);
        let new: SmallVec<[&KeyId; 2]> = kin.iter().chain([key]).filter(of).collect();
        for id in new {
            self.names.insert(id.clone(), name.clone());
        }
        let own = match self.keys.entry(name.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Own { ids: SmallVec::from_iter([name.clone()]), ..Own::default() }),
        };
        for id in kin.iter().chain([key]) {
            if !own.ids.contains(id) {
                own.ids.push(id.clone());
                // What was spent with it is not among what is known.
                own.counters.iter_mut().for_each(|counter| counter.spending.now_mut().loaded = false);
            }
        }
        name.clone()
    }

    /// Tokens that this month's fee includes.
    pub(super) fn included(&mut self, billing: &Billing) -> u64 {
        self.month.promised = billing.monthly.as_ref().map_or(0, |monthly| monthly.included_tokens);
        self.month.months.now().included.unwrap_or(self.month.promised)
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
        footing: Footing,
    ) -> Result<Option<(Room, Spent)>, Spent> {
        let mut least: Option<(Room, Spent)> = None;
        let mut note = |room: Room, spent: Spent| {
            if least.is_none_or(|(other, _)| room.money < other.money) {
                least = Some((room, spent));
            }
        };
        for limit in limits.iter().filter(|limit| limit.hard) {
            let Some(counter) = self.counter(limit, key) else { continue };
            let tally = counter.spending.now();
            if !tally.loaded && !blind {
                return Err(Spent::Unknown);
            }
            let room = tally.lease.room(&tally.stock(limit.limit, counter.pending), footing);
            let reserved = counter.pending;
            // What others have spent is known of what all have left.
            let spent = counter.spent().max(limit.limit - room.all - reserved);
            note(room, Spent::Budget { key: limit.key, limit: limit.limit, per: limit.per, spent, reserved });
        }
        if prepaid {
            match (self.balance.loaded, blind) {
                (true, _) => {
                    let room = self.balance.lease.room(&self.balance.stock(), footing);
                    let reserved = self.balance.pending;
                    let left = self.balance.left().min(room.all) + reserved;
                    note(room, Spent::Balance { left, reserved });
                }
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
        (id, at): (PostingId, Timestamp),
    ) -> SmallVec<[Crossed; 1]> {
        let mut crossed = SmallVec::new();
        if overage.is_positive() && self.fresh.len() < FRESH_MAX {
            self.fresh.insert(id, overage);
        }
        for limit in limits.iter() {
            let Some(counter) = self.counter_mut(limit, key) else { continue };
            let number = period::number(counter.per, at);
            if counter.spending.number().is_some_and(|now| now < number) {
                counter.roll(at);
            }
            // What ended just before midnight belongs to the day that is over.
            let tally = counter.spending.made_at(number);
            if limit.first {
                tally.unposted += amount;
                tally.fresh += overage;
                tally.mine += amount + overage;
            }
            let (spent, before) = (tally.spent(), tally.spent() - amount - overage);
            if !limit.hard && before <= limit.limit && spent > limit.limit {
                crossed.push(Crossed { key: limit.key, limit: limit.limit, per: limit.per, spent });
            }
        }
        if prepaid {
            self.balance.unposted += amount;
            self.balance.mine += amount;
        }
        crossed
    }

    /// A charge that was settled here has been posted.
    pub(super) fn posted(&mut self, charge: &Charge) {
        let overage = self.fresh.remove(&charge.id).unwrap_or_default();
        let own = charge.key.as_ref().and_then(|key| self.keys.get_mut(self.names.get(key).unwrap_or(key)));
        for counter in self.tenant.iter_mut().chain(own.into_iter().flat_map(|own| &mut own.counters)) {
            if !counter.models.is_empty() && !counter.models.iter().any(|model| matches(model, &charge.model)) {
                continue;
            }
            if let Some(tally) = counter.spending.at(period::number(counter.per, charge.at)) {
                // What was settled before the counter was there is in no `unposted`.
                let moved = charge.amount.min(tally.unposted);
                tally.unposted -= moved;
                tally.posted += moved;
                let moved = overage.min(tally.fresh);
                tally.fresh -= moved;
                tally.overage += moved;
            }
        }
        if self.balance.wanted {
            let moved = charge.amount.min(self.balance.unposted);
            self.balance.unposted -= moved;
            self.balance.posted -= moved;
        }
        let month = self.month.months.at(period::number(Period::Month, charge.at)).filter(|_| self.month.wanted);
        if let Some(month) = month {
            let moved = charge.usage.total().0.min(month.unposted);
            month.unposted -= moved;
            month.posted += moved;
        }
    }

    /// The size of calls to a model.
    pub(super) fn habit(&self, model: &ModelName) -> Habit {
        self.habits.get(model).copied().unwrap_or_default()
    }

    /// What a call turned out to be.
    pub(super) fn learn(
        &mut self,
        model: &ModelName,
        bytes: usize,
        (usage, gpu_millis): (&kernel::Usage, u64),
        choices: u16,
    ) {
        let learn = |habit: &mut Habit| {
            habit.learn_made(usage.images, gpu_millis);
            if !usage.estimated {
                habit.learn(bytes, usage, choices);
            }
        };
        if let Some(habit) = self.habits.get_mut(model) {
            learn(habit);
        } else if self.habits.len() < HABITS_MAX {
            let mut habit = Habit::default();
            learn(&mut habit);
            self.habits.insert(model.clone(), habit);
        }
    }

    /// All counters, with whose they are.
    pub(super) fn counters(&mut self) -> impl Iterator<Item = (Option<&[KeyId]>, &mut Counter)> {
        let own = self.keys.values_mut().flat_map(|own| {
            let Own { ids, counters } = own;
            counters.iter_mut().map(|counter| (Some(ids.as_slice()), counter))
        });
        self.tenant.iter_mut().map(|counter| (None, counter)).chain(own)
    }

    pub(super) fn counter(&self, limit: &Limit, key: Option<&KeyId>) -> Option<&Counter> {
        let list = if limit.key { &self.keys.get(key?)?.counters } else { &self.tenant };
        list.get(limit.at)
    }

    pub(super) fn counter_mut(&mut self, limit: &Limit, key: Option<&KeyId>) -> Option<&mut Counter> {
        self.counter_at(Place { key: limit.key, at: limit.at }, key)
    }

    pub(super) fn counter_at(&mut self, place: Place, key: Option<&KeyId>) -> Option<&mut Counter> {
        let list = if place.key { &mut self.keys.get_mut(key?)?.counters } else { &mut self.tenant };
        list.get_mut(place.at)
    }
}

fn matches(pattern: &str, model: &ModelName) -> bool {
    kernel::contract::matches(pattern, model.as_str())
}
