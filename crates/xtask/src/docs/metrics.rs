//! The metrics, as a running Sluice shows them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::NOTICE;
use super::binary::{Binary, ask};
use super::markdown::{code, table};

/// Two simulated models: one that answers, one that fails, so that every metric has a sample and its labels show.
const CONFIG: &str = "\
listen: { http: 127.0.0.1:0, admin: 127.0.0.1:0, threads: 1 }
auth: none
nodes:
  - { name: n1, gpu: 1 }
scheduling:
  cohorts: [ { name: all } ]
  quotas: [ { tenant: anonymous, cohort: all, concurrency: 100, tokens_in_flight: 1000000 } ]
models:
  - model_name: good
    provider: sim
    max_concurrency: 4
    kv_tokens: 100000
    sim: { ttft_ms: 0, tokens_per_second: 0 }
    versions: [ { version: v1, instances: [ { node: n1, needs: { gpu: 1 } } ] } ]
  - { model_name: bad, provider: sim, max_concurrency: 4, sim: { ttft_ms: 0, failure_rate: 1 } }
";
/// What shows that both calls have been counted.
const COUNTED: [&str; 2] =
    ["sluice_requests_total{tenant=\"anonymous\",model=\"good\"", "sluice_upstream_errors_total{"];
/// Receipts are counted in rounds, a moment after the call.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One metric.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    help: String,
    labels: Vec<String>,
}

/// Serves, makes one streamed call and one that fails, and returns what `/metrics` says then.
pub(super) fn scrape(binary: &Binary) -> anyhow::Result<String> {
    let serving = binary.serve(CONFIG)?;
    for (model, expected) in [("good", 200..300), ("bad", 500..600)] {
        let body = format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}"#);
        let (status, answer) = ask(&serving.data, "POST", "/v1/chat/completions", &body)?;
        ensure!(expected.contains(&status), "a call to the simulator was answered {status}: {answer}");
    }
    let until = Instant::now() + COUNTED_WITHIN;
    loop {
        let (status, text) = ask(&serving.control, "GET", "/metrics", "")?;
        ensure!(status == 200, "/metrics was answered {status}");
        if COUNTED.iter().all(|sample| text.contains(sample)) {
            return Ok(text);
        }
        if Instant::now() > until {
            bail!("the calls do not show in /metrics:\n{text}");
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The page.
pub(super) fn page(scraped: &str) -> anyhow::Result<String> {
    let metrics = parse(scraped);
    ensure!(!metrics.is_empty(), "/metrics shows no metric");
    let mut out = format!("{NOTICE}\n\n# Metrics\n\n");
    out.push_str(
        "`GET /metrics` on the control plane (`listen.admin`), in Prometheus' text format. A histogram has the samples\n\
         `_bucket` (with `le`), `_sum` and `_count`.\n\n",
    );
    let mut rows: Vec<[String; 4]> = metrics.into_iter().map(|(name, metric)| metric.row(&name)).collect();
    rows.sort();
    out.push_str(&table(["metric", "type", "labels", "what it says"], &rows));
    Ok(out)
}

/// The metrics by name. A sample belongs to the `# TYPE` above it.
fn parse(scraped: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut family = "";
    for line in scraped.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.into()).or_default().help = help.into();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            family = name;
            metrics.entry(name.into()).or_default().kind = kind.into();
        } else if let Some((sample, rest)) = line.split_once('{')
            && sample.starts_with(family)
            && let Some(metric) = metrics.get_mut(family)
        {
            for label in label_names(rest).into_iter().filter(|label| *label != "le") {
                if !metric.labels.iter().any(|known| known == label) {
                    metric.labels.push(label.into());
                }
            }
        }
    }
    metrics
}

/// The names in `a="x",b="y"} 1`; what is quoted may hold anything, escaped quotes included.
fn label_names(mut rest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((name, value)) = rest.split_once("=\"") {
        names.push(name.trim_start_matches(','));
        let mut escaped = false;
        let end = value.char_indices().find(|(_, c)| {
            let quote = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            quote
        });
        rest = end.and_then(|(at, _)| value.get(at + 1..)).unwrap_or_default();
    }
    names
}

impl Metric {
    fn row(&self, name: &str) -> [String; 4] {
        // As it is asked for: a counter's samples end in `_total`, its family's name does not.
        let total = if self.kind == "counter" && !name.ends_with("_total") { "_total" } else { "" };
        let labels: Vec<String> = self.labels.iter().map(|label| code(label)).collect();
        [code(&format!("{name}{total}")), self.kind.clone(), labels.join(", "), self.help.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPED: &str = "\
# HELP wait_seconds Waiting.
# TYPE wait_seconds histogram
wait_seconds_sum{model=\"a}\\\",x=\\\"b\",operation=\"chat\"} 0.0
wait_seconds_bucket{le=\"0.1\",model=\"a\",operation=\"chat\"} 1
# HELP calls Calls.
# TYPE calls counter
calls_total{} 3
# EOF
";

    #[test]
    fn metrics_are_listed_by_name_with_the_labels_of_their_samples() {
        let page = page(SCRAPED).unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `calls_total` | counter |  | Calls. |",
                "| `wait_seconds` | histogram | `model`, `operation` | Waiting. |",
            ]
        );
    }

    #[test]
    fn a_page_without_metrics_is_refused() {
        assert!(page("# EOF\n").is_err());
    }
}
