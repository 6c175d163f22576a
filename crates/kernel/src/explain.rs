//! Why a call was placed as it was: what the scheduler saw and made of it, kept for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::fleet::{Deployment, Seen};
use crate::{Moment, Priority, RequestId, TenantId, Tokens};

/// One decision about one attempt of a call.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Which call.
    pub id: RequestId,
    /// Whose.
    pub tenant: TenantId,
    /// When it was made.
    pub at: Moment,
    /// How urgent the call was.
    pub class: Priority,
    /// Tokens it was thought to have: prompt, answer.
    pub estimate: (Tokens, Tokens),
    /// How long it had waited for it.
    pub waited: Duration,
    /// How many were ahead of it when it joined the line, and how long they were thought to take; `None` where it found
    /// a slot at once.
    pub joined: Option<(u32, Option<Duration>)>,
    /// How often it had been put back by more urgent calls.
    pub put_back: u32,
    /// The deployment it was for; its instances are named there.
    pub deployment: Arc<Deployment>,
    /// The instances that were looked at, the one that was taken first, then the best; at most [`SEEN_MAX`].
    pub seen: SmallVec<[Seen; 2]>,
    /// How many more were looked at.
    pub left_out: u32,
    /// Why it was refused; `None` if it was placed.
    pub refused: Option<&'static str>,
}

/// Bound: instances remembered per decision, so that many decisions of a large fleet take little memory.
pub const SEEN_MAX: usize = 8;

/// Remembers the last decisions. For operators.
pub trait Decisions: Send + Sync + 'static {
    /// The decisions about a call, the oldest first; empty if they are forgotten, or never were.
    fn about(&self, id: &str) -> Vec<Arc<Decision>>;
}

/// The lines of those who wait. For operators.
pub trait Lines: Send + Sync + 'static {
    /// Every line, whether anybody waits in it or not.
    fn lines(&self) -> Vec<LineView>;
    /// Every quota and cohort.
    fn quotas(&self) -> Vec<QuotaView>;
}

/// The line of one deployment.
#[derive(Debug, Clone)]
pub struct LineView {
    /// `model@version`.
    pub deployment: Arc<str>,
    /// Calls waiting, and the bytes they hold.
    pub waiting: (usize, u64),
    /// How long a newcomer of the class `normal` would wait, as far as that is known.
    pub estimate: Option<Duration>,
    /// By class, most urgent first: calls waiting, and how long the oldest has.
    pub classes: Vec<(Priority, usize, Option<Duration>)>,
    /// Tenants with calls waiting: class, tenant, calls, bytes, service so far by share.
    pub tenants: Vec<TenantView>,
}

/// One tenant in a line.
#[derive(Debug, Clone)]
pub struct TenantView {
    /// Which class.
    pub class: Priority,
    /// Who.
    pub tenant: TenantId,
    /// Calls waiting, and the bytes they hold.
    pub waiting: (usize, u64),
    /// Service received, by share, in thousandths of an input token; only differences mean something.
    pub counter: u64,
}

/// One quota, or one cohort.
#[derive(Debug, Clone)]
pub struct QuotaView {
    /// Whose; `None` for a cohort.
    pub tenant: Option<TenantId>,
    /// For which class; `None` for the rest.
    pub class: Option<Priority>,
    /// The cohort, or the one it belongs to.
    pub cohort: Option<String>,
    /// In calls and in tokens: what it has (`None`: not limited), and what is taken of it, borrowed included.
    pub amounts: [(Option<u64>, u64); 2],
}
