//! What a seed makes: machines, tenants, quotas, calls and faults.

use std::time::Duration;

use kernel::Priority;
use kernel::random::Random;

use crate::quota::{Allowance, CohortSettings, QuotaSettings};
use crate::settings::{Fairness, Settings};

/// Everything that will happen, but for what the scheduler decides.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) settings: Settings,
    /// By deployment.
    pub(super) deployments: Vec<Vec<Machine>>,
    /// Thousandths of `gpu` of each node.
    pub(super) nodes: Vec<u64>,
    pub(super) calls: Vec<Call>,
    pub(super) faults: Vec<Fault>,
    /// Nothing but fairness decides: one deployment, no quotas, no faults, no sizes that matter.
    pub(super) plain: bool,
}

/// One instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    pub(super) slots: u32,
    pub(super) room: Option<u64>,
    /// Which node, and what it needs of it while it has calls, and for each of them.
    pub(super) node: Option<(usize, u64, u64)>,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) at: Duration,
    pub(super) deployment: usize,
    pub(super) tenant: usize,
    pub(super) key: usize,
    pub(super) class: Priority,
    pub(super) input: u64,
    pub(super) cached: u64,
    pub(super) output: u64,
    pub(super) output_max: Option<u64>,
    pub(super) stream: bool,
    /// How long its client waits before it leaves.
    pub(super) patience: Option<Duration>,
    /// How long after it was placed its client leaves.
    pub(super) takes: Option<Duration>,
    pub(super) deadline: Duration,
}

/// Something that goes wrong, or is changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) kind: FaultKind,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum FaultKind {
    /// An instance dies over its calls, and is back after so long.
    Dies { deployment: usize, instance: usize, back: Duration },
    /// A new config: slots, node sizes and nominal quotas in percent of what they were at first, and what is shared.
    Reload { percent: u64, fairness: Fairness },
}

/// Tokens of prompt and answer are at most these.
pub(super) const INPUT_MAX: u64 = 2_000;
pub(super) const OUTPUT_MAX: u64 = 400;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Scene {
    pub(super) fn random(seed: u64) -> Self {
        let random = Random::seeded(kernel::random::mix(seed));
        let below = |bound: u64| random.below(bound as usize) as u64;
        let plain = below(3) == 0;
        let some = |chance: u64| !plain && below(100) < chance;
        let nodes: Vec<u64> =
            if some(50) { (0..1 + below(2)).map(|_| 2_500 + below(3) * 500).collect() } else { Vec::new() };
        let deployments = (0..if plain { 1 } else { 1 + below(3) })
            .map(|_| {
                let machine = || Machine {
                    slots: 1 + below(3) as u32,
                    room: some(30).then(|| 2_500 + below(3_000)),
                    node: (!nodes.is_empty() && below(4) > 0)
                        .then(|| (below(nodes.len() as u64) as usize, below(3) * 1_000, below(2) * 500)),
                };
                (0..1 + below(3)).map(|_| machine()).collect()
            })
            .collect::<Vec<Vec<Machine>>>();
        let tenants = 2 + below(4) as usize;
        let mut settings = Settings {
            aging_ms: kernel::settings::Millis(100 + below(900)),
            preemption: some(60),
            shedding: some(50),
            queue_max: if some(20) { 4 + below(10) as u32 } else { 10_000 },
            ..Settings::default()
        };
        if some(30) {
            (settings.reserved_percent.normal, settings.reserved_percent.low) = (below(20) as u32, below(20) as u32);
        }
        if some(50) {
            (settings.cohorts, settings.quotas) = quotas(tenants, &below);
        }
        let horizon = 2_000 + below(4_000);
        let calls = calls(tenants, deployments.len(), horizon, plain, &below);
        let faults = (0..if plain { 0 } else { below(4) })
            .map(|_| {
                let deployment = below(deployments.len() as u64) as usize;
                let instance = below(deployments[deployment].len() as u64) as usize;
                let kind = match below(2) {
                    0 => FaultKind::Dies { deployment, instance, back: millis(200 + below(1_000)) },
                    _ => FaultKind::Reload {
                        percent: 50 + below(100),
                        fairness: [Fairness::Token, Fairness::Request, Fairness::None][below(3) as usize],
                    },
                };
                Fault { at: millis(below(horizon)), kind }
            })
            .collect();
        Self { settings, deployments, nodes, calls, faults, plain }
    }
}

fn quotas(tenants: usize, below: &impl Fn(u64) -> u64) -> (Vec<CohortSettings>, Vec<QuotaSettings>) {
    let cohort = |name: &str, parent: Option<&str>| CohortSettings {
        name: name.into(),
        parent: parent.map(str::to_owned),
        concurrency: below(2),
        tokens_in_flight: below(2) * 3_000,
        borrow: Allowance::default(),
        lend: Allowance::default(),
    };
    let cohorts = vec![cohort("all", None), cohort("some", Some("all"))];
    let allow = || Allowance { concurrency: (below(2) == 0).then(|| below(3)), tokens_in_flight: None };
    let quota = |tenant: usize| {
        let cohort = [None, Some("all"), Some("some")][below(3) as usize].map(str::to_owned);
        let (borrow, lend) = if cohort.is_some() { (allow(), allow()) } else { Default::default() };
        QuotaSettings {
            tenant: format!("t{tenant}"),
            class: (below(4) == 0).then(|| Priority::ALL[below(3) as usize]),
            cohort,
            concurrency: Some(1 + below(3)),
            // A call that could never run would be refused: there is a test for that.
            tokens_in_flight: (below(3) == 0).then(|| 4_000 + below(8_000)),
            borrow,
            lend,
        }
    };
    (cohorts, (0..tenants).filter(|_| below(3) > 0).map(quota).collect())
}

fn calls(tenants: usize, deployments: usize, horizon: u64, plain: bool, below: &impl Fn(u64) -> u64) -> Vec<Call> {
    let mut calls = Vec::new();
    for tenant in 0..tenants {
        // Some come steadily, some in bursts.
        let (mut at, gap) = (below(horizon / 2), 10 + below(120));
        let (keys, bursty, long) = (1 + below(3), below(2) == 0, below(2) == 0);
        for number in 0..10 + below(30) {
            at += if bursty && number % 8 != 0 { 0 } else { 1 + below(2 * gap) };
            let output = if long { 1 + below(OUTPUT_MAX) } else { 1 + below(40) };
            let input = 10 + below(INPUT_MAX - 10);
            calls.push(Call {
                at: millis(at),
                deployment: below(deployments as u64) as usize,
                tenant,
                key: below(keys) as usize,
                class: if below(3) == 0 { Priority::ALL[below(3) as usize] } else { Priority::Normal },
                input,
                cached: if below(4) == 0 { below(input) } else { 0 },
                output,
                output_max: (below(2) == 0).then(|| output + below(200)),
                stream: below(2) == 0,
                patience: (!plain && below(6) == 0).then(|| millis(below(1_500))),
                takes: (!plain && below(8) == 0).then(|| millis(below(100))),
                deadline: if !plain && below(8) == 0 {
                    millis(50 + below(1_000))
                } else {
                    Duration::from_secs(100_000)
                },
            });
        }
    }
    calls
}
