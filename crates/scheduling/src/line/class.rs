//! One class: its tenants, their keys, and their tickets.

use std::collections::{BTreeSet, VecDeque};

use kernel::{Caller, KeyId, Priority, TenantId};

use slab::Slab;

use super::level::Level;
use super::{Age, By, Cost, Ticket};

/// The tickets of one class, in two levels of fair turns.
#[derive(Debug)]
pub(super) struct Class<W> {
    tenants: Level<TenantId, Tenant>,
    tickets: Slab<Ticket<W>>,
    /// The oldest ticket of every tenant that could be served.
    oldest: BTreeSet<(Age, usize)>,
    bytes: u64,
    parked: usize,
}

/// A tenant's tickets.
#[derive(Debug, Default)]
struct Tenant {
    keys: Level<Option<KeyId>, Key>,
    /// Every ticket in the order of arrival.
    ages: BTreeSet<Age>,
    /// Its entry among the oldest of its class.
    oldest: Option<Age>,
    bytes: u64,
    /// Its quota is used up.
    parked: bool,
}

/// A key's tickets: age, and place in the slab.
#[derive(Debug, Default)]
struct Key {
    /// The oldest first.
    waiting: VecDeque<(Age, usize)>,
    /// Passed over until the round is over; empty between rounds.
    aside: Vec<(Age, usize)>,
}

/// What was charged for a call that is being served; to be [settled](super::Line::settle) once.
#[derive(Debug)]
#[must_use = "a charge that is never settled keeps its tenant from being forgotten"]
pub(crate) struct Charge {
    pub(super) class: Priority,
    tenant: usize,
    key: usize,
    /// What was charged, before it was divided by shares.
    pub(super) cost: Cost,
    /// What was charged at either level, by share.
    shares: [Cost; 2],
}

impl<W> Default for Class<W> {
    fn default() -> Self {
        Self { tenants: Level::default(), tickets: Slab::new(), oldest: BTreeSet::new(), bytes: 0, parked: 0 }
    }
}

impl Key {
    fn oldest(&self) -> Option<Age> {
        self.waiting.front().map(|(age, _)| *age)
    }

    /// Nearly always at the end; a call that comes back goes where it stood.
    fn insert(&mut self, age: Age, ticket: usize) {
        let at = self.waiting.partition_point(|(other, _)| *other < age);
        self.waiting.insert(at, (age, ticket));
    }

    fn remove(&mut self, age: Age) -> Option<usize> {
        let at = self.waiting.binary_search_by_key(&age, |(age, _)| *age).ok()?;
        self.waiting.remove(at).map(|(_, ticket)| ticket)
    }

    /// Everybody passed over stands where they stood.
    fn resume(&mut self) {
        for (age, ticket) in std::mem::take(&mut self.aside) {
            self.insert(age, ticket);
        }
    }
}

impl<W> Class<W> {
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn tenants_waiting(&self) -> usize {
        self.tenants.waiting()
    }

    pub(super) fn of_tenant(&self, tenant: &TenantId) -> (usize, u64) {
        let found = self.tenants.find(tenant).and_then(|at| self.tenants.get(at));
        found.map_or((0, 0), |member| (member.inner.ages.len(), member.inner.bytes))
    }

    /// The oldest ticket that could be served: those of parked tenants, who wait for themselves, do not count.
    pub(super) fn oldest(&self) -> Option<Age> {
        self.oldest.first().map(|(age, _)| *age)
    }

    /// The oldest ticket of all.
    pub(super) fn oldest_of_all(&self) -> Option<Age> {
        self.tenants.iter().filter_map(|(_, member)| member.inner.ages.first().copied()).min()
    }

    pub(super) fn has_parked(&self) -> bool {
        self.parked > 0
    }

    /// Who goes next: tenant and key.
    pub(super) fn first(&self) -> Option<(usize, usize)> {
        let tenant = self.tenants.first()?;
        Some((tenant, self.tenants.get(tenant)?.inner.keys.first()?))
    }

    pub(super) fn at(&self, tenant: usize, key: usize) -> Option<&Ticket<W>> {
        let key = self.tenants.get(tenant)?.inner.keys.get(key)?;
        self.tickets.get(key.inner.waiting.front()?.1)
    }

