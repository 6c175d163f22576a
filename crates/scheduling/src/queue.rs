//! The calls waiting for one deployment, and those it has let go on.
//!
//! Whoever gives a slot back hands it to the ticket whose turn it is, on the spot: nobody overtakes, and nobody wakes up
//! in vain. Who that is, is [`Line`]'s business. Outlives configs; a ticket whose client has left is gone at once.

mod books;
mod drain;
mod estimate;
mod shelves;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kernel::fleet::{Choose, Rooms, Seen};
use kernel::{Attempt, Caller, InstanceId, Moment, Permit, Priority, Tokens};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use self::books::Joined;
pub(crate) use self::books::{Books, Rules, reason};
pub(crate) use self::drain::RETRY_MIN;
#[cfg(test)]
pub(crate) use self::estimate::cost_of;
pub(crate) use self::estimate::{Estimate, Estimator, cost};
use self::shelves::Shelves;
pub(crate) use self::shelves::{Did, Ended};
use crate::clock;
use crate::line::{Age, Charge, Name, Ticket};
use crate::quota::{self, Claim, Quotas};
use crate::state::Shared;

/// One deployment's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Tells it from others in this process.
    pub(crate) id: usize,
    /// `model@version`.
    pub(crate) label: Arc<str>,
    /// What all queues share. A queue is part of it.
    shared: Weak<Shared>,
    books: Mutex<Books>,
    shelves: Shelves,
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
}

/// What is known of a call when it asks for its turn.
#[derive(Debug, Clone)]
pub(crate) struct Asking<'a> {
    pub(crate) class: Priority,
    pub(crate) owner: &'a Caller,
    pub(crate) attempt: &'a Attempt,
    /// Whether it was let go on before and then put back: it is inside already, and no bound of the line is for it.
    pub(crate) again: bool,
    /// Whether somebody wants to know how large it was thought to be.
    pub(crate) explain: bool,
    /// When all of it had come, and now.
    pub(crate) since: Moment,
    pub(crate) now: Moment,
}

/// What a call takes, in tokens. An estimate beyond what there could ever be is taken for all there is: refused is only
/// what is sure to be too large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of a KV cache.
    pub(crate) cache: Tokens,
    /// Of its tenant's quota.
    pub(crate) quota: u64,
    /// What it is sure to take.
    certain: u64,
}

/// What a ticket must know to be let go on.
pub(crate) struct Waiter {
    attempt: Attempt,
    /// The fleet of the config the call came in with. Only it may choose for this ticket: instances are numbered
    /// anew by every config.
    fleet: Arc<dyn Choose>,
    size: Size,
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
    /// `None`: it is charged when it ends.
    pub(crate) charge: Option<Charge>,
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
pub(crate) type Sight = SmallVec<[Seen; 2]>;

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
    Go(Granted),
    Wait(Place),
    Refused(Refused),
}

/// A place in the line. Dropping it leaves the line.
pub(crate) struct Place {
    queue: Arc<Queue>,
    name: Name,
    pub(crate) called: oneshot::Receiver<Called>,
    pub(crate) ahead: Ahead,
    /// Tokens it needs of its quota.
    pub(crate) tokens: u64,
}

