//! The order of those who wait for one deployment: classes, within a class tenants, within a tenant keys.
//!
//! Pure: no clock, no lock, no waking up. [`next`](Line::next) names who goes next; the caller finds out whether there
//! is room and then takes the ticket, drops it, or passes it over. Which class is [`ranks`]' business, which tenant and
//! key [`level`]'s.

mod class;
mod level;
mod ranks;

use kernel::{Caller, Moment, Priority, TenantId};

pub(crate) use self::class::Charge;
use self::class::Class;
#[cfg(test)]
pub(crate) use self::ranks::AGED_EVERY;
pub(crate) use self::ranks::Ranks;
use crate::settings::Fairness;

/// A place in the order of arrival: when the call came, and a number among those of the same moment. A call that comes
/// back after a failed attempt keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Age {
    pub(crate) since: Moment,
    pub(crate) number: u64,
}

/// One who waits; `W` is whatever must be known to let it go on.
#[derive(Debug)]
pub(crate) struct Ticket<W> {
    pub(crate) class: Priority,
    pub(crate) owner: Caller,
    pub(crate) age: Age,
    /// What it is thought to cost, in [`Cost`] units.
    pub(crate) cost: Cost,
    /// Bytes it holds in memory while it waits.
    pub(crate) bytes: u64,
    pub(crate) waiter: W,
}

/// What a line is full of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Calls,
    Bytes,
}

/// Service, in thousandths of an input token.
pub(crate) type Cost = u64;

/// Where a ticket stands. Valid until the line changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    class: Priority,
    tenant: usize,
    key: usize,
}

/// How to find a ticket again after the line has changed.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) class: Priority,
    pub(crate) owner: Caller,
    pub(crate) age: Age,
}

/// The line of one deployment.
#[derive(Debug)]
pub(crate) struct Line<W> {
    classes: [Class<W>; 3],
    ranks: Ranks,
    fairness: Fairness,
    numbers: u64,
    /// Whose tickets are passed over until the end of this round.
    aside: Vec<At>,
}

impl<W> Line<W> {
    pub(crate) fn new(ranks: Ranks, fairness: Fairness) -> Self {
        Self { classes: Default::default(), ranks, fairness, numbers: 0, aside: Vec::new() }
    }

    /// Puts another config's rules in place; those who wait keep their places.
    pub(crate) fn set(&mut self, ranks: Ranks, fairness: Fairness) {
        self.ranks.set(ranks);
        // Tokens, requests and nothing are different currencies: what was had in one says nothing in another.
        if std::mem::replace(&mut self.fairness, fairness) != fairness {
            self.classes.iter_mut().for_each(Class::reset);
        }
    }

