//! All limits of a tenant, of a key, or of a tenant's calls to a model: one level of those a call must pass.

use std::time::Duration;

use kernel::share::{Grant, Wish};
use kernel::{Limits, Moment};

use super::cell::{Cell, Rate, Stand};
use super::lease::{Hold, Lease};

/// What is limited. The order is that of [`Level`]'s counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dimension {
    Seconds,
    Minutes,
    Tokens,
    Places,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Footing {
    /// This process alone.
    Alone,
    /// So many processes, each with a lease.
    Together { nodes: u32 },
    /// So many processes that cannot agree: each keeps to its share.
    Apart { nodes: u32 },
}

/// How much of each is taken.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// As they were when a call last came.
    limits: Limits,
    seconds: Counter,
    minutes: Counter,
    tokens: Counter,
    busy: u32,
    hold: Option<Box<Hold>>,
    /// How long calls are here, in microseconds: an average that leans to the last ones.
    stay: u64,
}

/// How much of one rate is taken.
#[derive(Debug, Default)]
struct Counter {
    /// All that was taken, against the whole limit or this process's share of it.
    cell: Cell,
    /// What there is of a counter shared with others.
    lease: Option<Box<Lease>>,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) dimension: Dimension,
    pub(super) limit: u64,
    /// Units that could be taken now.
    pub(super) left: u64,
    full: Duration,
    /// By which it fills up again; `None`: nobody knows when.
    rate: Option<Rate>,
}

/// What a call meets that must wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocked {
    pub(super) dimension: Dimension,
    pub(super) limit: u64,
    pub(super) wait: Duration,
}

/// Bound: a place is not promised earlier, so that those who wait for one do not ask in circles.
const STAY_MIN: Duration = Duration::from_millis(50);
/// How much the last call counts in how long calls stay.
const LEAN: u64 = 8;

impl Dimension {
    pub(super) const ALL: [Self; 4] = [Self::Seconds, Self::Minutes, Self::Tokens, Self::Places];

    /// The word in configs and metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Seconds => "rps",
            Self::Minutes => "rpm",
            Self::Tokens => "tpm",
            Self::Places => "concurrency",
        }
    }

    fn rate(self, limits: &Limits) -> Option<Rate> {
        match self {
            Self::Seconds => limits.rps.map(|units| Rate::new(u64::from(units), Rate::SECOND)),
            Self::Minutes => limits.rpm.map(|units| Rate::new(u64::from(units), Rate::MINUTE)),
            Self::Tokens => limits.tpm.map(|units| Rate::new(units, Rate::MINUTE)),
            Self::Places => None,
        }
    }
}

// === impl Level ===

