//! What has been counted from receipts.
//!
//! Requests that are alike share one row, found once per receipt; what the metrics show in other arrangements (latency
//! by model, tokens by tenant) is added up from the rows when somebody looks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use kernel::{ModelName, Operation, Outcome, Priority, Receipt, TenantId, Tokens, Usage};

use super::histogram::Histogram;

/// Bound: rows of one table. Names come from the config, so only a very large one could reach it; what comes beyond
/// is not counted, and `sluice_series_dropped_total` says so.
const ROWS_MAX: usize = 20_000;

/// A table by keys that no client can choose: a hash against collisions on purpose would cost more than the counting.
type Table<K, V> = HashMap<K, V, FixedState>;

/// Which requests are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Alike {
    pub(super) tenant: Option<TenantId>,
    pub(super) model: Option<ModelName>,
    pub(super) operation: Option<Operation>,
    pub(super) class: Option<Priority>,
    pub(super) status: u16,
    pub(super) outcome: &'static str,
}

/// What requests that are alike add up to.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) requests: u64,
    pub(super) tokens: Usage,
    pub(super) duration: Histogram,
    pub(super) first_token: Histogram,
    pub(super) delay: Histogram,
    pub(super) gap: Histogram,
}

/// Failed attempts that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Failing {
    pub(super) model: Option<ModelName>,
    pub(super) instance: Arc<str>,
    pub(super) cause: Arc<str>,
}

/// Everything counted so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: Table<Alike, Box<Row>>,
    failures: Table<Failing, u64>,
    /// Observations beyond [`ROWS_MAX`].
    pub(super) dropped: u64,
}

/// Latencies by model and kind of work.
pub(super) type ByModel = BTreeMap<(Option<ModelName>, Option<Operation>), Row>;

impl Tally {
    pub(super) fn count(&mut self, receipt: &Receipt) {
        let alike = Alike {
            tenant: receipt.caller.as_ref().map(|caller| caller.tenant.clone()),
            model: receipt.model.clone(),
            operation: receipt.operation,
            class: receipt.priority,
            status: receipt.status,
            outcome: word(&receipt.outcome),
        };
        match room(&mut self.rows, alike, || Box::new(Row::new())) {
            Some(row) => row.count(receipt),
            None => self.dropped += 1,
        }
        for (instance, cause) in &receipt.journal.failures {
            let instance = instance.clone().unwrap_or_else(|| "".into());
            let failing = Failing { model: receipt.model.clone(), instance, cause: Arc::clone(cause) };
            match room(&mut self.failures, failing, || 0) {
                Some(count) => *count += 1,
                None => self.dropped += 1,
            }
        }
    }

    /// Requests of every class together, by all else that tells them apart, in order.
    pub(super) fn requests(&self) -> BTreeMap<Alike, u64> {
        let mut sums = BTreeMap::new();
        for (alike, row) in &self.rows {
            *sums.entry(Alike { class: None, ..alike.clone() }).or_default() += row.requests;
        }
        sums
    }

    /// The time calls waited for their turn, by model and class.
    pub(super) fn delays(&self) -> BTreeMap<(Option<&ModelName>, Priority), Histogram> {
        let mut sums = BTreeMap::<_, Histogram>::new();
        for (alike, row) in &self.rows {
            let Some(class) = alike.class else { continue };
            sums.entry((alike.model.as_ref(), class)).or_insert_with(Histogram::of_delays).merge(&row.delay);
        }
        sums
    }

    /// Tokens by tenant and model.
    pub(super) fn tokens(&self) -> BTreeMap<(&TenantId, Option<&ModelName>), Usage> {
        let mut sums = BTreeMap::<_, Usage>::new();
        for (alike, row) in &self.rows {
            if let Some(tenant) = alike.tenant.as_ref().filter(|_| alike.operation.is_some()) {
                add(sums.entry((tenant, alike.model.as_ref())).or_default(), &row.tokens);
            }
        }
        sums
    }

    /// Everything that is shown by model and kind of work.
    pub(super) fn by_model(&self) -> ByModel {
        let mut sums = ByModel::new();
        for (alike, row) in self.rows.iter().filter(|(alike, _)| alike.operation.is_some()) {
            sums.entry((alike.model.clone(), alike.operation)).or_insert_with(Row::new).merge(row);
        }
        sums
    }

    /// Failed attempts, in order.
    pub(super) fn failures(&self) -> BTreeMap<&Failing, u64> {
        self.failures.iter().map(|(failing, count)| (failing, *count)).collect()
    }
}

impl Row {
    fn new() -> Self {
        let latencies = Histogram::of_latencies;
        Self {
            requests: 0,
            tokens: Usage::default(),
            duration: latencies(),
            first_token: latencies(),
            delay: Histogram::of_delays(),
            gap: Histogram::of_gaps(),
        }
    }

    fn count(&mut self, receipt: &Receipt) {
        self.requests += 1;
        if receipt.operation.is_none() {
            return;
        }
        let journal = &receipt.journal;
        self.duration.observe(receipt.took);
        if let Some(first) = journal.first_byte {
            self.first_token.observe(first.since(receipt.started));
        }
        if journal.attempts > 0 || !journal.queued.is_zero() {
            self.delay.observe(journal.queued);
        }
        if let Some(gaps) = &journal.gaps {
            self.gap.add_gaps(gaps);
        }
        if let Some(usage) = &journal.usage {
            add(&mut self.tokens, usage);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        add(&mut self.tokens, &other.tokens);
        self.duration.merge(&other.duration);
        self.first_token.merge(&other.first_token);
        self.delay.merge(&other.delay);
        self.gap.merge(&other.gap);
    }
}

fn add(to: &mut Usage, more: &Usage) {
    let plus = |to: &mut Tokens, more: Tokens| to.0 = to.0.saturating_add(more.0);
    plus(&mut to.input, more.input);
    plus(&mut to.cached, more.cached);
    plus(&mut to.output, more.output);
    plus(&mut to.reasoning, more.reasoning);
}

/// The row of a key, made if there is room for another.
fn room<K: std::hash::Hash + Eq, V>(table: &mut Table<K, V>, key: K, new: impl FnOnce() -> V) -> Option<&mut V> {
    if table.len() >= ROWS_MAX && !table.contains_key(&key) {
        return None;
    }
    Some(table.entry(key).or_insert_with(new))
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
    }
}
