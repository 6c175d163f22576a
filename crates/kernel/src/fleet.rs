//! What the upper stages may know of the machines behind: which models there are, and who has a free slot.
//!
//! `models` publishes a [`Roster`] and implements [`Choose`]; orchestration and scheduling see no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Attempt, InstanceId, ModelName, Permit, Version};

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
    /// `model@version`, as told in `x-sluice-model`.
    pub label: Arc<str>,
}

/// What came of asking for a free slot.
#[derive(Debug)]
pub enum Choice {
    /// A slot was free and is now taken.
    Taken(InstanceId, Permit),
    /// Somebody could do it, but every slot is busy: wait.
    Busy,
    /// Nobody left to ask; perhaps after so long.
    Down(Option<Duration>),
}

/// Chooses an instance for an attempt and takes one of its slots, in one step and without waiting.
pub trait Choose: Send + Sync + 'static {
    /// Asks the instances of the attempt's deployment, except those it has tried.
    fn choose(&self, attempt: &Attempt) -> Choice;
}