impl Level {
    /// Puts the limits in place that are in force now; what is taken stays taken.
    pub(super) fn set(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What holds a call up the longest; `None`: nothing does.
    pub(super) fn blocked(&self, footing: Footing, now: Moment) -> Option<Blocked> {
        let rates = self.rates().filter_map(|(dimension, rate, counter)| {
            let wait = counter.wait(rate, footing, now);
            (!wait.is_zero()).then_some(Blocked { dimension, limit: rate.units(), wait })
        });
        let places = self.limits.concurrency.filter(|limit| self.free(*limit, footing, now) == 0).map(|limit| {
            let wait = Duration::from_micros(self.stay / u64::from(limit.max(1))).max(STAY_MIN);
            Blocked { dimension: Dimension::Places, limit: u64::from(limit), wait }
        });
        rates.chain(places).max_by_key(|blocked| blocked.wait)
    }

    /// A call passes, or does not because another level holds it up.
    pub(super) fn ask(&mut self, tokens: u64, passes: bool, footing: Footing, now: Moment) {
        let limits = self.limits;
        for (dimension, counter) in self.counters() {
            if let Some(rate) = dimension.rate(&limits) {
                let units = if dimension == Dimension::Tokens { tokens } else { 1 };
                counter.ask(rate, units, passes, footing, now);
            }
        }
        self.busy = self.busy.saturating_add(u32::from(passes));
        if let (Footing::Together { .. }, Some(_)) = (footing, limits.concurrency) {
            self.hold.get_or_insert_default().ask(now);
        }
    }

    /// A call took so many tokens more, or fewer, than it was thought to.
    pub(super) fn correct(&mut self, tokens: i64, footing: Footing, now: Moment) {
        if let Some(rate) = Dimension::Tokens.rate(&self.limits) {
            self.tokens.add(rate, tokens, footing, now);
        }
    }

    /// A call leaves that was here for so long.
    pub(super) fn leave(&mut self, stayed: Duration) {
        self.busy = self.busy.saturating_sub(1);
        let stayed = u64::try_from(stayed.as_micros()).unwrap_or(u64::MAX);
        self.stay = if self.stay == 0 { stayed } else { self.stay - self.stay / LEAN + stayed / LEAN };
    }

    /// Where each limit stands.
    pub(super) fn stands(&self, footing: Footing, now: Moment) -> impl Iterator<Item = Standing> {
        let rates = self.rates().map(move |(dimension, rate, counter)| {
            let Stand { left, full, .. } = counter.stand(rate, footing, now);
            let own = if let Footing::Apart { nodes } = footing { rate.share(nodes) } else { rate };
            Standing { dimension, limit: rate.units(), left, full, rate: Some(own) }
        });
        let places = self.limits.concurrency.map(|limit| {
            let left = u64::from(self.free(limit, footing, now));
            Standing { dimension: Dimension::Places, limit: u64::from(limit), left, full: Duration::ZERO, rate: None }
        });
        rates.chain(places)
    }

    /// Whether nothing is taken, so that forgetting it changes nothing.
    pub(super) fn at_rest(&self, now: Moment) -> bool {
        let full = self.rates().all(|(_, rate, counter)| counter.cell.used(rate, now) == 0);
        let leases =
            [&self.seconds, &self.minutes, &self.tokens].into_iter().filter_map(|counter| counter.lease.as_ref());
        let given_back = leases.into_iter().all(|lease| lease.at_rest());
        full && given_back && self.busy == 0 && self.hold.as_ref().is_none_or(|hold| hold.at_rest())
    }

    /// Whether nothing of what is shared is here.
    pub(super) fn shares_nothing(&self) -> bool {
        let leases =
            [&self.seconds, &self.minutes, &self.tokens].into_iter().filter_map(|counter| counter.lease.as_ref());
        leases.into_iter().all(|lease| lease.at_rest())
            && self.hold.as_ref().is_none_or(|hold| hold.at_rest() && self.busy == 0)
    }

    /// Lets go of all leases.
    pub(super) fn part(&mut self) {
        self.counters().into_iter().for_each(|(_, counter)| counter.lease = None);
        self.hold = None;
    }

    /// What is to be exchanged now.
    pub(super) fn orders(&mut self, nodes: u32, now: Moment, to: &mut dyn FnMut(Dimension, Wish)) {
        let limits = self.limits;
        for (dimension, counter) in self.counters() {
            let rate = dimension.rate(&limits);
            let wish = rate.zip(counter.lease.as_deref_mut()).and_then(|(rate, lease)| lease.order(rate, nodes, now));
            wish.into_iter().for_each(|wish| to(dimension, wish));
        }
        let (busy, limit) = (self.busy, limits.concurrency);
        let wish = limit.zip(self.hold.as_mut()).and_then(|(limit, hold)| hold.order(limit, busy, now));
        wish.into_iter().for_each(|wish| to(Dimension::Places, wish));
    }

    /// What came of it.
    pub(super) fn granted(&mut self, dimension: Dimension, grant: Option<Grant>, nodes: u32, now: Moment) {
        if dimension == Dimension::Places {
            self.hold.iter_mut().for_each(|hold| hold.granted(grant, nodes, now));
        }
        let lease = self.counters().into_iter().find(|(one, _)| *one == dimension);
        lease
            .and_then(|(_, counter)| counter.lease.as_mut())
            .into_iter()
            .for_each(|lease| lease.granted(grant, nodes, now));
    }

    /// The most that may pass here beyond each limit.
    pub(super) fn bounds(&self) -> impl Iterator<Item = (Dimension, u64)> {
        let leases =
            self.rates().filter_map(|(dimension, _, counter)| Some((dimension, counter.lease.as_ref()?.bound())));
        leases.chain(self.hold.as_ref().map(|hold| (Dimension::Places, hold.bound(self.busy))))
    }

    fn free(&self, limit: u32, footing: Footing, now: Moment) -> u32 {
        match footing {
            Footing::Alone => limit.saturating_sub(self.busy),
            Footing::Apart { nodes } => (limit / nodes.max(1)).max(1).saturating_sub(self.busy),
            Footing::Together { nodes } => {
                let cold = Hold::default();
                self.hold.as_deref().unwrap_or(&cold).free(limit, self.busy, nodes, now)
            }
        }
    }

    fn rates(&self) -> impl Iterator<Item = (Dimension, Rate, &Counter)> {
        let all = [&self.seconds, &self.minutes, &self.tokens];
        let named = Dimension::ALL.into_iter().zip(all);
        named.filter_map(|(dimension, counter)| Some((dimension, dimension.rate(&self.limits)?, counter)))
    }

    fn counters(&mut self) -> [(Dimension, &mut Counter); 3] {
        [
            (Dimension::Seconds, &mut self.seconds),
            (Dimension::Minutes, &mut self.minutes),
            (Dimension::Tokens, &mut self.tokens),
        ]
    }
}

// === impl Standing ===

impl Standing {
    /// How long until so many are left.
    pub(super) fn until(&self, left: u64) -> Duration {
        // From full, as many come back later as there are more than asked for.
        self.rate.map_or(Duration::ZERO, |rate| self.full.saturating_sub(rate.spare(rate.units().saturating_sub(left))))
    }
}

// === impl Counter ===

impl Counter {
    fn wait(&self, rate: Rate, footing: Footing, now: Moment) -> Duration {
        match footing {
            Footing::Alone => self.cell.wait(rate, now),
            Footing::Apart { nodes } => self.cell.wait(rate.share(nodes), now),
            Footing::Together { nodes } => self.lease(rate, nodes, now).wait(rate, nodes, now),
        }
    }

