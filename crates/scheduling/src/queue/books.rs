//! What a queue keeps under its lock: the line, its bounds, its pace, and what calls turned out to be.

use std::sync::Arc;
use std::time::Duration;

use kernel::fleet::{Ask, Choice, Choose};
use kernel::{Call, Caller, InstanceId, Moment, Priority, TenantId, Tokens};

use super::drain::Drain;
use super::estimate::{Estimate, Estimator, cost};
use super::shelves::{Did, Ended};
use super::{Ahead, Asking, Called, Granted, Refused, Sight, Taken, Told, Waiter};
use crate::line::{Age, By, Charge, Line, Name, Ranks, Ticket};
use crate::quota::{self, Blocked, Claim, Quotas};
use crate::running::Wish;
use crate::settings::{Fairness, Settings, TokenWeights};

/// What a queue goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    waiting_max: usize,
    bytes_max: u64,
    tenant_waiting_max: usize,
    tenant_bytes_max: u64,
    fairness: Fairness,
    weights: TokenWeights,
    aging: Duration,
    reserved: [u32; 3],
    shedding: bool,
}

#[derive(Debug)]
pub(crate) struct Books {
    rules: Rules,
    line: Line<Waiter>,
    drain: Drain,
    estimator: Estimator,
    /// The fleet of the config in force, as a number: its tickets are the rule.
    fleet: usize,
    /// Placements by the balance's reason.
    reasons: Vec<(&'static str, u64)>,
    /// [`Quotas::returns`] when parked tenants were last looked at.
    returns: u64,
}

/// Bound: tickets passed over in one round because a larger call waits for room.
const PASSED_MAX: usize = 16;

/// Those who were pushed out for a newcomer, and what they are told.
type PushedOut = Vec<(Ticket<Waiter>, Refused)>;

/// A newcomer in the line.
pub(super) struct Joined {
    pub(super) name: Name,
    pub(super) ahead: Ahead,
    pub(super) pushed_out: PushedOut,
}

impl Rules {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            waiting_max: settings.queue_max as usize,
            bytes_max: settings.queue_bytes_max.bytes(),
            tenant_waiting_max: settings.tenant_queue_max.map_or(usize::MAX, |max| max as usize),
            tenant_bytes_max: settings.tenant_queue_bytes_max.map_or(u64::MAX, kernel::settings::Size::bytes),
            fairness: settings.fairness,
            weights: settings.token_weights,
            aging: settings.aging_ms.duration(),
            reserved: settings.reserved_percent.by_rank(),
            shedding: settings.shedding,
        }
    }

    /// An empty line that goes by them.
    pub(crate) fn line<W>(&self) -> Line<W> {
        Line::new(self.ranks(), self.fairness)
    }

    fn ranks(&self) -> Ranks {
        Ranks::new(self.aging, self.reserved)
    }
}

impl Books {
    pub(super) fn new(rules: Rules) -> Self {
        let line = rules.line();
        let (drain, estimator) = (Drain::default(), Estimator::default());
        Self { rules, line, drain, estimator, fleet: 0, reasons: Vec::new(), returns: 0 }
    }

    /// Puts another config's rules and fleet in place.
    pub(crate) fn set(&mut self, rules: Rules, fleet: &Arc<impl Choose>) {
        self.line.set(rules.ranks(), rules.fairness);
        self.rules = rules;
        self.fleet = Arc::as_ptr(fleet).addr();
    }

    pub(crate) fn len(&self) -> usize {
        self.line.len()
    }

    pub(crate) fn line(&self) -> &Line<Waiter> {
        &self.line
    }

    pub(crate) fn estimate(&self, tenant: &TenantId, call: &Call) -> Estimate {
        self.estimator.estimate(tenant, call)
    }

    pub(crate) fn retry_after(&self, ahead: usize, now: Moment) -> Duration {
        self.drain.retry_after(ahead, now)
    }

    /// How long a newcomer of a class would wait.
    pub(crate) fn wait(&self, class: Priority, now: Moment) -> Option<Duration> {
        let ahead = self.line.ahead(class, &TenantId::new(""));
        if self.line.is_empty() { Some(Duration::ZERO) } else { self.drain.estimate(ahead + 1, now) }
    }

    /// Forgets what no longer matters.
    pub(crate) fn sweep(&mut self) {
        self.line.sweep();
    }

    /// Looks at parked tenants again at the next chance: what held them may have lapsed without anybody giving something
    /// back.
    pub(crate) fn look_again(&mut self) {
        self.returns = u64::MAX;
    }

    /// Who would go next and cannot, and what that takes.
    pub(crate) fn wish(&mut self, now: Moment) -> Option<Wish> {
        let at = self.line.next(now)?;
        let ticket = self.line.at(at)?;
        Some(Wish {
            class: ticket.class,
            tenant: ticket.owner.tenant.clone(),
            tokens: ticket.waiter.size.quota,
            tried: ticket.waiter.attempt.tried.clone(),
        })
    }

    /// Charges a call that did not have to wait.
    pub(super) fn pass(&mut self, asking: &Asking<'_>, estimate: Estimate, seen: &Sight) -> Charge {
        self.count(reason(seen));
        self.line.pass(asking.class, asking.owner, estimate.cost(&self.rules.weights))
    }

