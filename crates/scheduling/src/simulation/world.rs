//! Simulated machines and clients around the real scheduler.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use kernel::error::Kind;
use kernel::fleet::{Ask, Choice, Choose, Deployment, Model, Rooms, Roster, Seen, Verdict};
use kernel::node::{Lack, Need};
use kernel::{
    Amount, Attempt, Body, Caller, Ctx, Delta, Deltas, Error, Head, InstanceId, KeyId, ModelName, Moment, Node, Note,
    Operation, Payload, Permit, Placed, Reply, RequestId, Result, Room, Serve, Serving, Slots, TenantId, Terms, Tokens,
    Usage, Version, ctx,
};

use super::plan::{Call, FaultKind, Machine, Scene};
use crate::{Scheduler, State, clock};

/// What happened.
#[derive(Debug)]
pub(super) struct History {
    pub(super) calls: Vec<Record>,
    /// What was found wrong on the way, and at the end.
    pub(super) wrong: Vec<String>,
}

/// What happened to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) call: usize,
    pub(super) came: Moment,
    /// Each time it was placed: when, where, and the how manieth placement of all that was.
    pub(super) starts: Vec<(Moment, usize, u64)>,
    pub(super) ended: Option<Moment>,
    pub(super) outcome: &'static str,
    /// Whether it was put back, retried or left: then nothing is known of its place among others.
    pub(super) disturbed: bool,
}

/// The machines that outlive configs.
struct Machines {
    /// By deployment.
    instances: Vec<Vec<Arc<Instance>>>,
    nodes: Vec<Arc<Node>>,
    /// When sizes were last changed: what was taken in that moment may be more than there is after it.
    resized: Mutex<Moment>,
    wrong: Mutex<Vec<String>>,
}

struct Instance {
    identity: u64,
    machine: Machine,
    slots: Slots,
    /// Calls by our own count.
    busy: AtomicU64,
    dead: AtomicBool,
    /// Grows each time it dies.
    lives: tokio::sync::watch::Sender<u64>,
}

/// The machines under one config.
struct Fleet(Arc<Machines>);

/// What a call holds at a backend, by our own count.
struct Held {
    machines: Arc<Machines>,
    at: (usize, usize),
}

/// A streamed answer: nothing to read, a permit to hold.
struct Streaming {
    _permit: Permit,
    _held: Held,
    ctx: Ctx,
    usage: Usage,
    began: Moment,
}

/// The backends: every placed call works as long as its tokens take.
struct Backends {
    machines: Arc<Machines>,
    calls: Vec<Call>,
    records: Mutex<Vec<Record>>,
    /// Told when a call is placed.
    placed: Vec<tokio::sync::Notify>,
    placements: AtomicU64,
}

/// Time for a token of prompt, and of answer.
pub(super) const READ: Duration = Duration::from_micros(20);
pub(super) const WRITE: Duration = Duration::from_micros(500);
/// Everything must be over by then.
const END: Duration = Duration::from_secs(1_000);

/// Plays a scene to its end.
pub(super) fn play(scene: &Scene) -> History {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, act(scene))
}

