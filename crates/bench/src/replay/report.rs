//! What a replay found: tables to read, JSON for machines, and what became of the demands.
//!
//! Everything is written to a `String`, which cannot fail: that is what is behind each `.ok()`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::trace::Trace;
use super::{Memory, Row, plot, policy, sharing};
use crate::figures::{Outcome, Verdict};

/// Demanded: p99 of the time to the first token, by the best rival's.
const P99_BY_BEST: f64 = 0.85;
/// Demanded: hits on the conversation trace, by those of a cache without an end.
const HIT_BY_CEILING: f64 = 0.90;
/// Demanded: the most loaded worker by the mean.
const MAX_BY_MEAN: f64 = 1.25;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    sharing: Vec<sharing::Shared>,
    verdicts: Vec<Verdict>,
    #[serde(skip)]
    about: Vec<(&'static str, &'static str)>,
}

// === impl Report ===

impl Report {
    /// Takes the rows of one trace, memory and load, and shows them at once.
    pub(super) fn add(&mut self, trace: &Trace, rows: Vec<Row>) {
        println!("{}", table(&rows));
        if self.about.iter().all(|(name, _)| *name != trace.name) {
            self.about.push((trace.name, trace.about));
        }
        self.verdicts.extend(judge(&rows));
        self.rows.extend(rows);
    }

    /// Takes what the lines made of overload, and shows it at once.
    pub(super) fn share(&mut self, rows: Vec<sharing::Shared>) {
        println!("{}", sharing::table(&rows));
        self.verdicts.extend(sharing::judge(&rows));
        self.sharing = rows;
    }

    pub(crate) fn all_met(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Met)
    }

    /// The demands and what became of them.
    pub(crate) fn verdicts(&self) -> String {
        let mut text = String::new();
        for verdict in &self.verdicts {
            writeln!(text, "{:9} {}: {}", verdict.outcome.word().to_uppercase(), verdict.demand, verdict.measured).ok();
        }
        text
    }

    /// Writes `replay.json` and `replay.txt` into a directory.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("replay.json"), serde_json::to_vec_pretty(self)?)?;
        let mut text = String::new();
        for rows in self.rows.chunk_by(|a, b| (a.trace, a.memory, a.load) == (b.trace, b.memory, b.load)) {
            writeln!(text, "{}", table(rows)).ok();
        }
        if !self.sharing.is_empty() {
            writeln!(text, "{}", sharing::table(&self.sharing)).ok();
        }
        fs::write(directory.join("replay.txt"), text + &self.verdicts())?;
        Ok(())
    }

    /// Draws a picture of each trace into a directory, from the workers with host memory.
    pub(crate) fn draw(&self, directory: &Path) -> Result<()> {
        for (name, about) in &self.about {
            let rows: Vec<&Row> =
                self.rows.iter().filter(|row| row.trace == *name && row.memory == Memory::Host).collect();
            let path = directory.join(format!("replay-{name}.svg"));
            fs::write(&path, plot::draw(name, about, &rows))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    if let Some(row) = rows.first() {
        let memory = if row.memory == Memory::Gpu { "GPU memory alone" } else { "GPU and host memory" };
        writeln!(text, "== {} at {:.2} of capacity, {memory}", row.trace, row.load).ok();
        let (ceiling, floor) = (100.0 * row.ceiling, row.floor_p99_s);
        writeln!(text, "   no routing can beat {ceiling:.1} % of blocks reused and a p99 of {floor:.2} s").ok();
        writeln!(text, "   one cache of the size of all workers' together would have {:.1} %", 100.0 * row.pooled).ok();
    }
    writeln!(
        text,
        "  {:20} {:>9} {:>9} {:>7} {:>10} {:>15} {:>13} {:>6}",
        "", "TTFT p50", "TTFT p99", "hit", "of ceiling", "in flight", "work", "used"
    )
    .ok();
    writeln!(
        text,
        "  {:20} {:>9} {:>9} {:>7} {:>10} {:>15} {:>13}",
        "", "s", "s", "%", "%", "max / mean", "max / mean"
    )
    .ok();
    for row in rows {
        writeln!(
            text,
            "  {:20} {:>9.3} {:>9.2} {:>7.1} {:>10.1} {:>15.2} {:>13.2} {:>5.0}%",
            row.policy,
            row.ttft_p50_s,
            row.ttft_p99_s,
            100.0 * row.hit,
            100.0 * row.hit / row.ceiling,
            row.in_flight_max_by_mean,
            row.work_max_by_mean,
            100.0 * row.utilisation
        )
        .ok();
    }
    text
}

/// What is demanded of Sluice's balance on one trace at one load.
fn judge(rows: &[Row]) -> Vec<Verdict> {
    let Some(ours) = rows.iter().find(|row| row.policy == policy::OURS) else { return Vec::new() };
    let rivals = rows.iter().filter(|row| policy::RIVALS.contains(&row.policy));
    let mut verdicts = Vec::new();
    let place =
        format!("{} at {:.2}, {}", ours.trace, ours.load, if ours.memory == Memory::Gpu { "GPU" } else { "host" });
    let mut demand = |what: String, measured: String, met: bool| {
        let outcome = if met { Outcome::Met } else { Outcome::Missed };
        verdicts.push(Verdict { demand: format!("{place}: {what}"), measured, outcome });
    };
    if let Some(best) = rivals.min_by(|a, b| a.ttft_p99_s.total_cmp(&b.ttft_p99_s)) {
        let by = ours.ttft_p99_s / best.ttft_p99_s;
        let (p99, floor) = (ours.ttft_p99_s, ours.floor_p99_s);
        let measured = format!("{p99:.2} s, {by:.2} times that of {} (no routing: {floor:.2} s)", best.policy);
        demand(format!("p99 TTFT ≤ {P99_BY_BEST} of the best rival's"), measured, by <= P99_BY_BEST);
    }
    if ours.trace == "conversation" {
        let by = ours.hit / ours.ceiling;
        let measured = format!(
            "{:.1} % of blocks, {by:.2} of the ceiling (one pooled cache: {:.1} %)",
            100.0 * ours.hit,
            100.0 * ours.pooled
        );
        demand(format!("hits ≥ {HIT_BY_CEILING} of the ceiling"), measured, by >= HIT_BY_CEILING);
    }
    let load = ours.in_flight_max_by_mean.max(ours.work_max_by_mean);
    let measured = format!("{:.2} in flight, {:.2} work", ours.in_flight_max_by_mean, ours.work_max_by_mean);
    demand(format!("max / mean load ≤ {MAX_BY_MEAN}"), measured, load <= MAX_BY_MEAN);
    verdicts
}
