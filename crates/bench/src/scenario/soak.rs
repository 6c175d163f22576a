//! Soak: memory over minutes of full load.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::bench::Bench;
use crate::figures::{Outcome, Section, Verdict, median, show};
use crate::load::Load;
use crate::proc;
use crate::request::StreamShape;
use crate::target::Kind;

/// Connections with plain requests and connections with streams.
const CALLS: usize = 56;
const STREAMS: usize = 8;

const SHAPE: StreamShape = StreamShape { chunks: 50, interval_ms: 5 };

/// How often memory is read.
const EVERY: Duration = Duration::from_secs(1);

/// Samples before and after a minute's end of which the median is taken: one garbage moment is no growth.
const AROUND: usize = 5;

const RSS: &str = "RSS under load";

/// Bound: growth or shrinkage that still counts as flat.
const FLAT_PERCENT: f64 = 5.0;

/// Runs `kind` under full load for `minutes`.
pub(crate) async fn measure(bench: &Bench, kind: &Kind, minutes: f64) -> Result<Section> {
    let mut section = Section::new(
        "soak",
        format!("Soak: {} under full load for {minutes} minutes", kind.name),
        format!(
            "{CALLS} connections with plain requests and {STREAMS} with streams; RSS each second. Compared are the \
             medians around the end of minute 1 and around the end of the run."
        ),
    );
    let (mut target, _) = kind.start(&bench.site)?;
    let proxy = target.pids();
    let load = Load::start(&target, CALLS, STREAMS, SHAPE);
    let (began, length) = (Instant::now(), Duration::from_secs_f64(minutes * 60.0));
    let mut samples = Vec::new();
    while began.elapsed() < length {
        sleep(EVERY).await;
        target.ensure_alive()?;
        target.trim_log()?;
        samples.push(proc::resident_bytes(&proxy) as f64 / 1_048_576.0);
    }
    let counts = load.finish().await;
    ensure!(!samples.is_empty(), "a soak shorter than one sample");
    let first = 60.min(samples.len() / 2);
    let early = median_around(&samples, first);
    let late = median_around(&samples, samples.len().saturating_sub(AROUND));
    for sample in &samples {
        section.put(kind.name, RSS, "MiB", *sample);
    }
    let growth = (late / early - 1.0) * 100.0;
    section.put(kind.name, "RSS at minute 1", "MiB", early);
    section.put(kind.name, "RSS at the end", "MiB", late);
    section.put(kind.name, "growth", "%", growth);
    section.put(kind.name, "answered", "", counts.done() as f64);
    section.put(kind.name, "failed", "", counts.failed() as f64);
    section.verdicts.push(Verdict {
        demand: format!("{}: RSS flat within ± {FLAT_PERCENT} % from minute 1 to the end", kind.name),
        measured: format!("{} → {} MiB, {} %", show(early), show(late), show(growth)),
        outcome: Outcome::of(growth.abs() <= FLAT_PERCENT),
    });
    section.verdicts.push(Verdict {
        demand: format!("{}: no request fails", kind.name),
        measured: format!("{} of {} {}", counts.failed(), counts.done(), counts.first_failure()),
        outcome: Outcome::of(counts.failed() == 0 && counts.done() > 0),
    });
    Ok(section)
}

fn median_around(samples: &[f64], at: usize) -> f64 {
    let start = at.saturating_sub(AROUND);
    median(samples.get(start..(at + AROUND).min(samples.len())).unwrap_or_default())
}
