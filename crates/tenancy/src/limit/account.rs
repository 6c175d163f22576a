//! All of one tenant's limits, under one short lock: a call passes every level in one step, or takes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use kernel::share::{Grant, Order};
use kernel::{Caller, KeyId, Limits, ModelName, Moment, TenantId};

use super::estimate::Learned;
use super::level::{Blocked, Dimension, Footing, Level};

/// One tenant's limits.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) tenant: TenantId,
    levels: Mutex<Levels>,
}

#[derive(Debug, Default)]
pub(super) struct Levels {
    own: Level,
    keys: HashMap<KeyId, Level, FixedState>,
    models: HashMap<ModelName, Level, FixedState>,
    pub(super) learned: HashMap<ModelName, Learned, FixedState>,
    /// Whether it is among those whose leases are looked after.
    pub(super) listed: bool,
}

/// Which levels a call passes, and how much each lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    own: Limits,
    key: Option<(KeyId, Limits)>,
    model: Option<(ModelName, Limits)>,
}

/// Which of a tenant's levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Tenant,
    Key(KeyId),
    Model(ModelName),
}

impl Account {
    pub(super) fn new(tenant: TenantId) -> Self {
        Self { tenant, levels: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Levels> {
        // Each level is changed by plain assignments: a panic elsewhere leaves none of them half changed.
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Way ===

impl Way {
    /// The levels of a call; `None` where nothing limits it.
    pub(super) fn of(caller: &Caller, model: &ModelName) -> Option<Self> {
        let terms = &*caller.terms;
        let own = terms.limits;
        let key = caller.key.as_ref().filter(|_| terms.key_limits.any()).map(|key| (key.clone(), terms.key_limits));
        let patterns = terms.model_limits.iter().filter(|one| kernel::contract::matches(&one.model, model.as_str()));
        // A whole name goes before a beginning, a longer beginning before a shorter one, of two alike the first.
        let rank = |pattern: &str| (!pattern.ends_with('*'), pattern.len());
        let closest = patterns.reduce(|best, one| if rank(&one.model) > rank(&best.model) { one } else { best });
        let model = closest.filter(|one| one.limits.any()).map(|one| (model.clone(), one.limits));
        (own.any() || key.is_some() || model.is_some()).then_some(Self { own, key, model })
    }
}

// === impl Levels ===

impl Levels {
    /// Puts the limits of a call in place; makes the levels that are not there yet.
    pub(super) fn set(&mut self, way: &Way) {
        self.own.set(way.own);
        if let Some((key, limits)) = &way.key {
            match self.keys.get_mut(key) {
                Some(level) => level.set(*limits),
                None => self.keys.entry(key.clone()).or_default().set(*limits),
            }
        }
        if let Some((model, limits)) = &way.model {
            match self.models.get_mut(model) {
                Some(level) => level.set(*limits),
                None => self.models.entry(model.clone()).or_default().set(*limits),
            }
        }
    }

    /// What holds a call up the longest, and whose.
    pub(super) fn blocked(&self, way: &Way, footing: Footing, now: Moment) -> Option<(Blocked, Whose)> {
        let held_up =
            self.on(way).into_iter().flatten().filter_map(|(level, whose)| Some((level.blocked(footing, now)?, whose)));
        held_up.max_by_key(|(blocked, _)| blocked.wait).map(|(blocked, whose)| (blocked, way.named(whose)))
    }

    /// The levels of a call.
    pub(super) fn on(&self, way: &Way) -> [Option<(&Level, Step)>; 3] {
        let key = way.key.as_ref().and_then(|(key, _)| self.keys.get(key));
        let model = way.model.as_ref().and_then(|(model, _)| self.models.get(model));
        let own = way.own.any().then_some(&self.own);
        [
            own.map(|level| (level, Step::Own)),
            key.map(|level| (level, Step::Key)),
            model.map(|level| (level, Step::Model)),
        ]
    }

    /// The same, to be changed.
    pub(super) fn on_mut(&mut self, way: &Way, change: &mut dyn FnMut(&mut Level)) {
        let key = way.key.as_ref().and_then(|(key, _)| self.keys.get_mut(key));
        let model = way.model.as_ref().and_then(|(model, _)| self.models.get_mut(model));
        let own = way.own.any().then_some(&mut self.own);
        [own, key, model].into_iter().flatten().for_each(change);
    }

    /// Forgets what is as if it had never been; tells whether that is all.
    pub(super) fn forget(&mut self, now: Moment) -> bool {
        self.keys.retain(|_, level| !level.at_rest(now));
        self.models.retain(|_, level| !level.at_rest(now));
        self.keys.is_empty() && self.models.is_empty() && self.own.at_rest(now)
    }

    /// What is to be exchanged with other processes now.
    pub(super) fn orders(
        &mut self,
        tenant: &TenantId,
        nodes: u32,
        now: Moment,
        to: &mut Vec<(Order, Whose, Dimension)>,
    ) {
        self.each(&mut |whose, level| {
            level.orders(nodes, now, &mut |dimension, wish| {
                let counter = format!("{}:{}", whose.counter(), dimension.word());
                to.push((Order { tenant: tenant.clone(), counter, wish }, whose.clone(), dimension));
            });
        });
    }

    /// What came of it.
    pub(super) fn granted(
        &mut self,
        whose: &Whose,
        dimension: Dimension,
        grant: Option<Grant>,
        nodes: u32,
        now: Moment,
    ) {
        let level = match whose {
            Whose::Tenant => Some(&mut self.own),
            Whose::Key(key) => self.keys.get_mut(key),
            Whose::Model(model) => self.models.get_mut(model),
        };
        level.into_iter().for_each(|level| level.granted(dimension, grant, nodes, now));
    }

    /// Lets go of all leases, and is no longer looked after.
    pub(super) fn part(&mut self) {
        self.each(&mut |_, level| level.part());
        self.listed = false;
    }

    /// Whether no lease of it needs looking after.
    pub(super) fn shares_nothing(&mut self) -> bool {
        let mut nothing = true;
        self.each(&mut |_, level| nothing &= level.shares_nothing());
        nothing
    }

    /// The most that may pass beyond each limit.
    pub(super) fn bounds(&mut self, to: &mut dyn FnMut(Dimension, u64)) {
        self.each(&mut |_, level| level.bounds().for_each(|(dimension, bound)| to(dimension, bound)));
    }

    fn each(&mut self, see: &mut dyn FnMut(Whose, &mut Level)) {
        see(Whose::Tenant, &mut self.own);
        self.keys.iter_mut().for_each(|(key, level)| see(Whose::Key(key.clone()), level));
        self.models.iter_mut().for_each(|(model, level)| see(Whose::Model(model.clone()), level));
    }
}

/// One of the levels of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Own,
    Key,
    Model,
}

impl Way {
    fn named(&self, step: Step) -> Whose {
        let key = || self.key.as_ref().map(|(key, _)| Whose::Key(key.clone()));
        let model = || self.model.as_ref().map(|(model, _)| Whose::Model(model.clone()));
        let found = match step {
            Step::Own => None,
            Step::Key => key(),
            Step::Model => model(),
        };
        found.unwrap_or(Whose::Tenant)
    }
}

impl Whose {
    /// Its part of a shared counter's name. The key's length tells where it ends: what follows cannot be taken for part of it.
    fn counter(&self) -> String {
        match self {
            Self::Tenant => "t".to_owned(),
            Self::Key(key) => format!("k:{}:{key}", key.as_str().len()),
            Self::Model(model) => format!("m:{}:{model}", model.as_str().len()),
        }
    }
}
