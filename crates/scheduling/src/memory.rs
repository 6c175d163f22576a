//! The last decisions, for whoever asks why a call was placed as it was.
//!
//! Written for every call, so nothing in it is counted by two data-plane threads at once: a ring for each, calls by their own
//! context, and deployments by their place in a list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::explain::Decision;
use kernel::fleet::Deployment;
use kernel::{Ctx, Moment, Tokens, core};

use crate::queue::{Ahead, Sight};

/// A ring of decisions per data-plane thread.
#[derive(Debug)]
pub(crate) struct Memory(Vec<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    /// About calls that waited, were refused, put back, or had failed somewhere before.
    eventful: VecDeque<Remembered>,
    /// About the others.
    plain: VecDeque<Remembered>,
    deployments: Vec<Arc<Deployment>>,
}

/// A decision as it is kept.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) ctx: Ctx,
    pub(crate) at: Moment,
    /// Tokens it was thought to have: prompt, answer.
    pub(crate) estimate: (Tokens, Tokens),
    pub(crate) waited: Duration,
    pub(crate) joined: Option<Ahead>,
    pub(crate) put_back: u32,
    pub(crate) seen: Sight,
    pub(crate) left_out: u32,
    pub(crate) refused: Option<&'static str>,
    /// Its place in the list of the ring that keeps it.
    pub(crate) deployment: usize,
}

/// Bound: decisions remembered per ring where something happened, some 2 MiB.
const EVENTFUL: usize = 2048;
/// Bound: and where nothing did. So few that what is forgotten is still near at hand: to free something long cold costs more
/// than all else here.
const PLAIN: usize = 256;
/// Bound: rings; more threads than this share them.
const RINGS: usize = 16;
/// Bound: deployments listed; beyond it the list and the ring begin anew. Only many reloads of a large config come near it.
const DEPLOYMENTS: usize = 4096;

impl Default for Memory {
    fn default() -> Self {
        Self((0..RINGS).map(|_| Mutex::default()).collect())
    }
}

impl Remembered {
    /// A decision about a call that found a slot at once; what else there was is filled in.
    pub(crate) fn new(ctx: &Ctx, at: Moment) -> Self {
        Self {
            ctx: ctx.clone(),
            at,
            estimate: (Tokens(0), Tokens(0)),
            waited: Duration::ZERO,
            joined: None,
            put_back: 0,
            seen: Sight::new(),
            left_out: 0,
            refused: None,
            deployment: 0,
        }
    }

    /// The same for whoever wants to know.
    pub(crate) fn told(&self, deployment: &Arc<Deployment>) -> Decision {
        let facts = self.ctx.facts();
        Decision {
            id: facts.id.clone(),
            tenant: facts.caller.tenant.clone(),
            at: self.at,
            class: facts.priority,
            estimate: self.estimate,
            waited: self.waited,
            joined: self.joined.map(|(ahead, wait)| (u32::try_from(ahead).unwrap_or(u32::MAX), wait)),
            put_back: self.put_back,
            deployment: Arc::clone(deployment),
            seen: self.seen.clone(),
            left_out: self.left_out,
            refused: self.refused,
        }
    }
}

impl Memory {
    /// Remembers a decision; `tried` says whether the call had failed somewhere before.
    pub(crate) fn keep(&self, mut decision: Remembered, deployment: &Arc<Deployment>, tried: bool) {
        let eventful = tried || decision.joined.is_some() || decision.refused.is_some() || decision.put_back > 0;
        let Some(ring) = self.0.get(core::current() % RINGS) else { return };
        let oldest = {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            decision.deployment = ring.place(deployment);
            let (of, most) = if eventful { (&mut ring.eventful, EVENTFUL) } else { (&mut ring.plain, PLAIN) };
            let oldest = if of.len() >= most { of.pop_front() } else { None };
            of.push_back(decision);
            oldest
        };
        // Freed outside the lock.
        drop(oldest);
    }

    /// The decisions about a call, the oldest first.
    pub(crate) fn about(&self, id: &str) -> Vec<Arc<Decision>> {
        let mut found = Vec::new();
        for ring in &self.0 {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            let all = ring.eventful.iter().chain(&ring.plain);
            let about = all.filter(|decision| decision.ctx.facts().id.as_str() == id);
            found.extend(
                about.filter_map(|decision| Some(Arc::new(decision.told(ring.deployments.get(decision.deployment)?)))),
            );
        }
        found.sort_by_key(|decision| decision.at);
        found
    }
}

impl Ring {
    /// Where a deployment is listed. The latest are at the end, and nearly every call goes to one of them.
    fn place(&mut self, deployment: &Arc<Deployment>) -> usize {
        if let Some(at) = self.deployments.iter().rposition(|known| Arc::ptr_eq(known, deployment)) {
            return at;
        }
        if self.deployments.len() >= DEPLOYMENTS {
            *self = Self::default();
        }
        self.deployments.push(Arc::clone(deployment));
        self.deployments.len() - 1
    }
}