impl Queue {
    pub(crate) fn new(id: usize, label: Arc<str>, rules: Rules, shared: Weak<Shared>) -> Self {
        Self {
            id,
            label,
            shared,
            books: Mutex::new(Books::new(rules)),
            shelves: Shelves::default(),
            waiting: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    /// Tickets waiting.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// A slot at once if nobody waits and one is free; else a place in the line, or a refusal. `age` is the call's
    /// place from an earlier round, if it had one.
    pub(crate) fn ask(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        fleet: &Arc<impl Choose>,
        quotas: &Arc<Quotas>,
        age: &mut Option<Age>,
    ) -> (Answer, Estimate) {
        let (rooms, waits) = (fleet.rooms(asking.attempt), self.waiting() > 0);
        // Where neither caches nor quotas are counted, nothing hangs on how large it is.
        if !waits && !asking.explain && rooms == Rooms::default() && !quotas.any() {
            let size = Size { cache: Tokens(0), quota: 0, certain: 0 };
            if let Some(answer) = self.at_once(asking, size, None, &**fleet, quotas) {
                return answer;
            }
        }
        let estimate = self.books().estimate(&asking.owner.tenant, &asking.attempt.call);
        let size = match Size::of(asking, estimate, rooms, quotas) {
            Ok(size) => size,
            Err(refused) => return (Answer::Refused(refused), estimate),
        };
        // Whoever comes while others wait waits behind them.
        if !waits && let Some(answer) = self.at_once(asking, size, Some(estimate), &**fleet, quotas) {
            return answer;
        }
        fleet.prepare(asking.attempt, &asking.owner.tenant);
        if !waits {
            self.count_ended();
        }
        let (called, waits) = oneshot::channel();
        let waiter =
            Waiter { attempt: asking.attempt.clone(), fleet: Arc::clone(fleet) as Arc<dyn Choose>, size, called };
        let joined = self.books().join(asking, estimate, waiter, age);
        let Joined { name, ahead, pushed_out } = match joined {
            Ok(joined) => joined,
            Err(refused) => {
                self.count(&self.counts.shed, asking.class);
                return (Answer::Refused(refused), estimate);
            }
        };
        for (ticket, refused) in pushed_out {
            self.count(&self.counts.pushed_out, ticket.class);
            drop(ticket.waiter.called.send(Called::Refused(refused)));
        }
        self.waiting.store(self.books().len(), Ordering::Release);
        let place = Place { queue: Arc::clone(self), name, called: waits, ahead, tokens: size.quota };
        // A slot may have come free between the look and the joining.
        self.came_back(false);
        (Answer::Wait(place), estimate)
    }

    /// What a call gets that does not have to wait; `None` if it has to.
    fn at_once(
        &self,
        asking: &Asking<'_>,
        size: Size,
        estimate: Option<Estimate>,
        fleet: &impl Choose,
        quotas: &Arc<Quotas>,
    ) -> Option<(Answer, Estimate)> {
        use kernel::fleet::{Ask, Choice};
        // Blocked, it waits; what is too large after all is told when its turn comes.
        let claim =
            quotas.take(&asking.owner.tenant, asking.class, quota::Need { tokens: size.quota }, asking.now).ok()?;
        let mut seen = Sight::new();
        let ask = Ask { tenant: &asking.owner.tenant, tokens: size.cache, insists: false, below: None };
        let refused = match fleet.choose(asking.attempt, &ask, &mut |one| seen.push(one)) {
            Choice::Taken(instance, permit) => {
                let charge = estimate.map(|estimate| self.books().pass(asking, estimate, &seen));
                let taken = Taken { instance, permit, claim, seen };
                return Some((Answer::Go(Granted { taken, charge }), estimate.unwrap_or_default()));
            }
            Choice::Busy | Choice::TooLarge(_) => None,
            Choice::Down(after) => Some((Answer::Refused(Refused::Down(after)), estimate.unwrap_or_default())),
        };
        claim.into_iter().for_each(Claim::undo);
        refused
    }

    /// Hands free slots to those whose turn it is. Tells whether something came back that calls of other deployments may
    /// use as well.
    pub(crate) fn pump(&self, quotas: &Arc<Quotas>) -> bool {
        let mut shares = false;
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
                    Called::Refused(Refused::Late | Refused::QuotaLate) => {
                        self.count(&self.counts.expired, ticket.class)
                    }
                    Called::Go(_) | Called::Refused(_) => {}
                }
                // A client that has just left hands its slot back inside the error: somebody else may have it.
                if let Err(Called::Go(granted)) = ticket.waiter.called.send(called) {
                    returned = true;
                    shares |= granted.taken.shares();
                    self.undo(granted.charge);
                }
            }
            if !returned {
                break;
            }
        }
        shares
    }

    /// Gives a charge back: nothing was done for it.
    fn undo(&self, charge: Option<Charge>) {
        if let Some(charge) = charge {
            self.books().settle(charge, None);
        }
    }

    /// A call has ended: corrects its charge by what was done for it, and learns from that; or charges it now.
    pub(crate) fn ended(&self, charge: Option<Charge>, ended: Ended) {
        match charge {
            Some(charge) => self.books().ended(charge, &ended),
            None => {
                let all = self.shelves.put(ended, self.waiting() > 0);
                self.count_all(&all);
            }
        }
    }

    /// Counts the calls that have ended and did not have to wait.
    pub(crate) fn count_ended(&self) {
        self.count_all(&self.shelves.clear());
    }

    fn count_all(&self, all: &[Ended]) {
        if !all.is_empty() {
            let mut books = self.books();
            all.iter().for_each(|ended| books.charge(ended));
        }
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

    /// Something has come back: hands it on, to calls of other deployments too if they may use it.
    pub(crate) fn came_back(&self, shares: bool) {
        if !shares && self.waiting() == 0 {
            return;
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.came_back(self, shares);
        }
    }

    /// Takes a ticket out; tells whether it was still there.
    fn leave(&self, name: &Name) -> bool {
        let mut books = self.books();
        let gone = books.remove(name);
        self.waiting.store(books.len(), Ordering::Release);
        gone
    }
}

impl Taken {
    /// Whether giving it back may make room for calls of other deployments.
    fn shares(&self) -> bool {
        self.permit.shares() || self.claim.is_some()
    }
}

impl Size {
    fn of(asking: &Asking<'_>, estimate: Estimate, rooms: Rooms, quotas: &Quotas) -> Result<Self, Refused> {
        let (thought, certain) = (estimate.occupies(), estimate.certain);
        let most = quotas.most_tokens(&asking.owner.tenant, asking.class).unwrap_or(u64::MAX);
        let largest = rooms.largest.unwrap_or(Tokens(u64::MAX));
        if certain > most {
            return Err(Refused::BeyondQuota(Tokens(most)));
        }
        if certain > largest.0 {
            return Err(Refused::TooLarge(largest));
        }
        Ok(Self { cache: thought.min(largest), quota: thought.0.min(most), certain })
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Closed first: whoever is just letting it go on finds that out, and settles what it has taken.
        self.called.close();
        // What was sent and never taken goes back with it.
        if let Ok(Called::Go(granted)) = self.called.try_recv() {
            let Granted { taken, charge } = *granted;
            let shares = taken.shares();
            drop(taken);
            self.queue.undo(charge);
            self.queue.came_back(shares);
        } else if self.queue.leave(&self.name) {
            // Whoever stood behind it may go in its place.
            self.queue.came_back(false);
        }
    }
}

/// A ticket that was let go on or refused, and what it is told.
type Told = (Ticket<Waiter>, Called);
