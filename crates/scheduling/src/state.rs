//! What outlives configs: the queues, what is out of quotas, the calls that may be put back, the last decisions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kernel::fleet::Deployment;

use crate::memory::Memory;
use crate::queue::{Queue, Rules};
use crate::quota::Quotas;
use crate::running::Running;

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
}

impl State {
    /// Looks after everybody who waits, in queues of models that are gone from the config too: a slot may have become
    /// free without anybody giving one back (an instance came back, a limit was raised).
    pub fn tend(&self) {
        for queue in self.0.all() {
            queue.books().sweep();
            queue.pump(&self.0.quotas);
        }
    }
}

impl Shared {
    /// The queue of a deployment.
    pub(crate) fn queue(&self, deployment: &Deployment, rules: &Rules) -> Arc<Queue> {
        let mut queues = self.lock();
        let make = || {
            let id = self.made.fetch_add(1, Ordering::Relaxed);
            Arc::new(Queue::new(id, Arc::clone(&deployment.label), rules.clone()))
        };
        Arc::clone(queues.entry(Arc::clone(&deployment.label)).or_insert_with(make))
    }

    /// Forgets queues of deployments that are gone and have nobody waiting.
    pub(crate) fn retain(&self, known: impl Fn(&str) -> bool) {
        self.lock().retain(|label, queue| known(label) || queue.waiting() > 0);
    }

    /// Hands out what a call has given back that calls of other deployments may use as well: the most urgent first, then
    /// whoever has waited longest.
    pub(crate) fn pump_all(&self) {
        let mut waiting: Vec<_> = self.all().into_iter().filter(|queue| queue.waiting() > 0).collect();
        waiting.sort_by_cached_key(|queue| queue.books().line().foremost());
        waiting.iter().for_each(|queue| queue.pump(&self.quotas));
    }

    /// Every queue there is.
    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
