//! `sluice-bench replay`: published traces against simulated model servers, under ways of routing.
//!
//! Every policy gets the same calls at the same times and the same workers. Sluice's policies are the rows that ship;
//! the others are written after their published descriptions. No time is measured: the result is the same anywhere.

mod cache;
mod hardware;
mod line;
mod plot;
mod policy;
mod report;
mod sharing;
mod simulation;
mod trace;
mod worker;

use anyhow::{Context, Result};
use serde::Serialize;

use self::hardware::Hardware;
use self::line::Fifo;
use self::simulation::{Played, Setup};
use self::trace::Trace;

pub(crate) use self::report::Report;
pub(crate) use self::trace::condense;

/// Model servers behind the gateway.
const WORKERS: usize = 8;
/// Calls in flight to one of them at most: as many as it takes in a batch.
const IN_FLIGHT: u32 = hardware::SEQUENCES as u32;
/// Shares of what the fleet could do if it reused nothing.
const LOADS: [f64; 3] = [0.6, 0.75, 0.9];

/// What a worker can keep for reuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Memory {
    /// What is left of GPU memory.
    #[serde(rename = "GPU memory")]
    Gpu,
    /// That and the host's.
    #[serde(rename = "GPU and host memory")]
    Host,
}

/// One policy on one trace at one load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) trace: &'static str,
    pub(crate) memory: Memory,
    /// Share of what the fleet could do if it reused nothing.
    pub(crate) load: f64,
    pub(crate) policy: &'static str,
    pub(crate) ttft_p50_s: f64,
    pub(crate) ttft_p99_s: f64,
    pub(crate) ttft_mean_s: f64,
    /// What no routing can beat: the p99 if every call were alone and found what one cache without an end would have.
    pub(crate) floor_p99_s: f64,
    /// Share of the prompts' blocks that was reused.
    pub(crate) hit: f64,
    /// The same of their tokens.
    pub(crate) hit_tokens: f64,
    /// What one cache without an end would have reused, of the blocks.
    pub(crate) ceiling: f64,
    /// What one cache of the size of all workers' together would have.
    pub(crate) pooled: f64,
    /// Calls in flight, averaged over time: the most loaded worker's by the mean of all.
    pub(crate) in_flight_max_by_mean: f64,
    /// Seconds of work, likewise.
    pub(crate) work_max_by_mean: f64,
    /// Calls served, likewise.
    pub(crate) calls_max_by_mean: f64,
    /// Work by time: how much of the fleet was used.
    pub(crate) utilisation: f64,
}

/// What the policies are held against.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    ceiling: f64,
    pooled: f64,
    floor_p99_s: f64,
}

/// What to play.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// Names of traces; empty for all.
    pub(crate) traces: Vec<String>,
    /// Loads; empty for those of the report.
    pub(crate) loads: Vec<f64>,
}

/// Plays everything and shows each table as it is there.
pub(crate) fn run(choice: &Choice) -> Result<Report> {
    let mut kinds = Vec::new();
    for name in &choice.traces {
        kinds.push(
            kernel::kind::find(trace::KINDS, name).with_context(|| {
                format!("no trace is called {name}: {}", kernel::kind::names(trace::KINDS).join(", "))
            })?,
        );
    }
    if kinds.is_empty() {
        kinds.extend(trace::KINDS);
    }
    let loads = if choice.loads.is_empty() { LOADS.to_vec() } else { choice.loads.clone() };
    let mut report = Report::default();
    for kind in &kinds {
        let trace = Trace::read(kind)?;
        let chains: Vec<Vec<u64>> = trace.calls.iter().map(trace::Call::chain).collect();
        let (ceiling, hits) = (trace.ceiling(), trace.hits());
        let work: f64 = trace.calls.iter().map(|call| Hardware::work(call.input, call.output)).sum();
        for (memory, hardware) in [(Memory::Host, Hardware::with_host()), (Memory::Gpu, Hardware::gpu_only())] {
            let bounds =
                Bounds { ceiling, pooled: pooled(&trace, hardware), floor_p99_s: floor(&trace, &hits, hardware) };
            for load in &loads {
                let speed = load * WORKERS as f64 * trace.seconds() / work;
                let setup =
                    Setup { trace: &trace, chains: &chains, hardware, workers: WORKERS, in_flight: IN_FLIGHT, speed };
                let rows = policy::KINDS.iter().map(|kind| {
                    let played = simulation::play(&setup, &mut *(kind.build)(WORKERS), &mut Fifo::default());
                    Row::new(&trace, memory, *load, kind.name, bounds, &played)
                });
                report.add(&trace, rows.collect());
            }
        }
    }
    // Only where there are tenants.
    if let Some(kind) = kinds.iter().find(|kind| kind.name == "tenants") {
        report.share(sharing::play(&Trace::read(kind)?));
    }
    Ok(report)
}

// === impl Row ===