    fn ask(&mut self, rate: Rate, units: u64, passes: bool, footing: Footing, now: Moment) {
        if let Footing::Together { nodes } = footing {
            let mut lease = self.lease(rate, nodes, now);
            lease.ask(units, passes, now);
            self.put(lease);
        }
        if passes {
            self.count(rate, i64::try_from(units).unwrap_or(i64::MAX), footing, now);
        }
    }

    fn add(&mut self, rate: Rate, units: i64, footing: Footing, now: Moment) {
        if let Footing::Together { nodes } = footing {
            let mut lease = self.lease(rate, nodes, now);
            lease.add(units);
            self.put(lease);
        }
        self.count(rate, units, footing, now);
    }

    /// Counted also where leases decide, so that a process that is parted from the others knows what it has had.
    fn count(&mut self, rate: Rate, units: i64, footing: Footing, now: Moment) {
        match footing {
            Footing::Alone => self.cell.add(rate, units, now),
            Footing::Apart { nodes } => self.cell.add(rate.share(nodes), units, now),
            Footing::Together { nodes } => {
                self.cell.add(rate.share(nodes), units, now);
                // It may have had more than its share, with leave of the others.
                self.cell.cap(rate.share(nodes));
            }
        }
    }

    fn stand(&self, rate: Rate, footing: Footing, now: Moment) -> Stand {
        match footing {
            Footing::Alone => self.cell.stand(rate, now),
            Footing::Apart { nodes } => self.cell.stand(rate.share(nodes), now),
            Footing::Together { nodes } => {
                let lease = self.lease(rate, nodes, now);
                let (left, next) = (lease.left(rate, nodes, now), lease.wait(rate, nodes, now));
                Stand { left, full: rate.time(rate.units().saturating_sub(left)), next }
            }
        }
    }

    /// What there is of a shared counter. A process that has no lease, because it is new or was on its own, owes what it
    /// took by its own count.
    fn lease(&self, rate: Rate, nodes: u32, now: Moment) -> Lease {
        self.lease.as_deref().copied().unwrap_or_else(|| Lease::owing(self.cell.used(rate.share(nodes), now)))
    }

    fn put(&mut self, lease: Lease) {
        match &mut self.lease {
            Some(place) => **place = lease,
            none => *none = Some(Box::new(lease)),
        }
    }
}
