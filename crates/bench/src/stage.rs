//! `sluice-bench stage`: what the scheduling stage costs, alone.
//!
//! The real stage over the real fleet, with nothing behind it: an uncontended call with the stage and without it, the pace
//! of a long line of many tenants, and what a waiting call takes in memory. All on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use kernel::explain::Lines;
use kernel::fleet::{Ask, Choice, Choose, Deployment};
use kernel::{
    Attempt, Body, Call, Caller, Ctx, Delta, Deltas, Head, ModelName, Moment, Note, Operation, Payload, Permit, Placed,
    Priority, Reply, RequestId, Serve, Serving, TenantId, Tokens, Usage, ctx,
};
use models::{Fleet, ModelSettings};
use scheduling::{Scheduler, Settings, State};
use serde::Serialize;

use crate::figures::median;
use crate::proc;

/// Calls of one round.
const CALLS: u32 = 200_000;
const ROUNDS: usize = 7;
/// The line whose pace is measured.
const TENANTS: usize = 1_000;
const WAITING: usize = 10_000;
const TURNS: u32 = 200_000;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Nanoseconds of one thread per uncontended call: choosing and answering alone, with the stage, and the difference.
    pub(crate) bare_ns: f64,
    pub(crate) staged_ns: f64,
    pub(crate) added_ns: f64,
    /// From asking for a slot to having one while one is free, 99th percentile, in microseconds.
    pub(crate) delay_p99_us: f64,
    /// Joins and turns together, per second, with so many waiting.
    pub(crate) operations_per_second: f64,
    /// Growth of resident memory per waiting call, beyond that of a call that just is.
    pub(crate) bytes_per_waiting: f64,
}

/// Answers at once: a whole answer, or a stream that holds its slot until it is dropped.
struct Nothing {
    stream: bool,
}

struct Held(#[expect(dead_code, reason = "held, not read")] Permit);

impl Deltas for Held {
    fn poll_next(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<kernel::Result<Delta>>> {
        std::task::Poll::Ready(None)
    }
}

impl Serve<Placed> for Nothing {
    fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed) -> Serving<'a> {
        let usage = Usage { input: Tokens(300), output: Tokens(200), ..Usage::default() };
        ctx.note(Note::Used(usage));
        let head = Head { status: 200, content_type: Bytes::new(), fields: Vec::new() };
        let reply = if self.stream {
            Reply::new(head, Body::Stream(Box::new(Held(placed.permit))))
        } else {
            Reply::new(head, Body::Whole(Bytes::new())).holding(placed.permit)
        };
        Box::pin(std::future::ready(Ok(reply)))
    }
}

/// Measures everything, some ten seconds.
pub(crate) async fn measure() -> Result<Report> {
    // First of all, so that growth is growth and not memory that others have left.
    let (operations_per_second, bytes_per_waiting) = tokio::task::LocalSet::new().run_until(line()).await?;
    let (mut bare, mut staged, mut delays) = (Vec::new(), Vec::new(), Vec::new());
    let bench = Bench::new(None, Nothing { stream: false })?;
    // Taken in turn, so that what disturbs one disturbs the other.
    for _ in 0..ROUNDS {
        bare.push(bench.bare().await);
        staged.push(bench.staged(&mut delays).await);
    }
    delays.sort_unstable();
    let p99 = delays.get(delays.len() * 99 / 100).copied().unwrap_or_default();
    let (bare_ns, staged_ns) = (median(&bare), median(&staged));
    Ok(Report {
        bare_ns,
        staged_ns,
        added_ns: staged_ns - bare_ns,
        delay_p99_us: p99.as_secs_f64() * 1e6,
        operations_per_second,
        bytes_per_waiting,
    })
}

struct Bench {
    fleet: Arc<Fleet>,
    next: Arc<dyn Serve<Placed>>,
    scheduler: Arc<Scheduler<Fleet>>,
    state: State,
    deployment: Arc<Deployment>,
}

impl Bench {
    fn new(slots: Option<u32>, next: Nothing) -> Result<Self> {
        let mut model = ModelSettings::short("m", None, "sim");
        model.max_concurrency = slots;
        let fleet = Arc::new(Fleet::new(&[model], &[], &models::State::default()));
        let roster = fleet.roster();
        let deployment = roster.models.values().find_map(|model| model.deployments.first()).context("no deployment")?;
        let settings = Settings { queue_max: 1_000_000, shedding: false, ..Settings::default() };
        let next: Arc<dyn Serve<Placed>> = Arc::new(next);
        let state = State::default();
        let scheduler = Arc::new(Scheduler::new(&settings, &state, Arc::clone(&fleet), &roster, Arc::clone(&next)));
        Ok(Self { fleet, next, scheduler, state, deployment: Arc::clone(deployment) })
    }

    /// Nanoseconds per call that is chosen for and answered with no stage between.
    async fn bare(&self) -> f64 {
        let (call, caller) = (call(), caller(0));
        let began = Instant::now();
        for _ in 0..CALLS {
            let (ctx, attempt) = self.asked(&caller, &call);
            let ask = Ask { tenant: &caller.tenant, tokens: Tokens(500), insists: false, below: None };
            if let Choice::Taken(instance, permit) = self.fleet.choose(&attempt, &ask, &mut |_| {}) {
                drop(std::hint::black_box(self.next.serve(&ctx, Placed { attempt, instance, permit }).await));
            }
        }
        per_call(began)
    }

