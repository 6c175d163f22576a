//! The calls waiting for one deployment, and those it has let go on.
//!
//! Whoever gives a slot back hands it to the ticket whose turn it is, on the spot: nobody overtakes, and nobody wakes up
//! in vain. Who that is, is [`Line`]'s business. Outlives configs; a ticket whose client has left is gone at once.

mod books;
mod drain;
mod estimate;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kernel::fleet::{Choose, Seen};
use kernel::{Attempt, InstanceId, Moment, Permit, Priority, TenantId, Tokens, Usage};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use self::books::Joined;
pub(crate) use self::books::{Books, Rules};
pub(crate) use self::drain::RETRY_MIN;
#[cfg(test)]
pub(crate) use self::estimate::cost_of;
pub(crate) use self::estimate::{Estimate, Estimator, cost};
use crate::clock;
use crate::line::{Age, Charge, Name, Owner, Ticket};
use crate::quota::{self, Claim, Quotas};

/// One deployment's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Tells it from others in this process.
    pub(crate) id: usize,
    /// `model@version`.
    pub(crate) label: Arc<str>,
    books: Mutex<Books>,
    /// Tickets waiting; read without the lock by whoever gives a slot back.
    waiting: AtomicUsize,
    pub(crate) counts: Counts,
}

/// What has happened in a queue, by class where there are three.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Refused because it was full, or was to be too slow.
    pub(crate) shed: [AtomicU64; 3],
    /// Put out of a full queue by more deserving ones.
    pub(crate) pushed_out: [AtomicU64; 3],
    /// Waited in vain.
    pub(crate) expired: [AtomicU64; 3],
    /// Put back by more urgent ones before anything of the answer was sent.
    pub(crate) put_back: [AtomicU64; 3],
    /// Placements, by the balance's reason.
    pub(crate) reasons: Mutex<Vec<(&'static str, u64)>>,
}

/// What is known of a call when it asks for its turn.
#[derive(Debug, Clone)]
pub(crate) struct Asking<'a> {
    pub(crate) class: Priority,
    pub(crate) owner: &'a Owner,
    pub(crate) attempt: &'a Attempt,
    pub(crate) estimate: Estimate,
    /// Whether it was let go on before and then put back: it is inside already, and no bound of the line is for it.
    pub(crate) again: bool,
}

/// What a ticket must know to be let go on.
pub(crate) struct Waiter {
    attempt: Attempt,
    /// The fleet of the config the call came in with. Only it may choose for this ticket: instances are numbered
    /// anew by every config.
    fleet: Arc<dyn Choose>,
    tokens: Tokens,
    called: oneshot::Sender<Called>,
}

/// What a ticket waits for.
#[derive(Debug)]
pub(crate) enum Called {
    /// It may go on.
    Go(Box<Granted>),
    /// It may not.
    Refused(Refused),
}

/// The right to go on.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) taken: Taken,
    pub(crate) charge: Charge,
}

/// Everything that was taken for a call.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) instance: InstanceId,
    pub(crate) permit: Permit,
    pub(crate) claim: Option<Claim>,
    pub(crate) seen: Sight,
}

/// How many are ahead of a newcomer, and how long they are thought to take.
pub(crate) type Ahead = (usize, Option<Duration>);

/// The instances that were looked at.
pub(crate) type Sight = SmallVec<[Seen; 4]>;

/// Why a call is not let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nobody is left who could serve it; perhaps after so long.
    Down(Option<Duration>),
    /// It is too large for every instance; the largest takes so many tokens.
    TooLarge(Tokens),
    /// It is too large for its tenant's quota, which is at most so many tokens.
    BeyondQuota(Tokens),
    /// The line is full.
    Full(Duration),
    /// Its tenant has too much waiting.
    TenantFull(Duration),
    /// It would be too late: those ahead of it take so long.
    Hopeless(Duration),
    /// More deserving ones took its place.
    PushedOut(Duration),
    /// Its deadline passed.
    Late,
    /// Its deadline passed while its tenant's quota was used up.
    QuotaLate,
}