    /// Tickets waiting.
    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(Class::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes they hold.
    pub(crate) fn bytes(&self) -> u64 {
        self.classes.iter().map(Class::bytes).sum()
    }

    /// Tickets waiting in a class, and tenants they belong to.
    pub(crate) fn census(&self, class: Priority) -> (usize, usize) {
        let class = self.class(class);
        (class.len(), class.tenants_waiting())
    }

    /// The most urgent class that could be served, and its oldest ticket. The least of several goes first.
    pub(crate) fn foremost(&self) -> (usize, Option<Age>) {
        let of = |class: Priority| Some((class.rank(), Some(self.class(class).oldest()?)));
        Priority::ALL.into_iter().find_map(of).unwrap_or((Priority::ALL.len(), None))
    }

    /// When the oldest ticket of a class came, whether it could be served or not.
    pub(crate) fn oldest(&self, class: Priority) -> Option<Moment> {
        self.class(class).oldest_of_all().map(|age| age.since)
    }

    /// Tickets of one tenant, over all classes, and the bytes they hold.
    pub(crate) fn of_tenant(&self, tenant: &TenantId) -> (usize, u64) {
        let each = self.classes.iter().map(|class| class.of_tenant(tenant));
        each.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }

    /// A place in the order of arrival for a call that came at this moment.
    pub(crate) fn age(&mut self, since: Moment) -> Age {
        self.numbers += 1;
        Age { since, number: self.numbers }
    }

    /// Joins the line.
    pub(crate) fn push(&mut self, ticket: Ticket<W>) -> Name {
        let name = Name { class: ticket.class, owner: ticket.owner.clone(), age: ticket.age };
        self.class_mut(ticket.class).push(ticket);
        name
    }

    /// How many tickets would be served before a new one of this owner, about: everybody of higher classes, and of its
    /// own class as many of each tenant as it will have waiting itself.
    pub(crate) fn ahead(&self, class: Priority, tenant: &TenantId) -> usize {
        let higher: usize = Priority::ALL.iter().filter(|other| **other > class).map(|c| self.class(*c).len()).sum();
        let own = self.class(class);
        let (mine, _) = own.of_tenant(tenant);
        let others = (own.len() - mine).min(own.tenants_waiting().saturating_mul(mine + 1));
        higher + mine + others
    }

    /// Who goes next.
    pub(crate) fn next(&mut self, now: Moment) -> Option<At> {
        let oldest = [Priority::High, Priority::Normal, Priority::Low].map(|class| self.class(class).oldest());
        let class = self.ranks.next(oldest, now)?;
        let (tenant, key) = self.class(class).first()?;
        Some(At { class, tenant, key })
    }

    /// The ticket at a place.
    pub(crate) fn at(&self, at: At) -> Option<&Ticket<W>> {
        self.class(at.class).at(at.tenant, at.key)
    }

    /// Takes a ticket out to be served, and charges its tenant and key for it.
    pub(crate) fn admit(&mut self, at: At, now: Moment) -> Option<(Ticket<W>, Charge)> {
        let oldest = [Priority::High, Priority::Normal, Priority::Low].map(|class| self.class(class).oldest());
        self.ranks.served(at.class, oldest, now);
        let cost = self.at(at).map(|ticket| self.cost(ticket.cost))?;
        let class = self.class_mut(at.class);
        let charge = class.charge(at.tenant, at.key, cost)?;
        let ticket = class.take(at.tenant, at.key)?;
        Some((ticket, charge))
    }

    /// Takes a ticket out that will not be served.
    pub(crate) fn discard(&mut self, at: At) -> Option<Ticket<W>> {
        self.class_mut(at.class).take(at.tenant, at.key)
    }

    /// Passes over a ticket until [`resume`](Self::resume): those behind it may go where it may not.
    pub(crate) fn set_aside(&mut self, at: At) {
        self.class_mut(at.class).hide(at.tenant, at.key);
        self.aside.push(at);
    }

    /// Ends a round: everybody passed over stands where they stood.
    pub(crate) fn resume(&mut self) {
        for at in std::mem::take(&mut self.aside) {
            self.class_mut(at.class).show(at.tenant, at.key);
        }
    }

    /// Passes over a tenant of a class until [`unpark`](Self::unpark): it has used up its quota.
    pub(crate) fn park(&mut self, at: At) {
        self.class_mut(at.class).park(at.tenant);
    }

    /// Brings parked tenants back for whom `ready` says so. What they were not served meanwhile is not made up for:
    /// it was their own quota that held them.
    pub(crate) fn unpark(&mut self, mut ready: impl FnMut(Priority, &TenantId) -> bool) {
        for class in Priority::ALL {
            self.class_mut(class).unpark(|tenant| ready(class, tenant));
        }
    }

    /// Whether anybody is parked.
    pub(crate) fn has_parked(&self) -> bool {
        self.classes.iter().any(Class::has_parked)
    }

    /// Takes a ticket out by its name: its client has left.
    pub(crate) fn remove(&mut self, name: &Name) -> Option<Ticket<W>> {
        self.class_mut(name.class).remove(&name.owner, name.age)
    }

    /// Charges a call that found a free slot without waiting.
    pub(crate) fn pass(&mut self, class: Priority, owner: &Caller, cost: Cost) -> Charge {
        let cost = self.cost(cost);
        self.class_mut(class).pass(class, owner, cost)
    }

    /// Corrects a charge when the true cost is known. `None`: nothing was done for it after all.
    pub(crate) fn settle(&mut self, charge: Charge, cost: Option<Cost>) {
        let cost = cost.map_or(0, |cost| self.cost(cost));
        self.class_mut(charge.class).settle(&charge, cost);
    }

    /// Leaves a charge as it is.
    pub(crate) fn keep(&mut self, charge: Charge) {
        let cost = charge.cost;
        self.class_mut(charge.class).settle(&charge, cost);
    }

    /// Whom a newcomer may push out of a full line: the newest ticket of whoever has the most waiting for its share in
    /// the lowest class, if that class is lower than the newcomer's, or its tenant has more waiting than the
    /// newcomer's would have.
    pub(crate) fn push_out(&mut self, by: By, class: Priority, owner: &Caller, bytes: u64) -> Option<Ticket<W>> {
        let lowest = Priority::ALL.into_iter().rev().find(|class| self.class(*class).len() > 0)?;
        if lowest > class {
            return None;
        }
        let (calls, held) = self.class(class).of_tenant(&owner.tenant);
        let mine = match by {
            By::Calls => calls as u64 + 1,
            By::Bytes => held + bytes,
        };
        self.class_mut(lowest).push_out(by, (lowest == class).then_some((mine, owner.terms.weight)))
    }

    /// Forgets tenants and keys that have nothing waiting and nothing running and whose past no longer matters.
    pub(crate) fn sweep(&mut self) {
        self.classes.iter_mut().for_each(Class::sweep);
    }

    /// The greatest distance between the counters of two tenants who wait in a class, in [`Cost`] units by share.
    pub(crate) fn gap(&self, class: Priority) -> Cost {
        self.class(class).gap()
    }

    /// Shows every tenant waiting in a class: how many tickets, the bytes they hold, its counter.
    pub(crate) fn show(&self, class: Priority, to: &mut dyn FnMut(&TenantId, usize, u64, Cost)) {
        self.class(class).show_all(to);
    }

    /// Charges not settled yet.
    #[cfg(test)]
    pub(crate) fn running(&self) -> u32 {
        self.classes.iter().map(Class::running).sum()
    }

    fn cost(&self, cost: Cost) -> Cost {
        match self.fairness {
            Fairness::Token => cost,
            Fairness::Request => REQUEST,
            // Nobody's counter moves, and equals go in the order they came.
            Fairness::None => 0,
        }
    }

    fn class(&self, class: Priority) -> &Class<W> {
        let [high, normal, low] = &self.classes;
        match class {
            Priority::High => high,
            Priority::Normal => normal,
            Priority::Low => low,
        }
    }

    fn class_mut(&mut self, class: Priority) -> &mut Class<W> {
        let [high, normal, low] = &mut self.classes;
        match class {
            Priority::High => high,
            Priority::Normal => normal,
            Priority::Low => low,
        }
    }
}

/// What a request costs where tokens do not count: large enough that shares divide it well.
const REQUEST: Cost = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Moment = Moment::from_micros(0);

