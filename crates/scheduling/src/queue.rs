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

#[derive(Debug)]
struct Ticket {
    number: u64,
    attempt: Attempt,
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
    pub(crate) fn join(self: &Arc<Self>, attempt: Attempt, max: usize) -> Option<Place> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.line.len() >= max {
            return None;
        }
        let number = tickets.next;
        tickets.next += 1;
        let (called, waits) = oneshot::channel();
        tickets.line.push_back(Ticket { number, attempt, called });
        self.waiting.store(tickets.line.len(), Ordering::Release);
        Some(Place { queue: Arc::clone(self), number, called: waits })
    }

    /// Hands free slots to those who wait for them, in order.
    pub(crate) fn pump(&self, fleet: &dyn Choose) {
        if self.waiting() == 0 {
            return;
        }
        for (ticket, called) in self.call(fleet) {
            // The client may have left meanwhile: then the slot comes back in the error and is freed here.
            drop(ticket.called.send(called));
        }
    }

    /// Takes everybody out of the line who can go now. Sending is left to the caller, outside the lock: it may free
    /// a slot, which would come back here.
    fn call(&self, fleet: &dyn Choose) -> Vec<(Ticket, Called)> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut called, mut stay) = (Vec::new(), VecDeque::with_capacity(tickets.line.len()));
        while let Some(ticket) = tickets.line.pop_front() {
            match fleet.choose(&ticket.attempt) {
                Choice::Taken(instance, permit) => called.push((ticket, Called::Slot(instance, permit))),
                Choice::Down(after) => called.push((ticket, Called::Down(after))),
                Choice::Busy => {
                    // Only one that may go anywhere can tell that nobody behind it can go either.
                    let anywhere = ticket.attempt.tried.is_empty();
                    stay.push_back(ticket);
                    if anywhere {
                        break;
                    }
                }
            }
        }
        stay.append(&mut tickets.line);
        tickets.line = stay;
        self.waiting.store(tickets.line.len(), Ordering::Release);
        called
    }

    fn leave(&self, number: u64) {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(at) = tickets.line.binary_search_by_key(&number, |ticket| ticket.number) {
            tickets.line.remove(at);
        }
        self.waiting.store(tickets.line.len(), Ordering::Release);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}