async fn act(scene: &Scene) -> History {
    clock::simulate();
    let origin = clock::now();
    let machines = Arc::new(Machines::new(scene));
    let records = scene.calls.iter().enumerate().map(|(call, plan)| Record::new(call, origin + plan.at)).collect();
    let backends = Arc::new(Backends {
        machines: Arc::clone(&machines),
        calls: scene.calls.clone(),
        records: Mutex::new(records),
        placed: scene.calls.iter().map(|_| tokio::sync::Notify::new()).collect(),
        placements: AtomicU64::new(0),
    });
    let state = State::default();
    let current = Rc::new(RefCell::new(scheduler(scene, &state, &machines, &backends)));
    let mut tasks = tokio::task::JoinSet::new();
    for (number, call) in scene.calls.iter().copied().enumerate() {
        let (backends, current) = (Arc::clone(&backends), Rc::clone(&current));
        tasks.spawn_local(async move {
            tokio::time::sleep(call.at).await;
            client(number, &call, &backends, &current).await;
        });
    }
    for fault in scene.faults.clone() {
        let (machines, current) = (Arc::clone(&machines), Rc::clone(&current));
        let (state, backends, scene) = (state.clone(), Arc::clone(&backends), scene.clone());
        tasks.spawn_local(async move {
            tokio::time::sleep(fault.at).await;
            match fault.kind {
                FaultKind::Dies { deployment, instance, back } => {
                    let instance = Arc::clone(&machines.instances[deployment][instance]);
                    instance.dead.store(true, Ordering::Relaxed);
                    instance.lives.send_modify(|lives| *lives += 1);
                    tokio::time::sleep(back).await;
                    instance.dead.store(false, Ordering::Relaxed);
                }
                FaultKind::Reload { percent, fairness } => {
                    machines.resize(&scene, percent);
                    let mut changed = scene.clone();
                    changed.settings.fairness = fairness;
                    for quota in &mut changed.settings.quotas {
                        quota.concurrency = quota.concurrency.map(|calls| (calls * percent / 100).max(1));
                    }
                    *current.borrow_mut() = scheduler(&changed, &state, &machines, &backends);
                }
            }
        });
    }
    let tend = tokio::task::spawn_local({
        let state = state.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                state.tend();
            }
        }
    });
    let over = tokio::time::timeout(END, async { while tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {} });
    let stuck = over.await.is_err() || !tasks.is_empty();
    tend.abort();
    let mut wrong = std::mem::take(&mut *machines.wrong.lock().unwrap());
    if stuck {
        wrong.push("not every call came to an end".into());
    } else {
        wrong.extend(machines.left_over());
        wrong.extend(left_over(&state));
    }
    let calls = std::mem::take(&mut *backends.records.lock().unwrap());
    History { calls, wrong }
}

/// What the scheduler still holds when everything is over.
fn left_over(state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    for queue in state.0.all() {
        queue.count_ended();
        let books = queue.books();
        if books.len() > 0 || queue.waiting() > 0 {
            wrong.push(format!("{} tickets are left in the line of {}", books.len(), queue.label));
        }
        if books.line().running() > 0 {
            wrong.push(format!("{} charges of {} were never settled", books.line().running(), queue.label));
        }
    }
    let used = |quota: &kernel::explain::QuotaView| quota.amounts.iter().any(|(_, used)| *used > 0);
    wrong.extend(state.0.quotas.show().iter().filter(|quota| used(quota)).map(|quota| format!("leaked: {quota:?}")));
    if !state.0.running.is_empty() {
        wrong.push("somebody is still listed as running".into());
    }
    wrong
}

fn scheduler(
    scene: &Scene,
    state: &State,
    machines: &Arc<Machines>,
    backends: &Arc<Backends>,
) -> Arc<Scheduler<Fleet>> {
    let mut roster = Roster::default();
    for index in 0..scene.deployments.len() {
        let name = ModelName::new(format!("m{index}"));
        let model = Model {
            name: name.clone(),
            deployments: vec![deployment(scene, index)],
            timeout: Duration::MAX,
            attempts_max: 3,
            retry_percent: 0,
            retry_min: 0,
            priority: None,
            middleware: None,
            service: false,
        };
        roster.models.insert(name, Arc::new(model));
    }
    let next: Arc<dyn Serve<Placed>> = backends.clone();
    Arc::new(Scheduler::new(&scene.settings, state, Arc::new(Fleet(Arc::clone(machines))), &roster, next))
}

fn deployment(scene: &Scene, index: usize) -> Arc<Deployment> {
    let instances = 0..scene.deployments[index].len() as u32;
    Arc::new(Deployment {
        index,
        model: ModelName::new(format!("m{index}")),
        version: Version::new("v"),
        weight: 1,
        instances: instances.clone().map(InstanceId).collect(),
        names: instances.map(|at| format!("i{at}").into()).collect(),
        gpus: Vec::new(),
        label: format!("m{index}@v").into(),
    })
}