/// What came of asking.
pub(crate) enum Answer {
    Go(Box<Granted>),
    Wait(Place),
    Refused(Refused),
}

/// A place in the line. Dropping it leaves the line.
pub(crate) struct Place {
    queue: Arc<Queue>,
    quotas: Arc<Quotas>,
    name: Name,
    pub(crate) called: oneshot::Receiver<Called>,
    pub(crate) ahead: Ahead,
}

impl Queue {
    pub(crate) fn new(id: usize, label: Arc<str>, rules: Rules) -> Self {
        Self {
            id,
            label,
            books: Mutex::new(Books::new(rules)),
            waiting: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    /// Tickets waiting.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// How large a call is thought to be.
    pub(crate) fn estimate(&self, tenant: &TenantId, attempt: &Attempt) -> Estimate {
        self.books().estimate(tenant, &attempt.call)
    }

    /// A slot at once if nobody waits and one is free; else a place in the line, or a refusal. `age` is the call's
    /// place from an earlier round, if it had one.
    pub(crate) fn ask(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        fleet: &Arc<impl Choose>,
        quotas: &Arc<Quotas>,
        age: &mut Option<Age>,
        since: Moment,
    ) -> Answer {
        let now = clock::now();
        // Whoever comes while others wait waits behind them.
        if self.waiting() == 0 {
            match self.at_once(asking, &**fleet, quotas, now) {
                Some(Ok(granted)) => return Answer::Go(Box::new(granted)),
                Some(Err(refused)) => return Answer::Refused(refused),
                None => {}
            }
        }
        if let Some(refused) = too_large(asking, &**fleet, quotas) {
            return Answer::Refused(refused);
        }
        let (called, waits) = oneshot::channel();
        let waiter = Waiter {
            attempt: asking.attempt.clone(),
            fleet: Arc::clone(fleet) as Arc<dyn Choose>,
            tokens: asking.estimate.occupies(),
            called,
        };
        let joined = self.books().join(asking, waiter, age, since, now);
        let Joined { name, ahead, pushed_out } = match joined {
            Ok(joined) => joined,
            Err(refused) => {
                self.count(&self.counts.shed, asking.class);
                return Answer::Refused(refused);
            }
        };
        for (ticket, refused) in pushed_out {
            self.count(&self.counts.pushed_out, ticket.class);
            drop(ticket.waiter.called.send(Called::Refused(refused)));
        }
        let quotas = Arc::clone(quotas);
        let place = Place { queue: Arc::clone(self), quotas, name, called: waits, ahead };
        self.waiting.store(self.books().len(), Ordering::Release);
        // A slot may have come free between the look and the joining.
        self.pump(&place.quotas);
        Answer::Wait(place)
    }

    /// What a call gets that does not have to wait; `None` if it has to.
    fn at_once(
        &self,
        asking: &Asking<'_>,
        fleet: &impl Choose,
        quotas: &Arc<Quotas>,
        now: Moment,
    ) -> Option<Result<Granted, Refused>> {
        use kernel::fleet::{Ask, Choice};
        let tokens = asking.estimate.occupies();
        let claim = match quotas.take(&asking.owner.tenant, asking.class, quota::Need { tokens: tokens.0 }, now) {
            Ok(claim) => claim,
            Err(quota::Blocked::TooLarge(most)) => return Some(Err(Refused::BeyondQuota(Tokens(most)))),
            Err(quota::Blocked::Spent | quota::Blocked::Lent) => return None,
        };
        let mut seen = Sight::new();
        let ask = Ask { tenant: &asking.owner.tenant, tokens, insists: false };
        let refused = match fleet.choose(asking.attempt, &ask, &mut |one| seen.push(one)) {
            Choice::Taken(instance, permit) => {
                let charge = self.books().pass(asking);
                self.reason(&seen);
                return Some(Ok(Granted { taken: Taken { instance, permit, claim, seen }, charge }));
            }
            Choice::Busy => None,
            Choice::Down(after) => Some(Err(Refused::Down(after))),
            Choice::TooLarge(most) => Some(Err(Refused::TooLarge(most))),
        };
        claim.into_iter().for_each(Claim::undo);
        refused
    }

    /// Hands free slots to those whose turn it is.
    pub(crate) fn pump(&self, quotas: &Arc<Quotas>) {
        while self.waiting() > 0 {
            let called = {
                let mut books = self.books();
                let called = books.call(quotas, clock::now());
                self.waiting.store(books.len(), Ordering::Release);
                called
            };
            let mut returned = false;
            // Sent outside the lock: a refused send frees a slot, which comes back here.
            for (ticket, called) in called {
                match &called {
                    Called::Go(granted) => self.reason(&granted.taken.seen),
                    Called::Refused(Refused::Late | Refused::QuotaLate) => {
                        self.count(&self.counts.expired, ticket.class)
                    }
                    Called::Refused(_) => {}
                }
                // A client that has just left hands its slot back inside the error: somebody else may have it.
                if let Err(Called::Go(granted)) = ticket.waiter.called.send(called) {
                    returned = true;
                    self.settle(granted.charge, None);
                }
            }
            if !returned {
                return;
            }
        }
    }

    /// Corrects what a call was charged, when it is known what it cost; `None`: nothing after all.
    pub(crate) fn settle(&self, charge: Charge, cost: Option<u64>) {
        self.books().settle(charge, cost);
    }

    /// Leaves a charge as it is: what the call cost will not be known.
    pub(crate) fn keep(&self, charge: Charge) {
        self.books().keep(charge);
    }

    /// Corrects what a call was charged by what the backend counted, and learns from it.
    pub(crate) fn learn(&self, charge: Charge, tenant: &TenantId, attempt_bytes: usize, usage: &Usage) {
        self.books().learn(charge, tenant, attempt_bytes, usage);
    }

    /// How long so many would take at the pace of the last ones.
    pub(crate) fn retry_after(&self) -> Duration {
        let books = self.books();
        books.retry_after(books.len(), clock::now())
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // Poisoned books may be off by one ticket; the calls in them still have to be answered.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, of: &[AtomicU64; 3], class: Priority) {
        if let Some(count) = of.get(class.rank()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reason(&self, seen: &Sight) {
        let taken = seen.iter().find_map(|one| match one.verdict {
            kernel::fleet::Verdict::Taken(reason) => Some(reason),
            _ => None,
        });
        let Some(reason) = taken else { return };
        let mut reasons = self.counts.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }

    fn leave(&self, name: &Name, quotas: &Arc<Quotas>) {
        let mut books = self.books();
        let gone = books.remove(name);
        self.waiting.store(books.len(), Ordering::Release);
        drop(books);
        // Whoever stood behind it may go in its place.
        if gone {
            self.pump(quotas);
        }
    }
}

/// Whether a call could never go on, however long it waited.
fn too_large(asking: &Asking<'_>, fleet: &impl Choose, quotas: &Quotas) -> Option<Refused> {
    let tokens = asking.estimate.occupies();
    if let Some(quota::Blocked::TooLarge(most)) = quotas.would(&asking.owner.tenant, asking.class, tokens.0) {
        return Some(Refused::BeyondQuota(Tokens(most)));
    }
    fleet.largest(asking.attempt).filter(|largest| *largest < tokens).map(Refused::TooLarge)
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What was sent and never taken goes back with it.
        if let Ok(Called::Go(granted)) = self.called.try_recv() {
            let Granted { taken, charge } = *granted;
            drop(taken);
            self.queue.settle(charge, None);
            self.queue.pump(&self.quotas);
            return;
        }
        self.queue.leave(&self.name, &self.quotas);
    }
}

/// A ticket that was let go on or refused, and what it is told.
type Told = (Ticket<Waiter>, Called);