    fn line() -> Line<()> {
        Line::new(Ranks::new(Duration::from_secs(10), [0; 3]), Fairness::Token)
    }

    fn owner(tenant: &str, weight: u32) -> Caller {
        let terms = kernel::Terms { weight, ..kernel::Terms::default() };
        Caller { tenant: TenantId::new(tenant), key: None, terms: std::sync::Arc::new(terms) }
    }

    fn join(line: &mut Line<()>, tenant: &str, cost: Cost) {
        let age = line.age(NOW);
        let (class, owner) = (Priority::Normal, owner(tenant, 1));
        line.push(Ticket { class, owner, age, cost, bytes: 1, waiter: () });
    }

    fn turn(line: &mut Line<()>) -> (String, Charge) {
        let at = line.next(NOW).unwrap();
        let (ticket, charge) = line.admit(at, NOW).unwrap();
        (ticket.owner.tenant.to_string(), charge)
    }

    #[test]
    fn an_estimate_that_was_too_high_keeps_no_newcomer_back() {
        let mut line = line();
        let running: Vec<Charge> = (0..8).map(|_| line.pass(Priority::Normal, &owner("old", 1), 1_000)).collect();
        (0..8).for_each(|_| join(&mut line, "old", 1_000));
        (0..8).for_each(|_| join(&mut line, "new", 1_000));
        running.into_iter().for_each(|charge| line.settle(charge, Some(10)));
        let turns: String = (0..8).map(|_| if turn(&mut line).0 == "new" { 'n' } else { 'o' }).collect();
        assert_eq!(turns, "nononono");
    }

    #[test]
    fn a_tenant_that_was_parked_is_not_made_up_for_and_does_not_age_its_class() {
        let mut line = line();
        join(&mut line, "parked", 100);
        let at = line.next(NOW).unwrap();
        line.park(at);
        assert_eq!((line.next(NOW), line.foremost().1, line.oldest(Priority::Normal)), (None, None, Some(NOW)));
        (0..4).for_each(|_| join(&mut line, "other", 100));
        for _ in 0..3 {
            let (tenant, charge) = turn(&mut line);
            assert_eq!(tenant, "other");
            line.settle(charge, Some(100));
        }
        join(&mut line, "parked", 100);
        line.unpark(|_, _| true);
        join(&mut line, "other", 100);
        let turns: Vec<String> = (0..4).map(|_| turn(&mut line).0).collect();
        assert_eq!(turns, ["parked", "other", "parked", "other"]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_full_line_puts_out_the_newest_of_whoever_has_most_for_its_share() {
        let mut line = line();
        (0..3).for_each(|_| join(&mut line, "flood", 1));
        join(&mut line, "quiet", 1);
        assert!(
            line.push_out(By::Calls, Priority::Low, &owner("x", 1), 1).is_none(),
            "nobody leaves for a lower class"
        );
        assert!(
            line.push_out(By::Calls, Priority::Normal, &owner("flood", 1), 1).is_none(),
            "nor for one who has as many"
        );
        assert!(
            line.push_out(By::Bytes, Priority::Normal, &owner("quiet", 1), 9).is_none(),
            "nor for one who holds more"
        );
        let out = line.push_out(By::Calls, Priority::Normal, &owner("quiet", 1), 1).unwrap();
        assert_eq!((out.owner.tenant.as_str(), out.age.number), ("flood", 3));
        assert!(
            line.push_out(By::Calls, Priority::High, &owner("flood", 1), 1).is_some(),
            "a higher class goes before all"
        );
    }

    #[test]
    fn another_kind_of_fairness_begins_anew() {
        let mut line = line();
        let charges: Vec<Charge> = (0..9).map(|_| line.pass(Priority::Normal, &owner("a", 1), 1_000)).collect();
        charges.into_iter().for_each(|charge| line.settle(charge, Some(1_000)));
        join(&mut line, "b", 1);
        (0..3).for_each(|_| join(&mut line, "a", 1));
        (0..2).for_each(|_| join(&mut line, "b", 1));
        line.set(Ranks::new(Duration::from_secs(10), [0; 3]), Fairness::None);
        let turns: Vec<String> = (0..6).map(|_| turn(&mut line).0).collect();
        assert_eq!(turns, ["b", "a", "a", "a", "b", "b"], "in the order they came");
    }
}