    /// The same through the stage; every hundredth delay is kept.
    async fn staged(&self, delays: &mut Vec<Duration>) -> f64 {
        let (call, caller) = (call(), caller(0));
        let began = Instant::now();
        for number in 0..CALLS {
            let (ctx, attempt) = self.asked(&caller, &call);
            let asked = (number % 100 == 0).then(Instant::now);
            drop(std::hint::black_box(self.scheduler.serve(&ctx, attempt).await));
            delays.extend(asked.map(|asked| asked.elapsed()));
        }
        per_call(began)
    }

    fn asked(&self, caller: &Caller, call: &Call) -> (Ctx, Attempt) {
        let started = Moment::now();
        let ctx = Ctx::new(ctx::Facts {
            id: RequestId::new("0123456789abcdef0123456789abcdef"),
            caller: caller.clone(),
            priority: Priority::Normal,
            started,
            asked: started,
            deadline: None,
            explain: false,
            tag: None,
            budgeted: true,
        });
        let deadline = started + Duration::from_secs(600);
        let deployment = Arc::clone(&self.deployment);
        (ctx, Attempt { call: call.clone(), deployment, tried: Vec::new(), deadline })
    }
}

/// A line of [`WAITING`] calls of [`TENANTS`] tenants: its pace, and the memory of one call in it.
async fn line() -> Result<(f64, f64)> {
    const SLOTS: u32 = 64;
    let bench = Rc::new(Bench::new(Some(SLOTS), Nothing { stream: true })?);
    let running: Rc<RefCell<VecDeque<Reply>>> = Rc::default();
    let callers: Vec<Caller> = (0..TENANTS).map(caller).collect();
    let join = |number: usize| {
        let (bench, running, caller) = (Rc::clone(&bench), Rc::clone(&running), callers.get(number % TENANTS).cloned());
        tokio::task::spawn_local(async move {
            let (ctx, attempt) = bench.asked(&caller.unwrap_or_else(Caller::anonymous), &call());
            if let Ok(reply) = bench.scheduler.serve(&ctx, attempt).await {
                running.borrow_mut().push_back(reply);
            }
        });
    };
    (0..SLOTS as usize).for_each(&join);
    settle(SLOTS as usize).await;
    // As many calls that are just there: what a call takes in any case is not the stage's.
    let idle = |number: usize| {
        let (bench, caller) = (Rc::clone(&bench), callers.get(number % TENANTS).cloned());
        tokio::task::spawn_local(async move {
            let asked = bench.asked(&caller.unwrap_or_else(Caller::anonymous), &call());
            std::future::pending::<()>().await;
            drop(asked);
        });
    };
    let resident = || proc::resident_bytes(&[std::process::id()]);
    let before = resident();
    (0..WAITING).for_each(&idle);
    settle(WAITING).await;
    let idle = resident().saturating_sub(before);
    let before = resident();
    (0..WAITING).for_each(&join);
    settle(WAITING).await;
    let waiting: usize = bench.state.lines().iter().map(|line| line.waiting.0).sum();
    anyhow::ensure!(waiting == WAITING, "{waiting} wait, and not {WAITING}");
    let grown = resident().saturating_sub(before).saturating_sub(idle);
    let began = Instant::now();
    for number in 0..TURNS {
        // One answer ends, the next call has its turn, and another joins the line.
        let ended = running.borrow_mut().pop_front();
        drop(ended);
        join(number as usize);
        if number % 16 == 15 {
            settle(32).await;
        }
    }
    let waiting: usize = bench.state.lines().iter().map(|line| line.waiting.0).sum();
    anyhow::ensure!(waiting == WAITING, "{waiting} wait at the end, and not {WAITING}");
    let pace = f64::from(2 * TURNS) / began.elapsed().as_secs_f64();
    Ok((pace, grown as f64 / WAITING as f64))
}

/// Lets so many tasks run that can.
async fn settle(tasks: usize) {
    /// What the runtime runs before it looks elsewhere, with some to spare.
    const AT_ONCE: usize = 32;
    for _ in 0..tasks / AT_ONCE + 1 {
        tokio::task::yield_now().await;
    }
}

fn per_call(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn caller(number: usize) -> Caller {
    Caller { tenant: TenantId::new(format!("tenant-{number}")), ..Caller::anonymous() }
}

fn call() -> Call {
    let payload = Payload {
        bytes: Bytes::from_static(&[b' '; 1024]),
        model: 0..0,
        prompt: 0..1024,
        tools: 0..0,
        force_usage: None,
        blocks: Default::default(),
    };
    Call {
        model: ModelName::new("m"),
        operation: Operation::Chat,
        stream: false,
        wants_usage: true,
        payload: Arc::new(payload),
        affinity: None,
        output_max: None,
        choices: 1,
        forward: Arc::new([]),
        plain: None,
    }
}

/// What is demanded, and whether it is met.
pub(crate) fn print(report: &Report) -> bool {
    let rows = [
        ("added to an uncontended call, µs of CPU", report.added_ns / 1e3, 1.5, true),
        ("from asking to a free slot, p99, µs", report.delay_p99_us, 1_000.0, true),
        ("operations/s, 1,000 tenants, 10,000 waiting", report.operations_per_second, 200_000.0, false),
        ("bytes per waiting call, beyond the call itself", report.bytes_per_waiting, 2_048.0, true),
    ];
    let mut all = true;
    for (what, value, bound, most) in rows {
        let met = if most { value <= bound } else { value >= bound };
        all &= met;
        let (sign, word) = (if most { "≤" } else { "≥" }, if met { "met" } else { "MISSED" });
        println!("{what:<46} {value:>12.2}   {sign} {bound:<9} {word}");
    }
    println!(
        "(without the stage {:.0} ns, with it {:.0} ns; {} rounds of {CALLS} calls)",
        report.bare_ns, report.staged_ns, ROUNDS
    );
    all
}
