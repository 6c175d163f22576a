//! More calls than the fleet can serve: how the line shares what there is among tenants.
//!
//! Everything is written to a `String`, which cannot fail: that is what is behind each `.ok()`.

use std::fmt::Write as _;

use serde::Serialize;

use super::hardware::Hardware;
use super::line::{Fair, Fifo, Line, Watched, service};
use super::simulation::{self, Setup};
use super::trace::{Call, Trace};
use super::{WORKERS, policy, quantile};
use crate::figures::{Outcome, Verdict};

/// Arrivals, by what the fleet can do: more than enough to keep a line.
const LOAD: f64 = 2.0;
/// Calls in flight to a worker: few, so that it is the gateway's line that decides and not the worker's.
const IN_FLIGHT: u32 = 16;

/// What a line made of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shared {
    pub(crate) line: &'static str,
    /// Seconds to the first token, 99th percentile, over the calls of the tenants that ask for less than a fair share, and
    /// of those that ask for more.
    pub(crate) modest_p99_s: f64,
    pub(crate) greedy_p99_s: f64,
    /// How far two tenants drifted apart who waited all the time, in tokens of service, and what is the bound.
    pub(crate) gap: i64,
    pub(crate) bound: i64,
}

/// Plays a trace of tenants under overload, first come first served and fairly.
pub(crate) fn play(trace: &Trace) -> Vec<Shared> {
    let chains: Vec<Vec<u64>> = trace.calls.iter().map(Call::chain).collect();
    let hardware = Hardware::with_host();
    let work: f64 = trace.calls.iter().map(|call| Hardware::work(call.input, call.output)).sum();
    let speed = LOAD * WORKERS as f64 * trace.seconds() / work;
    let setup = Setup { trace, chains: &chains, hardware, workers: WORKERS, in_flight: IN_FLIGHT, speed };
    let modest = modest(trace);
    let one = |name: &'static str, line: &mut dyn Line| {
        let mut watched = Watched::new(line, trace);
        let Some(kind) = kernel::kind::find(policy::KINDS, policy::OURS) else { unreachable!("ours is in the table") };
        let played = simulation::play(&setup, &mut *(kind.build)(WORKERS), &mut watched);
        let p99 = |of: bool| {
            let calls = trace.calls.iter().zip(&played.first_tokens);
            let chosen = calls.filter(|(call, _)| modest.contains(&call.tenant) == of).map(|(_, seconds)| *seconds);
            quantile(chosen.collect(), 0.99)
        };
        let (modest_p99_s, greedy_p99_s) = (p99(true), p99(false));
        Shared { line: name, modest_p99_s, greedy_p99_s, gap: watched.gap, bound: bound(trace) }
    };
    vec![one("first come, first served", &mut Fifo::default()), one("fair", &mut Fair::new(trace))]
}

/// Tenants who ask for less than an equal share of all.
fn modest(trace: &Trace) -> Vec<u32> {
    let mut asked = std::collections::BTreeMap::<u32, i64>::new();
    trace.calls.iter().for_each(|call| *asked.entry(call.tenant).or_default() += service(call));
    let fair = asked.values().sum::<i64>() / asked.len().max(1) as i64;
    asked.into_iter().filter(|(_, asked)| *asked < fair).map(|(tenant, _)| tenant).collect()
}

/// 2·max(w_p·L_in, w_q·M) of Sheng et al. (OSDI 2024), M being the tokens that can be under way at once.
fn bound(trace: &Trace) -> i64 {
    let longest = trace.calls.iter().map(|call| call.input).max().unwrap_or(0) as i64;
    let largest = trace.calls.iter().map(|call| call.input + call.output).max().unwrap_or(0) as i64;
    2 * longest.max(2 * largest * i64::from(IN_FLIGHT) * WORKERS as i64)
}

pub(crate) fn table(rows: &[Shared]) -> String {
    let mut text =
        format!("== tenants at {LOAD:.2} of capacity, {IN_FLIGHT} calls in flight to a worker: sharing it out\n");
    writeln!(text, "  {:26} {:>12} {:>12} {:>14} {:>14}", "", "modest p99", "greedy p99", "gap, tokens", "bound").ok();
    for row in rows {
        let Shared { line, modest_p99_s, greedy_p99_s, gap, bound } = row;
        writeln!(text, "  {line:26} {modest_p99_s:>10.1} s {greedy_p99_s:>10.1} s {gap:>14} {bound:>14}").ok();
    }
    text
}

/// What is demanded of the fair line.
pub(crate) fn judge(rows: &[Shared]) -> Option<Verdict> {
    let fair = rows.last()?;
    let outcome = if fair.gap <= fair.bound { Outcome::Met } else { Outcome::Missed };
    let measured = format!("{} of {} tokens", fair.gap, fair.bound);
    Some(Verdict { demand: "tenants under overload: fairness bound".into(), measured, outcome })
}
