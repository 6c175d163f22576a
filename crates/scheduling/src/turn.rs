//! A call's turn, from its placement to the last byte of its answer.

use std::sync::Arc;

use kernel::error::Kind;
use kernel::{Ctx, Reply, Result};

use crate::line::Charge;
use crate::queue::{Did, Ended, Queue};
use crate::quota::Claim;

/// Held for as long as a call occupies a slot, and dropped after the permit: settles what the call cost, gives its
/// quota back, and passes the slot on to whose turn it is next.
pub(crate) struct Turn {
    queue: Arc<Queue>,
    ctx: Ctx,
    charge: Option<Charge>,
    claim: Option<Claim>,
    /// Whether it held something that calls of other deployments may use as well.
    shares: bool,
    /// What the model read, in bytes.
    bytes: usize,
    /// Why it went where it went, if that was not counted yet.
    reason: Option<&'static str>,
    verdict: Verdict,
}

/// What was taken for a call beside its slot.
pub(crate) struct Costs {
    /// `None`: it is charged when it ends.
    pub(crate) charge: Option<Charge>,
    pub(crate) claim: Option<Claim>,
    /// Whether its permit holds something that calls of other deployments may use as well.
    pub(crate) shares: bool,
    /// What the model reads, in bytes.
    pub(crate) bytes: usize,
    /// Why it went where it went, if that was not counted yet.
    pub(crate) reason: Option<&'static str>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its client left: what the backend did until then was done for it.
    Abandoned,
    /// It was answered, or the backend worked for it in vain.
    Answered,
    /// Nothing was done for it.
    Undone,
}

impl Turn {
    pub(crate) fn new(queue: &Arc<Queue>, ctx: &Ctx, costs: Costs) -> Self {
        let Costs { charge, claim, shares, bytes, reason } = costs;
        let shares = shares || claim.is_some();
        let (queue, ctx) = (Arc::clone(queue), ctx.clone());
        Self { queue, ctx, charge, claim, shares, bytes, reason, verdict: Verdict::Abandoned }
    }

    /// The backend has answered, or failed: a streamed answer holds the turn until its last byte.
    pub(crate) fn over(mut self, answered: Result<Reply>) -> Result<Reply> {
        match answered {
            Ok(reply) => {
                self.ended(Verdict::Answered);
                Ok(reply.holding(self))
            }
            Err(error) => {
                // Who ran into a time-out had the backend work for it.
                self.ended(if error.kind == Kind::UpstreamTimeout { Verdict::Answered } else { Verdict::Undone });
                Err(error)
            }
        }
    }

    /// What became of the call; unless told, its client left.
    pub(crate) fn ended(&mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let usage = self.ctx.glance(|journal| journal.usage);
        let did = match (self.verdict, usage) {
            (Verdict::Undone, _) => Did::Nothing,
            (_, Some(usage)) => Did::Counted(usage),
            (_, None) => Did::Something,
        };
        let ended = Ended { ctx: self.ctx.clone(), did, bytes: self.bytes, reason: self.reason };
        self.queue.ended(self.charge.take(), ended);
        drop(self.claim.take());
        self.queue.came_back(self.shares);
    }
}