/// One client: asks, tries again where an instance failed, reads, or leaves.
async fn client(number: usize, call: &Call, backends: &Arc<Backends>, current: &RefCell<Arc<Scheduler<Fleet>>>) {
    let scheduler = Arc::clone(&current.borrow());
    let asked = async {
        let started = clock::now();
        let ctx = Ctx::new(ctx::Facts {
            id: RequestId::new(number.to_string()),
            caller: Caller {
                tenant: TenantId::new(format!("t{}", call.tenant)),
                key: Some(KeyId::new(format!("k{}-{}", call.tenant, call.key))),
                terms: Arc::new(Terms::default()),
            },
            priority: call.class,
            started,
            asked: started,
            deadline: None,
            explain: false,
            tag: None,
            budgeted: true,
        });
        let deployment = &scheduler.queues[call.deployment];
        let instances = backends.machines.instances[call.deployment].len() as u32;
        let deployment = Arc::new(Deployment {
            index: call.deployment,
            model: ModelName::new("m"),
            version: Version::new("v"),
            weight: 1,
            instances: (0..instances).map(InstanceId).collect(),
            names: Vec::new(),
            gpus: Vec::new(),
            label: Arc::clone(&deployment.label),
        });
        let mut attempt =
            Attempt { call: asking(call), deployment, tried: Vec::new(), deadline: started + call.deadline };
        loop {
            match scheduler.serve(&ctx, attempt.clone()).await {
                Ok(reply) => {
                    let (_, body, held) = reply.into_parts();
                    if let Body::Stream(deltas) = body {
                        tokio::time::sleep(WRITE * u32::try_from(call.output).unwrap()).await;
                        drop(deltas);
                    }
                    drop(held);
                    break ("answered", ctx);
                }
                Err(error) => match error.instance {
                    Some(instance) => {
                        attempt.tried.push(instance);
                        if attempt.tried.len() >= instances as usize {
                            break ("failed", ctx);
                        }
                    }
                    None if error.kind == Kind::Internal => break ("internal", ctx),
                    None => break ("refused", ctx),
                },
            }
        }
    };
    let leaves = async {
        let taken = async {
            backends.placed[number].notified().await;
            tokio::time::sleep(call.takes.unwrap_or(Duration::MAX)).await;
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(call.patience.unwrap_or(Duration::MAX)) => {}
            () = taken, if call.takes.is_some() => {}
        }
    };
    let may_leave = call.patience.is_some() || call.takes.is_some();
    let (outcome, disturbed) = tokio::select! {
        biased;
        (outcome, ctx) = asked => {
            (outcome, may_leave || ctx.glance(|journal| journal.put_back > 0 || journal.attempts > 1))
        }
        () = leaves, if may_leave => ("left", true),
    };
    let mut records = backends.records.lock().unwrap();
    let record = &mut records[number];
    if record.ended.replace(clock::now()).is_some() {
        backends.machines.wrong.lock().unwrap().push(format!("call {number} ended twice"));
    }
    (record.outcome, record.disturbed) = (outcome, disturbed || outcome != "answered");
}

fn asking(call: &Call) -> kernel::Call {
    let bytes = Bytes::from(vec![b'x'; 16]);
    // Four bytes a token is what an estimator believes at first.
    let payload = Payload {
        bytes,
        model: 0..0,
        prompt: 0..(call.input * 4) as usize,
        tools: 0..0,
        force_usage: None,
        blocks: Default::default(),
    };
    kernel::Call {
        model: ModelName::new("m"),
        operation: Operation::Chat,
        stream: call.stream,
        wants_usage: true,
        payload: Arc::new(payload),
        affinity: None,
        output_max: call.output_max.map(Tokens),
        choices: 1,
        forward: Arc::new([]),
        plain: None,
    }
}

fn has(node: &Node) -> u64 {
    node.stock().iter().map(|(amount, _)| amount.milli).sum()
}

fn out(node: &Node) -> u64 {
    node.stock().iter().map(|(_, out)| out).sum()
}

fn gpu(milli: u64) -> Vec<Amount> {
    if milli == 0 { Vec::new() } else { vec![Amount { name: "gpu".into(), milli }] }
}