    /// Counts a placement by the balance's reason: a few words, whatever comes.
    fn count(&mut self, reason: Option<&'static str>) {
        let Some(reason) = reason else { return };
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.reasons.push((reason, 1)),
        }
    }

    /// Placements by the balance's reason.
    pub(crate) fn reasons(&self) -> &[(&'static str, u64)] {
        &self.reasons
    }

    pub(super) fn settle(&mut self, charge: Charge, cost: Option<u64>) {
        self.line.settle(charge, cost);
    }

    /// A call has ended: settles its charge, and learns from it.
    pub(super) fn ended(&mut self, charge: Charge, ended: &Ended) {
        match ended.did {
            Did::Counted(usage) => {
                self.estimator.learn(&ended.ctx.facts().caller.tenant, ended.bytes, &usage);
                self.line.settle(charge, Some(cost(&usage, &self.rules.weights)));
            }
            // Nobody counted: the estimate stands.
            Did::Something => self.line.keep(charge),
            Did::Nothing => self.line.settle(charge, None),
        }
    }

    /// The same for a call that was not charged when it began.
    pub(super) fn charge(&mut self, ended: &Ended) {
        self.count(ended.reason);
        let facts = ended.ctx.facts();
        let cost = match ended.did {
            Did::Counted(usage) => cost(&usage, &self.rules.weights),
            Did::Something => {
                let estimate = self.estimator.of(&facts.caller.tenant, ended.bytes, None, true);
                estimate.cost(&self.rules.weights)
            }
            Did::Nothing => return,
        };
        let charge = self.line.pass(facts.priority, &facts.caller, cost);
        self.ended(charge, ended);
    }

    /// Joins the line, if there is room or room can be made.
    pub(super) fn join(
        &mut self,
        asking: &Asking<'_>,
        estimate: Estimate,
        waiter: Waiter,
        age: &mut Option<Age>,
    ) -> Result<Joined, Refused> {
        let (class, owner, now) = (asking.class, asking.owner, asking.now);
        let bytes = waiter.attempt.call.payload.bytes.len() as u64;
        let ahead = self.line.ahead(class, &owner.tenant);
        let wait = self.drain.estimate(ahead + 1, now);
        // Bound: those who come again are no more than were running.
        let pushed_out = if asking.again { Vec::new() } else { self.admit(asking, bytes, wait, now)? };
        let age = *age.get_or_insert_with(|| self.line.age(asking.since));
        let cost = estimate.cost(&self.rules.weights);
        let name = self.line.push(Ticket { class, owner: owner.clone(), age, cost, bytes, waiter });
        self.drain.turned(0, self.line.len(), now);
        Ok(Joined { name, ahead: (ahead, wait), pushed_out })
    }

    /// Lets a newcomer in, if it is not too late or too much for its tenant or for all.
    fn admit(
        &mut self,
        asking: &Asking<'_>,
        bytes: u64,
        wait: Option<Duration>,
        now: Moment,
    ) -> Result<PushedOut, Refused> {
        let (class, owner) = (asking.class, asking.owner);
        let left = asking.attempt.deadline.since(now);
        if self.rules.shedding
            && let Some(wait) = wait.filter(|wait| *wait > left * 2)
        {
            return Err(Refused::Hopeless(wait));
        }
        let (waiting, held) = self.line.of_tenant(&owner.tenant);
        if waiting >= self.rules.tenant_waiting_max || held + bytes > self.rules.tenant_bytes_max {
            return Err(Refused::TenantFull(self.retry_after(waiting, now)));
        }
        self.make_room(class, owner, bytes, now)
    }

    /// Makes room for one more, at the cost of less deserving ones.
    fn make_room(&mut self, class: Priority, owner: &Caller, bytes: u64, now: Moment) -> Result<PushedOut, Refused> {
        let mut out = Vec::new();
        let full = |line: &Line<Waiter>| match () {
            () if line.len() >= self.rules.waiting_max => Some(By::Calls),
            () if line.bytes() + bytes > self.rules.bytes_max && !line.is_empty() => Some(By::Bytes),
            () => None,
        };
        while let Some(by) = full(&self.line) {
            let retry_after = self.drain.retry_after(self.line.len(), now);
            match self.line.push_out(by, class, owner, bytes) {
                Some(ticket) => out.push((ticket, Refused::PushedOut(retry_after))),
                None => {
                    // Nobody leaves for one who cannot come in.
                    out.into_iter().for_each(|(ticket, _)| drop(self.line.push(ticket)));
                    return Err(Refused::Full(retry_after));
                }
            }
            if self.line.is_empty() {
                break;
            }
        }
        match self.rules.waiting_max {
            0 => Err(Refused::Full(self.drain.retry_after(0, now))),
            _ => Ok(out),
        }
    }

    pub(super) fn remove(&mut self, name: &Name) -> bool {
        self.line.remove(name).is_some()
    }

    /// Takes everybody out of the line who can go now, or never can.
    pub(super) fn call(&mut self, quotas: &Arc<Quotas>, now: Moment) -> Vec<Told> {
        let (mut told, mut turns, mut stands) = (Vec::new(), 0, false);
        let returns = quotas.returns();
        if self.line.has_parked() && returns != self.returns {
            self.line.unpark(|_, _| true);
        }
        self.returns = returns;
        // What has been found to have nothing free: fleets of earlier configs, and what is left to calls that have failed
        // on some instances. There are rarely any.
        let mut busy: Vec<(usize, Vec<InstanceId>)> = Vec::new();
        // Room that a larger call waits for, and how many have been passed over for that.
        let (mut below, mut passed) = (None, 0);
        while let Some(at) = self.line.next(now) {
            let Some(ticket) = self.line.at(at) else { break };
            if ticket.waiter.called.is_closed() {
                drop(self.line.discard(at));
                continue;
            }
            let fleet = Arc::as_ptr(&ticket.waiter.fleet).addr();
            let tried = &ticket.waiter.attempt.tried;
            if busy.iter().any(|(of, without)| *of == fleet && without == tried) {
                self.line.set_aside(at);
                continue;
            }
            let current = tried.is_empty() && fleet == self.fleet;
            match self.attempt(ticket, below, quotas, now) {
                Try::Go(taken) => {
                    let Some((ticket, charge)) = self.line.admit(at, now) else { break };
                    turns += 1;
                    self.count(reason(&taken.seen));
                    told.push((ticket, Called::Go(Box::new(Granted { taken: *taken, charge: Some(charge) }))));
                }
                Try::Refused(refused) => {
                    let Some(ticket) = self.line.discard(at) else { break };
                    told.push((ticket, Called::Refused(refused)));
                }
                Try::Parked => self.line.park(at),
                // Only one that may go anywhere can tell that nobody behind it can go either: what is too large for
                // what is free now is waited for, or small calls would keep large ones out for ever. Instances that are
                // too small for it in any case need not wait.
                Try::Busy if current => {
                    stands = true;
                    let (waiter, tokens) = (&ticket.waiter, ticket.waiter.size.cache);
                    let smaller = || waiter.fleet.rooms(&waiter.attempt).smallest.is_some_and(|room| room < tokens);
                    if passed >= PASSED_MAX || (below.is_none() && !smaller()) {
                        break;
                    }
                    below = Some(below.unwrap_or(tokens).min(tokens));
                    passed += 1;
                    self.line.set_aside(at);
                }
                Try::Busy => {
                    busy.push((fleet, tried.clone()));
                    self.line.set_aside(at);
                }
            }
        }
        self.line.resume();
        // Those left wait for something of their own (a quota, the one instance they have not tried) if nobody waits for a
        // slot as such: they say nothing about the pace.
        self.drain.turned(turns, if stands { self.line.len() } else { 0 }, now);
        told
    }

    fn attempt(&self, ticket: &Ticket<Waiter>, below: Option<Tokens>, quotas: &Arc<Quotas>, now: Moment) -> Try {
        let waiter = &ticket.waiter;
        if waiter.attempt.deadline <= now {
            return Try::Refused(Refused::Late);
        }
        let tenant = &ticket.owner.tenant;
        let size = waiter.size;
        let take = |tokens| quotas.take(tenant, ticket.class, quota::Need { tokens }, now);
        // A config may have taken room away since it joined; what was only a guess is then all there is.
        let claim = match take(size.quota) {
            Err(Blocked::TooLarge(most)) if size.certain <= most => take(most),
            claim => claim,
        };
        let claim = match claim {
            Ok(claim) => claim,
            Err(Blocked::TooLarge(most)) => return Try::Refused(Refused::BeyondQuota(Tokens(most))),
            Err(Blocked::Spent | Blocked::Lent) => return Try::Parked,
        };
        let mut seen = Sight::new();
        let insists = now.since(ticket.age.since) >= self.rules.aging;
        let mut choose = |tokens| {
            seen.clear();
            let ask = Ask { tenant, tokens, insists, below };
            waiter.fleet.choose(&waiter.attempt, &ask, &mut |one| seen.push(one))
        };
        let choice = match choose(size.cache) {
            Choice::TooLarge(most) if size.certain <= most.0 => choose(most),
            choice => choice,
        };
        let refused = match choice {
            Choice::Taken(instance, permit) => {
                return Try::Go(Box::new(Taken { instance, permit, claim, seen }));
            }
            Choice::Busy => Try::Busy,
            Choice::Down(after) => Try::Refused(Refused::Down(after)),
            Choice::TooLarge(most) => Try::Refused(Refused::TooLarge(most)),
        };
        claim.into_iter().for_each(Claim::undo);
        refused
    }
}

/// Why an instance was taken.
pub(crate) fn reason(seen: &Sight) -> Option<&'static str> {
    seen.iter().find_map(|one| match one.verdict {
        kernel::fleet::Verdict::Taken(reason) => Some(reason),
        _ => None,
    })
}

/// What came of trying to let a ticket go on.
enum Try {
    Go(Box<Taken>),
    Refused(Refused),
    /// Its tenant's quota is used up.
    Parked,
    Busy,
}
