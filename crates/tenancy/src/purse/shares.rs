//! The leases of one tenant's books: what is exchanged of them, and where the answers go.

use kernel::share::{Grant, Order};
use kernel::{KeyId, Money, TenantId};

use super::books::{Books, Limits};
use super::counter::Counter;
use super::lease::Footing;

/// Where a lease belongs.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// To a counter of a line of keys, or of the tenant, for a period.
    Counter {
        key: Option<KeyId>,
        at: usize,
        number: i64,
    },
    Balance,
}

impl Books {
    /// A call of this cost needs so much more than is on lease; or nothing more.
    pub(super) fn need(
        &mut self,
        limits: &Limits,
        key: Option<&KeyId>,
        prepaid: bool,
        (cost, footing): (Money, Footing),
    ) {
        for limit in limits.iter().filter(|limit| limit.hard) {
            let Some(counter) = self.counter_mut(limit, key) else { continue };
            let pending = counter.pending;
            let tally = counter.spending.now_mut();
            let room = tally.lease.room(&tally.stock(limit.limit, pending), footing);
            tally.lease.need(cost, cost - room.money.max(Money::ZERO));
        }
        if prepaid {
            let room = self.balance.lease.room(&self.balance.stock(), footing);
            self.balance.lease.need(cost, cost - room.money.max(Money::ZERO));
        }
    }

    /// What an answer that flows may take beyond what is on lease.
    pub(super) fn trusted(&self, limits: &Limits, key: Option<&KeyId>, prepaid: bool, footing: Footing) -> Money {
        let hard = limits.iter().filter(|limit| limit.hard).filter_map(|limit| self.counter(limit, key));
        let of = hard.map(|counter| counter.spending.now().lease.trusted(footing));
        of.chain(prepaid.then(|| self.balance.lease.trusted(footing))).min().unwrap_or_default()
    }

    /// What is to be exchanged with other processes, and where the answers go.
    pub(super) fn orders(&mut self, tenant: &TenantId, nodes: u32, to: &mut Vec<(Order, Place)>) {
        let currency = self.currency;
        let mut of = |key: Option<&KeyId>, at: usize, counter: &mut Counter| {
            let Counter { per, models, spending, pending, hard } = counter;
            let Some(limit) = *hard else { return };
            let now = spending.number();
            for (number, tally) in spending.all() {
                let pending = if Some(number) == now { *pending } else { Money::ZERO };
                let stock = tally.stock(limit, pending);
                if tally.lease.rests(&stock) {
                    continue;
                }
                let whose = key.map_or_else(String::new, |key| format!("{}:{key}", key.as_str().len()));
                let counter = format!("b:{currency}:{per:?}:{number}:{whose}:{}", models.join("\u{1f}"));
                let wish = tally.lease.order(&stock, nodes);
                let place = Place::Counter { key: key.cloned(), at, number };
                to.push((Order { tenant: tenant.clone(), counter, wish }, place));
            }
        };
        self.tenant.iter_mut().enumerate().for_each(|(at, counter)| of(None, at, counter));
        for (key, own) in &mut self.keys {
            own.counters.iter_mut().enumerate().for_each(|(at, counter)| of(Some(key), at, counter));
        }
        if self.balance.wanted && self.balance.loaded {
            let stock = self.balance.stock();
            if !self.balance.lease.rests(&stock) {
                let wish = self.balance.lease.order(&stock, nodes);
                to.push((Order { tenant: tenant.clone(), counter: format!("p:{currency}"), wish }, Place::Balance));
            }
        }
    }

    /// What came of one; `None`: no answer.
    pub(super) fn granted(&mut self, place: &Place, grant: Option<Grant>) {
        match place {
            Place::Balance => {
                let stock = self.balance.stock();
                self.balance.lease.granted(grant, &stock);
            }
            Place::Counter { key, at, number } => {
                let list = match key {
                    Some(key) => self.keys.get_mut(key).map(|own| &mut own.counters),
                    None => Some(&mut self.tenant),
                };
                let Some(counter) = list.and_then(|list| list.get_mut(*at)) else { return };
                let pending = if counter.spending.number() == Some(*number) { counter.pending } else { Money::ZERO };
                if let Some(tally) = counter.spending.at(*number) {
                    let stock = tally.stock(counter.hard.unwrap_or_default(), pending);
                    tally.lease.granted(grant, &stock);
                }
            }
        }
    }

    /// Lets go of all leases.
    pub(super) fn part(&mut self) {
        self.counters().for_each(|(_, counter)| counter.spending.all().for_each(|(_, tally)| tally.lease.part()));
        self.balance.lease.part();
    }

    /// Whether no lease needs looking after. What rests is held no more, and asked for anew.
    pub(super) fn shares_nothing(&mut self) -> bool {
        let mut nothing = true;
        for (_, counter) in self.counters() {
            let (now, pending, limit) = (counter.spending.number(), counter.pending, counter.hard);
            for (number, tally) in counter.spending.all() {
                let pending = if Some(number) == now { pending } else { Money::ZERO };
                let stock = tally.stock(limit.unwrap_or_default(), pending);
                match limit.is_none() || tally.lease.rests(&stock) {
                    true => tally.lease.part(),
                    false => nothing = false,
                }
            }
        }
        let stock = self.balance.stock();
        match !self.balance.wanted || !self.balance.loaded || self.balance.lease.rests(&stock) {
            true => self.balance.lease.part(),
            false => nothing = false,
        }
        nothing
    }
}
