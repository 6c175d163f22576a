//! Calls that wait for a slot of one deployment, first come, first served.
//!
//! Whoever gives a slot back hands it to the first ticket that can use it, on the spot: nobody overtakes, and
//! nobody wakes up in vain. A ticket whose client has left is gone at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kernel::fleet::{Choice, Choose, Deployment};
use kernel::{Attempt, InstanceId, Permit};
use tokio::sync::oneshot;

/// The queues that outlive configs, by `model@version`.
#[derive(Debug, Default)]
pub struct State(Mutex<HashMap<Arc<str>, Arc<Queue>>>);

/// The calls waiting for one deployment.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    tickets: Mutex<Tickets>,
    /// Tickets waiting; read without the lock by whoever gives a slot back.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    /// In the order of their numbers.
    line: VecDeque<Ticket>,
}

struct Ticket {
    number: u64,
    attempt: Attempt,
    /// The fleet of the config the call came in with. Only it may choose for this ticket: instances are numbered
    /// anew by every config.
    fleet: Arc<dyn Choose>,
    called: oneshot::Sender<Called>,
}

/// What a ticket waits for.
#[derive(Debug)]
pub(crate) enum Called {
    /// A slot was taken in its name.
    Slot(InstanceId, Permit),
    /// Nobody is left who could serve it.
    Down(Option<std::time::Duration>),
}

/// A place in the line. Dropping it leaves the line.
pub(crate) struct Place {
    queue: Arc<Queue>,
    number: u64,
    pub(crate) called: oneshot::Receiver<Called>,
}

// === impl State ===

impl State {
    /// The queue of a deployment.
    pub(crate) fn queue(&self, deployment: &Deployment) -> Arc<Queue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry(Arc::clone(&deployment.label)).or_default())
    }

    /// Looks after everybody who waits, in queues of models that are gone from the config too: a slot may have become
    /// free without anybody giving one back (an instance came back, a limit was raised).
    pub fn tend(&self) {
        let queues: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        queues.iter().for_each(|queue| queue.pump());
    }

    /// Forgets queues of deployments that are gone and have nobody waiting.
    pub(crate) fn retain(&self, known: impl Fn(&str) -> bool) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|label, queue| known(label) || queue.waiting() > 0);
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Joins the line; `None` when `max` wait already.
    pub(crate) fn join(self: &Arc<Self>, fleet: Arc<dyn Choose>, attempt: Attempt, max: usize) -> Option<Place> {
        let mut tickets = self.lock();
        if tickets.line.len() >= max {
            return None;
        }
        let number = tickets.next;
        tickets.next += 1;
        let (called, waits) = oneshot::channel();
        tickets.line.push_back(Ticket { number, attempt, fleet, called });
        self.waiting.store(tickets.line.len(), Ordering::Release);
        Some(Place { queue: Arc::clone(self), number, called: waits })
    }

    /// Hands free slots to those who wait for them, in order.
    pub(crate) fn pump(&self) {
        while self.waiting() > 0 {
            let mut returned = false;
            for (ticket, called) in self.call() {
                // A client that has just left hands its slot back inside the error: somebody else may have it.
                returned |= ticket.called.send(called).is_err();
            }
            if !returned {
                return;
            }
        }
    }

    /// Takes everybody out of the line who can go now. Sending is left to the caller, outside the lock: it may free
    /// a slot, which would come back here.
    fn call(&self) -> Vec<(Ticket, Called)> {
        let mut tickets = self.lock();
        let (mut called, mut at) = (Vec::new(), 0);
        while let Some(ticket) = tickets.line.get(at) {
            let outcome = match ticket.fleet.choose(&ticket.attempt) {
                Choice::Taken(instance, permit) => Called::Slot(instance, permit),
                Choice::Down(after) => Called::Down(after),
                // Only one that may go anywhere can tell that nobody behind it can go either.
                Choice::Busy if ticket.attempt.tried.is_empty() => break,
                Choice::Busy => {
                    at += 1;
                    continue;
                }
            };
            called.extend(tickets.line.remove(at).map(|ticket| (ticket, outcome)));
        }
        self.waiting.store(tickets.line.len(), Ordering::Release);
        called
    }

    fn leave(&self, number: u64) {
        let mut tickets = self.lock();
        if let Ok(at) = tickets.line.binary_search_by_key(&number, |ticket| ticket.number) {
            tickets.line.remove(at);
        }
        self.waiting.store(tickets.line.len(), Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}
