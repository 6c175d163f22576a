//! Counters and histograms over receipts, and the live values of every stage, in Prometheus' text format.

mod histogram;
mod shown;
mod tally;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::Receipt;
use kernel::sight::Gauges;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use self::shown::{Counted, Live};
use self::tally::Tally;

/// All metrics of the process.
pub struct Metrics {
    counts: Arc<Mutex<Counts>>,
    registry: Registry,
}

#[derive(Debug, Default)]
struct Counts {
    tally: Tally,
    /// Configs that worked, and that did not.
    reloads: (u64, u64),
    receipts_dropped: u64,
    /// By log.
    lines_dropped: [(&'static str, u64); 2],
    /// The version of the config in force.
    config: Arc<str>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics with nothing counted yet.
    pub fn new() -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Counted(Arc::clone(&counts))));
        Self { counts, registry }
    }

    /// Shows the live values of a stage from now on. `stages` is asked anew each time, for stages that change with
    /// the config.
    pub fn watch(&mut self, stages: impl Fn() -> Vec<Arc<dyn Gauges>> + Send + Sync + 'static) {
        self.registry.register_collector(Box::new(Live(Box::new(stages))));
    }

    /// A config was put in place: its version.
    pub fn reloaded(&self, version: &str) {
        let mut counts = self.lock();
        counts.reloads.0 += 1;
        counts.config = version.into();
    }

    /// A config could not be used.
    pub fn reload_failed(&self) {
        self.lock().reloads.1 += 1;
    }

    pub(super) fn lost(&self, receipts: u64, lines: [(&'static str, u64); 2]) {
        let mut counts = self.lock();
        (counts.receipts_dropped, counts.lines_dropped) = (receipts, lines);
    }

    pub(super) fn count(&self, receipts: &[Receipt]) {
        let mut counts = self.lock();
        receipts.iter().for_each(|receipt| counts.tally.count(receipt));
    }

    pub(super) fn show(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(fmt::Error) => unreachable!("writing to a text cannot fail"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