impl Row {
    fn new(trace: &Trace, memory: Memory, load: f64, policy: &'static str, bounds: Bounds, played: &Played) -> Self {
        let times = &played.first_tokens;
        let of = |part: fn(&worker::Tally) -> f64| played.workers.iter().map(part).collect::<Vec<f64>>();
        let sum = |part: fn(&worker::Tally) -> f64| of(part).iter().sum::<f64>();
        Self {
            trace: trace.name,
            memory,
            load,
            policy,
            ttft_p50_s: quantile(times.clone(), 0.5),
            ttft_p99_s: quantile(times.clone(), 0.99),
            ttft_mean_s: times.iter().sum::<f64>() / times.len() as f64,
            floor_p99_s: bounds.floor_p99_s,
            hit: sum(|worker| worker.blocks_reused as f64) / sum(|worker| worker.blocks as f64),
            hit_tokens: sum(|worker| worker.input_reused as f64) / sum(|worker| worker.input as f64),
            ceiling: bounds.ceiling,
            pooled: bounds.pooled,
            in_flight_max_by_mean: max_by_mean(&played.in_flight),
            work_max_by_mean: max_by_mean(&of(|worker| worker.work)),
            calls_max_by_mean: max_by_mean(&of(|worker| worker.calls as f64)),
            utilisation: sum(|worker| worker.work) / (played.workers.len() as f64 * played.seconds),
        }
    }
}

/// The p99 of the time to the first token if every call were alone on a worker that has these many of its blocks.
fn floor(trace: &Trace, hits: &[usize], hardware: Hardware) -> f64 {
    let alone = |(call, known): (&trace::Call, &usize)| {
        let mut worker = worker::Worker::new(hardware);
        worker.alone(call, *known) as f64 / 1e6
    };
    quantile(trace.calls.iter().zip(hits).map(alone).collect(), 0.99)
}

/// The share of blocks that one cache of the size of all workers' together would have had.
fn pooled(trace: &Trace, hardware: Hardware) -> f64 {
    let (mut cache, mut hits, mut all) = (cache::Cache::default(), 0, 0);
    for call in &trace.calls {
        hits += cache.known(call);
        all += call.blocks.len();
        cache.enter(call);
        cache.shrink(WORKERS * (hardware.gpu_blocks + hardware.host_blocks));
    }
    hits as f64 / all as f64
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn max_by_mean(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().copied().fold(f64::NAN, f64::max) / mean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace of short talks: each call has the blocks of the one before it and two more.
    fn talks(count: u32, turns: u32) -> Trace {
        let call = |turn: u32, talk: u32| trace::Call {
            at: u64::from(turn * count + talk) * 200_000,
            input: u64::from(8 + 2 * turn) * trace::BLOCK,
            output: 50,
            tenant: 0,
            blocks: (0..8 + 2 * turn).map(|block| talk * 1000 + block).collect(),
        };
        let calls = (0..turns).flat_map(|turn| (0..count).map(move |talk| call(turn, talk))).collect();
        Trace { name: "talks", about: "", calls }
    }

    fn play(trace: &Trace, policy: &str) -> Played {
        let chains: Vec<Vec<u64>> = trace.calls.iter().map(trace::Call::chain).collect();
        let kind = kernel::kind::find(policy::KINDS, policy).unwrap();
        let setup =
            Setup { trace, chains: &chains, hardware: Hardware::gpu_only(), workers: 4, in_flight: 8, speed: 1.0 };
        simulation::play(&setup, &mut *(kind.build)(4), &mut Fifo::default())
    }

    #[test]
    fn every_call_is_answered_once_under_every_policy_and_twice_the_same() {
        let trace = talks(20, 5);
        for kind in policy::KINDS {
            let (one, two) = (play(&trace, kind.name), play(&trace, kind.name));
            assert!(one.first_tokens.iter().all(|seconds| *seconds > 0.0), "{}", kind.name);
            assert_eq!(one.workers.iter().map(|worker| worker.calls).sum::<u64>(), 100, "{}", kind.name);
            assert_eq!(one.first_tokens, two.first_tokens, "{}", kind.name);
        }
    }

    #[test]
    fn no_policy_beats_the_bounds_and_ours_reuses_nearly_all() {
        let trace = talks(21, 6);
        let least = floor(&trace, &trace.hits(), Hardware::gpu_only());
        for kind in policy::KINDS {
            let bounds = Bounds { ceiling: trace.ceiling(), pooled: 1.0, floor_p99_s: least };
            let row = Row::new(&trace, Memory::Gpu, 0.5, kind.name, bounds, &play(&trace, kind.name));
            assert!(row.hit <= trace.ceiling() + 1e-9 && row.ttft_p99_s >= least - 1e-6, "{row:?}");
            if kind.name == policy::OURS {
                assert!(row.hit > 0.95 * trace.ceiling(), "{row:?}");
            }
        }
    }
}
