//! `sluice-bench placement`: how long `balance: prefix_aware` takes for one decision.
//!
//! A hundred instances, prompts of a thousand blocks, an index that is full, and the worst for it that prompts can do: a
//! conversation that every instance knows to another depth. Hashing the prompt is not part of a decision: it is done once
//! per call, however often the call asks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::random::mix;
use kernel::{Moment, Tokens};
use models::balance::{self, Balance, Candidate, Wanted};
use serde::Serialize;

const INSTANCES: usize = 100;
const BLOCKS: usize = 1_000;
/// Conversations beside each other: together they overfill the index.
const CONVERSATIONS: u64 = 8_000;
/// Decisions that are timed.
const DECISIONS: u64 = 20_000;
/// Demanded of the 99th percentile of a decision.
const P99_MAX: Duration = Duration::from_micros(20);

/// Times of one kind of prompt, in microseconds.
#[derive(Debug, Serialize)]
struct Times {
    prompts: &'static str,
    /// Share of the decisions that found the prompt in the index.
    found: f64,
    /// Whom to take.
    pick_p50_us: f64,
    pick_p99_us: f64,
    /// The same, and remembering who was taken.
    whole_p50_us: f64,
    whole_p99_us: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    instances: usize,
    blocks: usize,
    decisions: u64,
    times: Vec<Times>,
}

/// Measures it.
pub(crate) fn measure() -> Result<Report> {
    let kind = kernel::kind::find(balance::KINDS, "prefix_aware").context("there is no balance prefix_aware")?;
    let balance = (kind.build)();
    let mut candidates: Vec<Candidate> = (0..INSTANCES).map(candidate).collect();
    for conversation in 0..CONVERSATIONS {
        decide(&*balance, &mut candidates, &prompt(conversation, BLOCKS));
    }
    let seen = |nth| CONVERSATIONS - 1 - mix(nth) % (CONVERSATIONS / 8);
    let mut times = vec![time("of conversations seen before", &*balance, &mut candidates, seen)];
    times.push(time("never seen", &*balance, &mut candidates, |nth| CONVERSATIONS + nth));
    // Told last, or the index would have forgotten it by now: each instance has had another part of the conversation.
    for nth in 1..=INSTANCES {
        let mut one = candidates.get(nth - 1).map(|one| [*one]).context("too few candidates")?;
        decide(&*balance, &mut one, &prompt(u64::MAX, nth * BLOCKS / INSTANCES));
    }
    times.push(time("known to every instance to another depth", &*balance, &mut candidates, |_| u64::MAX));
    Ok(Report { instances: INSTANCES, blocks: BLOCKS, decisions: DECISIONS, times })
}

fn time(prompts: &'static str, balance: &dyn Balance, candidates: &mut [Candidate], of: impl Fn(u64) -> u64) -> Times {
    let (mut picks, mut wholes, mut found) = (Vec::new(), Vec::new(), 0u32);
    for nth in 0..DECISIONS {
        let (picked, whole, reason) = decide(balance, candidates, &prompt(of(nth), BLOCKS));
        picks.push(picked);
        wholes.push(whole);
        found += u32::from(reason == "prefix");
    }
    Times {
        prompts,
        found: f64::from(found) / DECISIONS as f64,
        pick_p50_us: quantile(&mut picks, 0.5),
        pick_p99_us: quantile(&mut picks, 0.99),
        whole_p50_us: quantile(&mut wholes, 0.5),
        whole_p99_us: quantile(&mut wholes, 0.99),
    }
}

/// One decision: how long its choice took, how long all of it, and its reason.
fn decide(balance: &dyn Balance, candidates: &mut [Candidate], blocks: &[u64]) -> (Duration, Duration, &'static str) {
    let (wanted, now) = (Wanted { affinity: None, tokens: Tokens(0), blocks }, Moment::now());
    let begun = Instant::now();
    let pick = balance.pick(candidates, &wanted, now);
    let picked = Instant::now();
    if let Some(chosen) = candidates.get(pick.position) {
        balance.placed(chosen.identity, &wanted, now);
    }
    (picked - begun, begun.elapsed(), pick.reason)
}

fn candidate(index: usize) -> Candidate {
    Candidate {
        index,
        identity: mix(index as u64),
        weight: 1.0,
        busy: (mix(index as u64) % 8) as u32,
        limit: Some(256),
        unread: Tokens(mix(!(index as u64)) % 20_000),
        micros: 30_000.0,
        score: f64::NAN,
        told: None,
    }
}

fn prompt(conversation: u64, blocks: usize) -> Vec<u64> {
    let mut link = mix(conversation);
    let chain = (0..blocks).map(|_| {
        link = mix(link);
        link
    });
    chain.collect()
}

fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let rank = (share * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

// === impl Report ===

impl Report {
    pub(crate) fn met(&self) -> bool {
        self.times.iter().all(|times| times.whole_p99_us <= P99_MAX.as_secs_f64() * 1e6)
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "one decision among {} instances, prompts of {} blocks, {} times; µs\n{:42} {:>6} {:>9} {:>9} {:>11} {:>11}\n",
            self.instances,
            self.blocks,
            self.decisions,
            "prompts",
            "found",
            "pick p50",
            "pick p99",
            "whole p50",
            "whole p99"
        );
        for one in &self.times {
            let line = [one.pick_p50_us, one.pick_p99_us, one.whole_p50_us, one.whole_p99_us];
            let found = 100.0 * one.found;
            let [pick_p50, pick_p99, whole_p50, whole_p99] = line.map(|time| format!("{time:.1}"));
            text += &format!(
                "{:42} {found:>5.0}% {pick_p50:>9} {pick_p99:>9} {whole_p50:>11} {whole_p99:>11}\n",
                one.prompts
            );
        }
        let word = if self.met() { "MET" } else { "MISSED" };
        text + &format!("{word:9} p99 of a whole decision ≤ {} µs\n", P99_MAX.as_micros())
    }
}
