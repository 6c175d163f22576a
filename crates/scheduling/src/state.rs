//! What outlives configs: the queues, what is out of quotas, the calls that may be put back, the last decisions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kernel::fleet::Deployment;

use crate::clock;
use crate::memory::Memory;
use crate::queue::{Queue, Rules};
use crate::quota::Quotas;
use crate::running::{Running, Wish};

/// To be kept over reloads, and handed to every new scheduler.
#[derive(Debug, Clone, Default)]
pub struct State(pub(crate) Arc<Shared>);

#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// By `model@version`.
    queues: Mutex<BTreeMap<Arc<str>, Arc<Queue>>>,
    made: AtomicUsize,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) running: Running,
    pub(crate) memory: Memory,
    /// Whether calls may be put back at all.
    pub(crate) preemption: AtomicBool,
    rounds: AtomicUsize,
}

impl State {
    /// Looks after everybody who waits, in queues of models that are gone from the config too: a slot may have become
    /// free without anybody giving one back (an instance came back, a limit was raised).
    pub fn tend(&self) {
        let round = self.0.rounds.fetch_add(1, Ordering::Relaxed);
        for queue in self.0.all() {
            queue.count_ended();
            let mut books = queue.books();
            books.look_again();
            if round.is_multiple_of(SWEEP_EVERY) {
                books.sweep();
            }
            drop(books);
            self.0.pump(&queue);
            self.0.make_way(&queue, None);
        }
    }
}

/// Rounds between two sweeps: what is forgotten then costs nothing but memory.
const SWEEP_EVERY: usize = 64;

impl Shared {
    /// The queue of a deployment.
    pub(crate) fn queue(self: &Arc<Self>, deployment: &Deployment, rules: &Rules) -> Arc<Queue> {
        let mut queues = self.lock();
        let make = || {
            let id = self.made.fetch_add(1, Ordering::Relaxed);
            Arc::new(Queue::new(id, Arc::clone(&deployment.label), rules.clone(), Arc::downgrade(self)))
        };
        Arc::clone(queues.entry(Arc::clone(&deployment.label)).or_insert_with(make))
    }

    /// Forgets queues of deployments that are gone and have nobody waiting.
    pub(crate) fn retain(&self, known: impl Fn(&str) -> bool) {
        self.lock().retain(|label, queue| known(label) || queue.waiting() > 0);
    }

    /// Hands free slots of a deployment to those whose turn it is.
    pub(crate) fn pump(&self, queue: &Queue) {
        if queue.pump(&self.quotas) {
            self.pump_all();
        }
    }

    /// Something has come back: hands it on.
    pub(crate) fn came_back(&self, queue: &Queue, shares: bool) {
        if shares { self.pump_all() } else { self.pump(queue) }
    }

    /// Puts calls back for one that waits (the next in line where none is named), if that lets it go on.
    pub(crate) fn make_way(&self, queue: &Queue, wish: Option<Wish>) {
        let may = self.preemption.load(Ordering::Relaxed) && queue.waiting() > 0 && !self.running.is_empty();
        if !may {
            return;
        }
        if let Some(wish) = wish.or_else(|| queue.books().wish(clock::now())) {
            self.running.put_back(queue.id, &wish, &self.quotas);
        }
    }

    /// Hands out what a call has given back that calls of other deployments may use as well: the most urgent first, then
    /// whoever has waited longest.
    pub(crate) fn pump_all(&self) {
        let mut waiting: Vec<_> = self.all().into_iter().filter(|queue| queue.waiting() > 0).collect();
        waiting.sort_by_cached_key(|queue| queue.books().line().foremost());
        for queue in waiting {
            // What comes back meanwhile is looked at in the next round.
            let _shares = queue.pump(&self.quotas);
        }
    }

    /// Every queue there is.
    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
