//! Counters and histograms over receipts, and the live values of every stage, in Prometheus' text format.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::journal::GAP_BOUNDS;
use kernel::sight::{Gauges, Sample};
use kernel::{ModelName, Operation, Outcome, Receipt, TenantId};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Upper bounds of the latency histograms, in seconds.
const SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0];
/// Bound: label combinations of one metric. Names come from the config, so only a very large one could reach it;
/// what comes beyond is not counted, and `sluice_series_dropped_total` says so.
const SERIES_MAX: usize = 20_000;

type Labels = Vec<(&'static str, String)>;

/// All metrics of the process.
pub struct Metrics {
    tables: Arc<Mutex<Tables>>,
    registry: Registry,
}

#[derive(Debug, Default)]
struct Tables {
    requests: HashMap<RequestKey, u64>,
    tokens: HashMap<(TenantId, Option<ModelName>, &'static str), u64>,
    duration: HashMap<ModelKey, Histogram>,
    first_token: HashMap<ModelKey, Histogram>,
    gap: HashMap<ModelKey, Histogram>,
    queue: HashMap<ModelKey, Histogram>,
    upstream_errors: HashMap<FailureKey, u64>,
    reloads: HashMap<&'static str, u64>,
    receipts_dropped: u64,
    /// By log.
    lines_dropped: [(&'static str, u64); 2],
    series_dropped: u64,
    /// The version of the config in force.
    config: Arc<str>,
}

type ModelKey = (Option<ModelName>, Option<Operation>);
/// Model, instance, cause.
type FailureKey = (Option<ModelName>, Arc<str>, Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RequestKey {
    tenant: Option<TenantId>,
    model: Option<ModelName>,
    operation: Option<Operation>,
    status: u16,
    outcome: &'static str,
}

#[derive(Debug, Clone)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics with nothing counted yet.
    pub fn new() -> Self {
        let tables = Arc::new(Mutex::new(Tables::default()));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Counted(Arc::clone(&tables))));
        Self { tables, registry }
    }

    /// Shows the live values of a stage from now on. `stages` is asked anew each time, for stages that change with
    /// the config.
    pub fn watch(&mut self, stages: impl Fn() -> Vec<Arc<dyn Gauges>> + Send + Sync + 'static) {
        self.registry.register_collector(Box::new(Shown(Box::new(stages))));
    }

    /// A config was tried.
    pub fn reloaded(&self, worked: bool, version: &str) {
        let mut tables = self.lock();
        *tables.reloads.entry(if worked { "ok" } else { "failed" }).or_default() += 1;
        tables.reloads.entry(if worked { "failed" } else { "ok" }).or_default();
        if worked {
            tables.config = version.into();
        }
    }

    pub(super) fn lost(&self, receipts: u64, lines: [(&'static str, u64); 2]) {
        let mut tables = self.lock();
        (tables.receipts_dropped, tables.lines_dropped) = (receipts, lines);
    }

    pub(super) fn count(&self, receipt: &Receipt) {
        self.lock().count(receipt);
    }

    pub(super) fn show(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(fmt::Error) => unreachable!("writing to a text cannot fail"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Tables ===

impl Tables {
    fn count(&mut self, receipt: &Receipt) {
        let tenant = receipt.caller.as_ref().map(|caller| caller.tenant.clone());
        let outcome = match receipt.outcome {
            Outcome::Answered => "answered",
            Outcome::Failed(_) => "failed",
            Outcome::Cancelled => "cancelled",
        };
        let key = RequestKey {
            tenant: tenant.clone(),
            model: receipt.model.clone(),
            operation: receipt.operation,
            status: receipt.status,
            outcome,
        };
        bump(&mut self.requests, key, 1, &mut self.series_dropped);
        if receipt.operation.is_none() {
            return;
        }
        let (journal, model) = (&receipt.journal, (receipt.model.clone(), receipt.operation));
        self.observe(|tables| &mut tables.duration, &model, receipt.took.as_secs_f64());
        if let Some(first) = journal.first_byte {
            self.observe(|tables| &mut tables.first_token, &model, first.since(receipt.started).as_secs_f64());
        }
        if journal.attempts > 0 || !journal.queued.is_zero() {
            self.observe(|tables| &mut tables.queue, &model, journal.queued.as_secs_f64());
        }
        if let Some(gaps) = &journal.gaps {
            let histogram = entry(&mut self.gap, &model, gap_bounds(), &mut self.series_dropped);
            histogram.into_iter().for_each(|histogram| histogram.merge(&gaps.counts, gaps.sum as f64 / 1e6));
        }
        for (instance, cause) in &journal.failures {
            let cause = if cause.starts_with("error_event") { "error_event".into() } else { Arc::clone(cause) };
            let key = (receipt.model.clone(), instance.clone().unwrap_or_else(|| "".into()), cause);
            bump(&mut self.upstream_errors, key, 1, &mut self.series_dropped);
        }
        if let (Some(usage), Some(tenant)) = (journal.usage, tenant) {
            for (class, count) in [
                ("input", usage.input),
                ("cached", usage.cached),
                ("output", usage.output),
                ("reasoning", usage.reasoning),
            ] {
                bump(
                    &mut self.tokens,
                    (tenant.clone(), receipt.model.clone(), class),
                    count.0,
                    &mut self.series_dropped,
                );
            }
        }
    }

    fn observe(
        &mut self,
        table: impl Fn(&mut Self) -> &mut HashMap<ModelKey, Histogram>,
        key: &ModelKey,
        seconds: f64,
    ) {
        let mut dropped = 0;
        if let Some(histogram) = entry(table(self), key, &SECONDS, &mut dropped) {
            histogram.observe(seconds);
        }
        self.series_dropped += dropped;
    }
}

fn bump<K: std::hash::Hash + Eq>(table: &mut HashMap<K, u64>, key: K, by: u64, dropped: &mut u64) {
    if table.len() >= SERIES_MAX && !table.contains_key(&key) {
        *dropped += 1;
        return;
    }
    *table.entry(key).or_default() += by;
}

fn entry<'a>(
    table: &'a mut HashMap<ModelKey, Histogram>,
    key: &ModelKey,
    bounds: &'static [f64],
    dropped: &mut u64,
) -> Option<&'a mut Histogram> {
    if table.len() >= SERIES_MAX && !table.contains_key(key) {
        *dropped += 1;
        return None;
    }
    Some(table.entry(key.clone()).or_insert_with(|| Histogram::new(bounds)))
}

fn gap_bounds() -> &'static [f64] {
    static BOUNDS: std::sync::OnceLock<Vec<f64>> = std::sync::OnceLock::new();
    BOUNDS.get_or_init(|| GAP_BOUNDS.iter().map(|micros| *micros as f64 / 1e6).collect())
}

// === impl Histogram ===

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += value;
    }

    fn merge(&mut self, counts: &[u32], sum: f64) {
        self.counts.iter_mut().zip(counts).for_each(|(to, from)| *to += u64::from(*from));
        self.sum += sum;
    }

    /// Pairs of upper bound and count, as the encoder wants them: it adds them up itself.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied()).collect()
    }
}

// === what is shown ===

#[derive(Debug)]
struct Counted(Arc<Mutex<Tables>>);

impl Collector for Counted {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters(
            &mut to,
            "sluice_requests",
            "Requests, by how they ended; status 499 means that the client left first.",
            tables.requests.iter().map(|(key, count)| {
                let mut labels = vec![("tenant", show(key.tenant.as_ref()))];
                labels.extend(model_labels(&(key.model.clone(), key.operation)));
                labels.extend([("status", key.status.to_string()), ("outcome", key.outcome.to_owned())]);
                (labels, *count)
            }),
        )?;
        counters(
            &mut to,
            "sluice_tokens",
            "Tokens, by class; cached is part of input, reasoning of output.",
            tables.tokens.iter().map(|((tenant, model, class), count)| {
                (
                    vec![
                        ("tenant", tenant.to_string()),
                        ("model", show(model.as_ref())),
                        ("class", (*class).to_owned()),
                    ],
                    *count,
                )
            }),
        )?;
        counters(
            &mut to,
            "sluice_upstream_errors",
            "Failed attempts, by cause.",
            tables.upstream_errors.iter().map(|((model, instance, cause), count)| {
                (
                    vec![
                        ("model", show(model.as_ref())),
                        ("instance", instance.to_string()),
                        ("cause", cause.to_string()),
                    ],
                    *count,
                )
            }),
        )?;
        counters(
            &mut to,
            "sluice_config_reloads",
            "Configs tried, by result.",
            tables.reloads.iter().map(|(result, count)| (vec![("result", (*result).to_owned())], *count)),
        )?;
        counters(
            &mut to,
            "sluice_receipts_dropped",
            "Receipts that found their shelf full.",
            [(Vec::new(), tables.receipts_dropped)].into_iter(),
        )?;
        counters(
            &mut to,
            "sluice_log_lines_dropped",
            "Log lines nobody took in time, by log.",
            tables.lines_dropped.iter().map(|(log, count)| (vec![("log", (*log).to_owned())], *count)),
        )?;
        counters(
            &mut to,
            "sluice_series_dropped",
            "Observations beyond the bound on label combinations.",
            [(Vec::new(), tables.series_dropped)].into_iter(),
        )?;
        histograms(
            &mut to,
            "sluice_request_duration_seconds",
            "From the first byte in to the last byte out.",
            &tables.duration,
        )?;
        histograms(
            &mut to,
            "sluice_time_to_first_token_seconds",
            "From the first byte in to the first piece of the answer.",
            &tables.first_token,
        )?;
        histograms(&mut to, "sluice_inter_token_gap_seconds", "Between two pieces of a streamed answer.", &tables.gap)?;
        histograms(&mut to, "sluice_queue_wait_seconds", "Waiting for a free slot.", &tables.queue)?;
        let labels: Labels =
            vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("config", tables.config.to_string())];
        let mut family = to.encode_descriptor(
            "sluice_build_info",
            "The version running and the config in force.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1u64).encode(family.encode_family(&labels)?)
    }
}