    pub(super) fn push(&mut self, ticket: Ticket<W>) {
        let at = self.tenants.member(&ticket.owner.tenant, ticket.owner.terms.weight);
        self.bytes += ticket.bytes;
        let Some(tenant) = self.tenants.get_mut(at).map(|member| &mut member.inner) else { return };
        tenant.ages.insert(ticket.age);
        tenant.bytes += ticket.bytes;
        let key = tenant.keys.member(&ticket.owner.key, ticket.owner.terms.key_weight);
        let age = ticket.age;
        let place = self.tickets.insert(ticket);
        if let Some(member) = tenant.keys.get_mut(key) {
            member.inner.insert(age, place);
        }
        match tenant.keys.stands(key) {
            // An old call that has come back may be the oldest now.
            true => tenant.keys.show(key, oldest(&tenant.keys, key).unwrap_or(age)),
            false => tenant.keys.enter(key, age),
        }
        let parked = tenant.parked;
        match self.tenants.stands(at) {
            true => self.follow(at),
            false if !parked => {
                self.tenants.enter(at, age);
                self.remember_oldest(at);
            }
            false => {}
        }
    }

    /// Charges tenant and key.
    pub(super) fn charge(&mut self, tenant: usize, key: usize, cost: Cost) -> Option<Charge> {
        let above = self.tenants.charge(tenant, cost);
        let below = self.tenants.get_mut(tenant)?.inner.keys.charge(key, cost);
        let class = self.at(tenant, key)?.class;
        Some(Charge { class, tenant, key, cost, shares: [above, below] })
    }

    /// Charges an owner whose call does not wait.
    pub(super) fn pass(&mut self, class: Priority, owner: &Caller, cost: Cost) -> Charge {
        let tenant = self.tenants.member(&owner.tenant, owner.terms.weight);
        let above = self.tenants.pass(tenant, cost);
        let (key, below) = match self.tenants.get_mut(tenant) {
            Some(member) => {
                let key = member.inner.keys.member(&owner.key, owner.terms.key_weight);
                (key, member.inner.keys.pass(key, cost))
            }
            None => (0, 0),
        };
        Charge { class, tenant, key, cost, shares: [above, below] }
    }

    pub(super) fn settle(&mut self, charge: &Charge, cost: Cost) {
        let [above, below] = charge.shares;
        if let Some(tenant) = self.tenants.get_mut(charge.tenant) {
            tenant.inner.keys.settle(charge.key, below, cost);
        }
        self.tenants.settle(charge.tenant, above, cost);
    }

    /// Takes the oldest ticket of a key out.
    pub(super) fn take(&mut self, tenant: usize, key: usize) -> Option<Ticket<W>> {
        let age = oldest(&self.tenants.get(tenant)?.inner.keys, key)?;
        self.take_aged(tenant, key, age)
    }

    pub(super) fn remove(&mut self, owner: &Caller, age: Age) -> Option<Ticket<W>> {
        let tenant = self.tenants.find(&owner.tenant)?;
        let key = self.tenants.get(tenant)?.inner.keys.find(&owner.key)?;
        self.take_aged(tenant, key, age)
    }

    fn take_aged(&mut self, at: usize, key: usize, age: Age) -> Option<Ticket<W>> {
        let tenant = &mut self.tenants.get_mut(at)?.inner;
        let place = tenant.keys.get_mut(key)?.inner.remove(age)?;
        let ticket = self.tickets.try_remove(place)?;
        tenant.ages.remove(&age);
        tenant.bytes -= ticket.bytes;
        self.bytes -= ticket.bytes;
        match oldest(&tenant.keys, key) {
            Some(next) if tenant.keys.stands(key) => tenant.keys.show(key, next),
            Some(_) => {}
            // Not gone: it has tickets that were passed over.
            None if tenant.keys.get(key).is_some_and(|member| !member.inner.aside.is_empty()) => tenant.keys.hide(key),
            None => tenant.keys.leave(key),
        }
        if tenant.ages.is_empty() {
            if std::mem::take(&mut tenant.parked) {
                self.parked -= 1;
            }
            self.tenants.leave(at);
            self.remember_oldest(at);
        } else {
            self.follow(at);
        }
        Some(ticket)
    }

    /// Brings a tenant's place in the line up to date with its keys.
    fn follow(&mut self, at: usize) {
        let Some(tenant) = self.tenants.get(at).map(|member| &member.inner) else { return };
        let next = tenant.keys.first().and_then(|key| oldest(&tenant.keys, key));
        match next {
            Some(age) if !tenant.parked => self.tenants.show(at, age),
            _ => self.tenants.hide(at),
        }
        self.remember_oldest(at);
    }

    /// Brings the class's list of the oldest up to date with one tenant.
    fn remember_oldest(&mut self, at: usize) {
        let stands = self.tenants.stands(at);
        let Some(tenant) = self.tenants.get_mut(at).map(|member| &mut member.inner) else { return };
        let oldest = tenant.ages.first().copied().filter(|_| stands);
        if tenant.oldest == oldest {
            return;
        }
        if let Some(age) = std::mem::replace(&mut tenant.oldest, oldest) {
            self.oldest.remove(&(age, at));
        }
        self.oldest.extend(oldest.map(|age| (age, at)));
    }

