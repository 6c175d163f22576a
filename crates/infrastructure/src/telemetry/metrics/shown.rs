//! How what was counted, and what is, becomes samples.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::sight::{Gauges, Sample};
use kernel::{ModelName, Operation};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Counts;
use super::histogram::Histogram;
use super::tally::{ByModel, Row, Tally};

type Labels = Vec<(&'static str, String)>;

/// Shows what has been counted.
#[derive(Debug)]
pub(super) struct Counted(pub(super) Arc<Mutex<Counts>>);

/// Shows the live values of whatever stages there are at the moment.
pub(super) struct Live(pub(super) Box<dyn Fn() -> Vec<Arc<dyn Gauges>> + Send + Sync>);

impl Collector for Counted {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        encode_tally(&mut to, &counts.tally)?;
        let reloads = [("ok", counts.reloads.0), ("failed", counts.reloads.1)];
        counters(
            &mut to,
            "sluice_config_reloads",
            "Configs tried, by result.",
            reloads.map(|(result, count)| (vec![("result", result.to_owned())], count)),
        )?;
        counters(
            &mut to,
            "sluice_receipts_dropped",
            "Receipts that found their shelf full.",
            [(Vec::new(), counts.receipts_dropped)],
        )?;
        counters(
            &mut to,
            "sluice_log_lines_dropped",
            "Log lines nobody took in time, by log.",
            counts.lines_dropped.map(|(log, count)| (vec![("log", log.to_owned())], count)),
        )?;
        let labels: Labels =
            vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("config", counts.config.to_string())];
        let help = "The version running and the config in force.";
        let mut family = to.encode_descriptor("sluice_build_info", help, None, MetricType::Gauge)?;
        ConstGauge::new(1u64).encode(family.encode_family(&labels)?)
    }
}

fn encode_tally(to: &mut DescriptorEncoder<'_>, tally: &Tally) -> fmt::Result {
    counters(
        to,
        "sluice_requests",
        "Requests, by how they ended; status 499 means that the client left first.",
        tally.requests().into_iter().map(|(alike, count)| {
            let mut labels = vec![("tenant", show(alike.tenant.as_ref()))];
            labels.extend(model_labels(alike.model.as_ref(), alike.operation));
            labels.extend([("status", alike.status.to_string()), ("outcome", alike.outcome.to_owned())]);
            (labels, count)
        }),
    )?;
    counters(
        to,
        "sluice_tokens",
        "Tokens, by class; cached is part of input, reasoning of output.",
        tally.tokens().into_iter().flat_map(|((tenant, model), usage)| {
            let classes = [
                ("input", usage.input),
                ("cached", usage.cached),
                ("output", usage.output),
                ("reasoning", usage.reasoning),
            ];
            classes.map(|(class, count)| {
                (vec![("tenant", tenant.to_string()), ("model", show(model)), ("class", class.to_owned())], count.0)
            })
        }),
    )?;
    counters(
        to,
        "sluice_upstream_errors",
        "Failed attempts, by cause.",
        tally.failures().into_iter().map(|(failing, count)| {
            let labels = vec![
                ("model", show(failing.model.as_ref())),
                ("instance", failing.instance.to_string()),
                ("cause", failing.cause.to_string()),
            ];
            (labels, count)
        }),
    )?;
    counters(
        to,
        "sluice_series_dropped",
        "Observations beyond the bound on label combinations.",
        [(Vec::new(), tally.dropped)],
    )?;
    let rows = tally.by_model();
    histograms(to, "sluice_request_duration_seconds", "From the first byte in to the last byte out.", &rows, |row| {
        &row.duration
    })?;
    histograms(
        to,
        "sluice_time_to_first_token_seconds",
        "From the first byte in to the first piece of the answer.",
        &rows,
        |row| &row.first_token,
    )?;
    histograms(to, "sluice_inter_token_gap_seconds", "Between two pieces of a streamed answer.", &rows, |row| {
        &row.gap
    })?;
    let help = "From asking for a slot to having one, over all attempts of a call.";
    let mut descriptor = to.encode_descriptor("sluice_scheduling_delay_seconds", help, None, MetricType::Histogram)?;
    for ((model, class), delay) in tally.delays().into_iter().filter(|(_, delay)| delay.count() > 0) {
        let labels: Labels = vec![("model", show(model)), ("class", class.as_str().to_owned())];
        descriptor.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            delay.sum(),
            delay.count(),
            &delay.buckets(),
            None,
        )?;
    }
    Ok(())
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Collector for Live {
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
            // The text format adds to a counter's name what it is called by.
            let name = if first.counter { first.name.strip_suffix("_total").unwrap_or(first.name) } else { first.name };
            let mut descriptor = to.encode_descriptor(name, first.help, None, kind)?;
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
    rows: impl IntoIterator<Item = (Labels, u64)>,
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
    rows: &ByModel,
    pick: impl Fn(&Row) -> &Histogram,
) -> fmt::Result {
    let mut descriptor = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for ((model, operation), row) in rows {
        let histogram = pick(row);
        if histogram.count() == 0 {
            continue;
        }
        let labels = model_labels(model.as_ref(), *operation);
        let mut metric = descriptor.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(histogram.sum(), histogram.count(), &histogram.buckets(), None)?;
    }
    Ok(())
}

fn model_labels(model: Option<&ModelName>, operation: Option<Operation>) -> Labels {
    vec![("model", show(model)), ("operation", operation.map_or("", Operation::as_str).to_owned())]
}

fn show<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}