struct Shown(Box<dyn Fn() -> Vec<Arc<dyn Gauges>> + Send + Sync>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl Collector for Shown {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        // Samples of one name must stand together, whatever order the stages show them in.
        let mut families: Vec<Vec<Sample>> = Vec::new();
        for stage in (self.0)() {
            stage.show(&mut |sample| match families
                .iter_mut()
                .find(|family| family.first().is_some_and(|first| first.name == sample.name))
            {
                Some(family) => family.push(sample),
                None => families.push(vec![sample]),
            });
        }
        for family in families {
            let Some(first) = family.first() else { continue };
            let kind = if first.counter { MetricType::Counter } else { MetricType::Gauge };
            let mut descriptor = to.encode_descriptor(first.name, first.help, None, kind)?;
            for sample in &family {
                let metric = descriptor.encode_family(&sample.labels)?;
                if sample.counter {
                    ConstCounter::new(sample.value).encode(metric)?
                } else {
                    ConstGauge::new(sample.value).encode(metric)?
                }
            }
        }
        Ok(())
    }
}

fn counters(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut descriptor = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in rows {
        ConstCounter::new(count).encode(descriptor.encode_family(&labels)?)?;
    }
    Ok(())
}

fn histograms(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    table: &HashMap<ModelKey, Histogram>,
) -> fmt::Result {
    let mut descriptor = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (key, histogram) in table {
        let labels = model_labels(key);
        let mut metric = descriptor.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(
            histogram.sum,
            histogram.counts.iter().sum(),
            &histogram.buckets(),
            None,
        )?;
    }
    Ok(())
}

fn model_labels((model, operation): &ModelKey) -> Labels {
    vec![("model", show(model.as_ref())), ("operation", operation.map_or("", Operation::as_str).to_owned())]
}

fn show<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}