impl Record {
    fn new(call: usize, came: Moment) -> Self {
        Self { call, came, starts: Vec::new(), ended: None, outcome: "never", disturbed: false }
    }
}

impl Machines {
    fn new(scene: &Scene) -> Self {
        let mut identity = 0;
        let mut instance = |machine: &Machine| {
            identity += 1;
            let slots = Slots::new(Some(machine.slots));
            slots.set_room(machine.room);
            let (busy, dead, lives) = (AtomicU64::new(0), AtomicBool::new(false), tokio::sync::watch::channel(0).0);
            Arc::new(Instance { identity, machine: *machine, slots, busy, dead, lives })
        };
        let instances = scene.deployments.iter().map(|of| of.iter().map(&mut instance).collect()).collect();
        let nodes = scene.nodes.iter().enumerate().map(|(at, has)| Node::new(format!("n{at}"), &gpu(*has))).collect();
        Self { instances, nodes, resized: Mutex::default(), wrong: Mutex::default() }
    }

    fn resize(&self, scene: &Scene, percent: u64) {
        *self.resized.lock().unwrap() = clock::now();
        for instance in self.instances.iter().flatten() {
            let slots = (u64::from(instance.machine.slots) * percent / 100).max(1);
            instance.slots.set_limit(Some(slots as u32));
        }
        for (node, has) in self.nodes.iter().zip(&scene.nodes) {
            // Never so small that a call could not run at all.
            node.set(&gpu((has * percent / 100).max(2_500)));
        }
    }

    /// A call was placed: counts it, and says what is oversold.
    fn enter(self: &Arc<Self>, at: (usize, usize)) -> Held {
        let instance = &self.instances[at.0][at.1];
        let busy = instance.busy.fetch_add(1, Ordering::Relaxed) + 1;
        if busy > u64::from(instance.slots.limit().unwrap()) {
            self.say(format!("instance {at:?} has {busy} calls for {:?} slots", instance.slots.limit()));
        }
        if let (Some(room), tokens) = (instance.slots.room(), instance.slots.tokens())
            && tokens > room
        {
            self.say(format!("instance {at:?} has {tokens} tokens reserved of {room}"));
        }
        Held { machines: Arc::clone(self), at }
    }

    fn left_over(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for instance in self.instances.iter().flatten() {
            let (busy, tokens) = (instance.slots.busy(), instance.slots.tokens());
            if busy > 0 || tokens > 0 || instance.busy.load(Ordering::Relaxed) > 0 {
                wrong.push(format!("instance {} keeps {busy} slots and {tokens} tokens", instance.identity));
            }
        }
        let out = self.nodes.iter().flat_map(|node| node.stock()).filter(|(_, out)| *out > 0);
        wrong.extend(out.map(|out| format!("a node keeps {out:?}")));
        wrong
    }

