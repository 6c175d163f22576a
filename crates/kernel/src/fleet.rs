//! What the upper stages may know of the machines behind: which models there are, and who has a free slot.
//!
//! `models` publishes a [`Roster`] and implements [`Choose`]; orchestration and scheduling see no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Attempt, InstanceId, ModelName, Permit, Priority, TenantId, Tokens, Version};

/// Every model a machine can answer for, as one immutable snapshot.
#[derive(Debug, Default)]
pub struct Roster {
    /// The models by name.
    pub models: BTreeMap<ModelName, Arc<Model>>,
}

/// A model as the upper stages see it.
#[derive(Debug)]
pub struct Model {
    /// The name clients ask for.
    pub name: ModelName,
    /// Its versions; never empty.
    pub deployments: Vec<Arc<Deployment>>,
    /// How long a whole call may take, waiting included.
    pub timeout: Duration,
    /// How often a call may be tried in all, the first time included.
    pub attempts_max: u32,
    /// Retries allowed at once, as a share of the calls in flight, in percent.
    pub retry_percent: u32,
    /// Retries always allowed at once.
    pub retry_min: u32,
    /// How urgent calls to it are that do not say so themselves.
    pub priority: Option<Priority>,
    /// The gates its calls pass once it is known what is wanted, by name, where it has its own.
    pub middleware: Option<Arc<[Arc<str>]>>,
    /// Whether it is no model but a plain service: reached by its path, and not by its name.
    pub service: bool,
}

/// One version of a model, with its instances.
#[derive(Debug)]
pub struct Deployment {
    /// Its place in the roster that published it.
    pub index: usize,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Its share of the model's traffic, relative to the other versions.
    pub weight: u32,
    /// Its instances.
    pub instances: Vec<InstanceId>,
    /// Their names, in the same order.
    pub names: Vec<Arc<str>>,
    /// `model@version`, as told in `x-sluice-model`.
    pub label: Arc<str>,
}

/// What a call needs, and how urgently, beside what its attempt says.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Whose call it is: prompts of one tenant tell nothing about another's.
    pub tenant: &'a TenantId,
    /// Tokens it will occupy in a KV cache, prompt and answer together, as far as can be told before.
    pub tokens: Tokens,
    /// It has waited so long that machines it needs shall be kept free for it.
    pub insists: bool,
    /// Only instances with less room for tokens than this: a larger call waits for the others.
    pub below: Option<Tokens>,
}

/// Room for tokens of the smallest and of the largest instance when it is empty; `None`: not bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rooms {
    /// Of the smallest that has a bound.
    pub smallest: Option<Tokens>,
    /// Of the largest; `None` where one has no bound.
    pub largest: Option<Tokens>,
}

/// What came of asking for a free slot.
#[derive(Debug)]
pub enum Choice {
    /// A slot was free and is now taken.
    Taken(InstanceId, Permit),
    /// Somebody could do it, but not now: wait.
    Busy,
    /// Nobody left to ask; perhaps after so long.
    Down(Option<Duration>),
    /// It is too large for every instance there is: the largest takes so many tokens.
    TooLarge(Tokens),
}

/// One instance as a choice saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Its place in the deployment.
    pub index: u32,
    /// Calls it had.
    pub busy: u32,
    /// Calls it might have; `u32::MAX` without a limit.
    pub limit: u32,
    /// What the balance made of it, the least wins; not a number where it was not asked.
    pub score: f64,
    /// What came of it.
    pub verdict: Verdict,
}

/// Why an instance was taken, or was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, for this reason.
    Taken(&'static str),
    /// Another one was better.
    Passed,
    /// Every slot is busy.
    Full,
    /// Its node has not enough left of something.
    NoResources,
    /// Its KV cache has not enough room left.
    NoTokens,
    /// Its node is kept free for a call that has waited long, or its room for a larger one.
    Promised,
    /// It is not to be called now: its standing.
    Down(&'static str),
    /// It has failed this call already.
    Tried,
}

/// Chooses an instance for an attempt and takes what the call needs of it, in one step and without waiting.
pub trait Choose: Send + Sync + 'static {
    /// Asks the instances of the attempt's deployment, except those it has tried; shows `witness` each of them.
    fn choose(&self, attempt: &Attempt, ask: &Ask<'_>, witness: &mut dyn FnMut(Seen)) -> Choice;

    /// How much room for tokens the instances of the attempt's deployment have, except those it has tried. What is larger need not wait for its turn
    /// to be told.
    fn rooms(&self, attempt: &Attempt) -> Rooms;

    /// Does now what choosing would have to do for a call that has to wait: choosing is then done under a lock.
    fn prepare(&self, _attempt: &Attempt, _tenant: &TenantId) {}
}

impl Verdict {
    /// The word used in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken(_) => "taken",
            Self::Passed => "passed",
            Self::Full => "full",
            Self::NoResources => "no_resources",
            Self::NoTokens => "no_tokens",
            Self::Promised => "promised",
            Self::Down(_) => "down",
            Self::Tried => "tried",
        }
    }
}
