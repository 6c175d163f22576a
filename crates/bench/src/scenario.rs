//! The scenarios, each one file and one row.

mod closed;
mod open;
mod slow;
pub(crate) mod soak;
mod start;
mod streams;
pub(crate) mod syscalls;

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::figures::Section;

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Vec<Section>>> + 'a>>;

/// One scenario of `run`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    measure: for<'a> fn(&'a Bench) -> Measuring<'a>,
}

/// Every scenario of `run`, in the order they are run: what needs the quietest machine comes first.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "start", measure: |bench| Box::pin(start::measure(bench)) },
    Scenario { name: "closed", measure: |bench| Box::pin(closed::measure(bench)) },
    Scenario { name: "open", measure: |bench| Box::pin(open::measure(bench)) },
    Scenario { name: "streams", measure: |bench| Box::pin(streams::measure(bench)) },
    Scenario { name: "slow", measure: |bench| Box::pin(slow::measure(bench)) },
];

// === impl Scenario ===

impl Scenario {
    /// The scenarios of these names, or all.
    pub(crate) fn named(names: &[String]) -> Result<Vec<Self>> {
        if names.is_empty() {
            return Ok(SCENARIOS.to_vec());
        }
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        names
            .iter()
            .map(|name| {
                let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
                found.copied().with_context(|| format!("no scenario {name:?}; there are {}", known.join(", ")))
            })
            .collect()
    }

    /// Runs it.
    pub(crate) async fn measure(&self, bench: &Bench) -> Result<Vec<Section>> {
        (self.measure)(bench).await.with_context(|| format!("scenario {}", self.name))
    }
}