    fn say(&self, what: String) {
        if *self.resized.lock().unwrap() == clock::now() {
            return;
        }
        self.wrong.lock().unwrap().push(what);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let instance = &self.machines.instances[self.at.0][self.at.1];
        instance.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Choose for Fleet {
    fn choose(&self, attempt: &Attempt, ask: &Ask<'_>, witness: &mut dyn FnMut(Seen)) -> Choice {
        let index = attempt.deployment.index;
        let (mut alive, mut largest) = (0, Some(0));
        for (at, instance) in self.0.instances[index].iter().enumerate() {
            if attempt.tried.contains(&InstanceId(at as u32)) {
                continue;
            }
            largest = largest.zip(instance.slots.room()).map(|(a, b): (u64, u64)| a.max(b));
            if instance.dead.load(Ordering::Relaxed) {
                continue;
            }
            alive += 1;
            if ask.below.is_some_and(|below| instance.slots.room().is_none_or(|room| room >= below.0)) {
                continue;
            }
            let Some(permit) =
                instance.slots.try_take(Room { ceiling: u32::MAX, tokens: ask.tokens.0, ..Room::default() })
            else {
                continue;
            };
            let permit = match instance.machine.node {
                None => permit,
                Some((node, standing, each)) => {
                    let (standing, each) = (gpu(standing), gpu(each));
                    let by = index as u64;
                    let need = Need { instance: instance.identity, standing: &standing, each: &each, by };
                    let (before, taken) = (out(&self.0.nodes[node]), self.0.nodes[node].take(&need, clock::now()));
                    match taken {
                        Ok(claim) => {
                            // A node that was made smaller may have more out than it has, but gives no more.
                            let (has, after) = (has(&self.0.nodes[node]), out(&self.0.nodes[node]));
                            if after > before && after > has {
                                self.0.say(format!("node {node} has {after} out of {has}"));
                            }
                            permit.with(claim)
                        }
                        Err(lack) => {
                            if ask.insists && lack == Lack::Resources {
                                self.0.nodes[node].promise(by, clock::now());
                            }
                            continue;
                        }
                    }
                }
            };
            witness(Seen { index: at as u32, busy: 0, limit: 0, score: 0.0, verdict: Verdict::Taken("first") });
            return Choice::Taken(InstanceId(at as u32), permit);
        }
        match (alive, largest.filter(|largest| *largest < ask.tokens.0)) {
            (_, Some(largest)) => Choice::TooLarge(Tokens(largest)),
            (0, None) => Choice::Down(None),
            (_, None) => Choice::Busy,
        }
    }

    fn rooms(&self, attempt: &Attempt) -> Rooms {
        let instances = &self.0.instances[attempt.deployment.index];
        let untried = || (0..).zip(instances).filter(|(at, _)| !attempt.tried.contains(&InstanceId(*at)));
        let rooms = || untried().map(|(_, instance)| instance.slots.room().map(Tokens));
        Rooms { smallest: rooms().flatten().min(), largest: rooms().reduce(|a, b| Some(a?.max(b?))).flatten() }
    }
}

impl Serve<Placed> for Backends {
    fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed) -> Serving<'a> {
        Box::pin(async move {
            let number: usize = ctx.facts().id.as_str().parse().unwrap();
            let (call, at) = (&self.calls[number], (placed.attempt.deployment.index, placed.instance.0 as usize));
            let held = self.machines.enter(at);
            let placement = self.placements.fetch_add(1, Ordering::Relaxed);
            self.records.lock().unwrap()[number].starts.push((clock::now(), at.1, placement));
            self.placed[number].notify_one();
            ctx.note(Note::Placed(Arc::clone(&placed.attempt.deployment), "i".into()));
            let instance = &self.machines.instances[at.0][at.1];
            let mut lives = instance.lives.subscribe();
            let first = READ * u32::try_from(call.input - call.cached).unwrap() + WRITE;
            let whole = WRITE * u32::try_from(call.output).unwrap();
            let work = tokio::time::sleep(if call.stream { first } else { first + whole });
            tokio::select! {
                biased;
                () = work => {}
                Ok(()) = lives.changed() => {
                    let error = Error::upstream(Kind::BadUpstream, "broken", "The instance died.");
                    return Err(error.at(placed.instance));
                }
            }
            answer(call, ctx, placed.permit, held)
        })
    }
}

fn answer(call: &Call, ctx: &Ctx, permit: Permit, held: Held) -> Result<Reply> {
    let usage = Usage {
        input: Tokens(call.input),
        cached: Tokens(call.cached),
        output: Tokens(call.output),
        ..Usage::default()
    };
    let head = Head { status: 200, content_type: Bytes::new(), fields: Vec::new() };
    if call.stream {
        let streaming = Streaming { _permit: permit, _held: held, ctx: ctx.clone(), usage, began: clock::now() };
        return Ok(Reply::new(head, Body::Stream(Box::new(streaming))));
    }
    ctx.note(Note::Used(usage));
    drop(held);
    Ok(Reply::new(head, Body::Whole(Bytes::new())).holding(permit))
}

impl Deltas for Streaming {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        Poll::Ready(None)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // Whoever leaves early has had what was written until then.
        let written = clock::now().since(self.began).as_micros() / WRITE.as_micros();
        self.usage.output.0 = self.usage.output.0.min(u64::try_from(written).unwrap());
        self.ctx.note(Note::Used(self.usage));
    }
}