    /// Passes over the oldest ticket of a key for a moment; those behind it come forward.
    pub(super) fn hide(&mut self, at: usize, key: usize) {
        let Some(keys) = self.tenants.get_mut(at).map(|member| &mut member.inner.keys) else { return };
        if let Some(member) = keys.get_mut(key) {
            member.inner.aside.extend(member.inner.waiting.pop_front());
        }
        match oldest(keys, key) {
            Some(age) => keys.show(key, age),
            None => keys.hide(key),
        }
        self.follow(at);
    }

    /// Puts all of a key's tickets back to where they stood.
    pub(super) fn show(&mut self, at: usize, key: usize) {
        let Some(keys) = self.tenants.get_mut(at).map(|member| &mut member.inner.keys) else { return };
        if let Some(member) = keys.get_mut(key) {
            member.inner.resume();
        }
        if let Some(age) = oldest(keys, key) {
            keys.show(key, age);
        }
        self.follow(at);
    }

    pub(super) fn park(&mut self, at: usize) {
        if let Some(tenant) = self.tenants.get_mut(at).map(|member| &mut member.inner)
            && !std::mem::replace(&mut tenant.parked, true)
        {
            self.parked += 1;
            self.tenants.leave(at);
            self.remember_oldest(at);
        }
    }

    pub(super) fn unpark(&mut self, mut ready: impl FnMut(&TenantId) -> bool) {
        if self.parked == 0 {
            return;
        }
        let parked = self.tenants.iter().filter(|(_, member)| member.inner.parked && ready(&member.key));
        for at in parked.map(|(at, _)| at).collect::<Vec<_>>() {
            self.parked -= 1;
            let Some(tenant) = self.tenants.get_mut(at).map(|member| &mut member.inner) else { continue };
            tenant.parked = false;
            if let Some(age) = tenant.keys.first().and_then(|key| oldest(&tenant.keys, key)) {
                self.tenants.enter(at, age);
            }
            self.remember_oldest(at);
        }
    }

    /// The newest ticket of whoever has the most waiting for its share, in calls or in bytes; only if that is more than
    /// `than` (waiting, share) has.
    pub(super) fn push_out(&mut self, by: By, than: Option<(u64, u32)>) -> Option<Ticket<W>> {
        let load = |waiting: u64, weight: u32| waiting as f64 / f64::from(weight.max(1));
        let of = |tenant: &Tenant| match by {
            By::Calls => tenant.ages.len() as u64,
            By::Bytes => tenant.bytes,
        };
        let loads = self.tenants.iter().map(|(at, member)| (at, load(of(&member.inner), member.weight())));
        let (at, most) = loads.max_by(|a, b| a.1.total_cmp(&b.1))?;
        if than.is_some_and(|(waiting, weight)| load(waiting, weight) >= most) {
            return None;
        }
        let keys = &self.tenants.get(at)?.inner.keys;
        let (key, _) = keys.iter().max_by_key(|(_, member)| member.inner.waiting.len())?;
        let age = keys.get(key)?.inner.waiting.back()?.0;
        self.take_aged(at, key, age)
    }

    /// Forgets all service: everybody begins anew.
    pub(super) fn reset(&mut self) {
        self.tenants.reset();
        for at in self.tenants.iter().map(|(at, _)| at).collect::<Vec<_>>() {
            if let Some(tenant) = self.tenants.get_mut(at) {
                tenant.inner.keys.reset();
            }
            if self.tenants.stands(at) {
                self.follow(at);
            }
        }
    }

    pub(super) fn sweep(&mut self) {
        for at in self.tenants.iter().map(|(at, _)| at).collect::<Vec<_>>() {
            if let Some(tenant) = self.tenants.get_mut(at) {
                tenant.inner.keys.sweep(|key| !key.waiting.is_empty());
            }
        }
        self.tenants.sweep(|tenant| !tenant.ages.is_empty());
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> u32 {
        self.tenants.iter().map(|(_, member)| member.running).sum()
    }

    pub(super) fn gap(&self) -> Cost {
        self.tenants.gap()
    }

    pub(super) fn show_all(&self, to: &mut dyn FnMut(&TenantId, usize, u64, Cost)) {
        for (_, member) in self.tenants.iter().filter(|(_, member)| !member.inner.ages.is_empty()) {
            to(&member.key, member.inner.ages.len(), member.inner.bytes, member.counter());
        }
    }
}

fn oldest(keys: &Level<Option<KeyId>, Key>, key: usize) -> Option<Age> {
    keys.get(key)?.inner.oldest()
}
