//! Callers, a backend, and what is true of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use kernel::contract::Budget;
use kernel::error::Kind;
use kernel::fleet::Deployment;
use kernel::random::Random;
use kernel::store::ledger::{Account, Charge, Ending};
use kernel::{
    Attempt, Body, Call, Caller, Ctx, Delta, Deltas, Error, Head, InstanceId, ModelName, Moment, Money, Note,
    Operation, Payload, Price, Priority, Reply, RequestId, Result, Serve, Serving, TenantId, Terms, Tokens, Usage,
    Version, ctx,
};

use super::disk::Disk;
use crate::bookkeeper::{Desk, Step};
use crate::tokens::Reading;
use crate::{Bookkeeper, Catalogue, Meter, Purse, Till};

/// Tokens of every prompt, and its bytes.
const INPUT: u64 = 100;
const BYTES: usize = 400;
/// What the budgets allow.
const LIMIT: i64 = 3_000;
/// A unit a token.
const PRICE: &str =
    r#"{"model":"*","from":"2020-01-01","input_per_1m_tokens":"1000000","output_per_1m_tokens":"1000000"}"#;
/// Whose calls there are: by token with budgets, by call with a budget, from a balance, without any end.
const TENANTS: [(&str, &str, &str); 4] = [
    ("tokens", r#"[{"limit":"3000","per":"total"},{"limit":"2500","per":"total","scope":"key"}]"#, "{}"),
    ("calls", r#"[{"limit":"30","per":"total"}]"#, r#"{"per_call":"1"}"#),
    ("prepaid", "[]", r#"{"prepaid":true}"#),
    ("free", "[]", "{}"),
];

/// What happened in a world.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) crashes: usize,
    pub(super) charges: usize,
    pub(super) cut_off: usize,
    pub(super) killed: usize,
}

/// How one call went, as its client saw it.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    tenant: usize,
    /// Pieces that were received.
    pieces: u64,
    /// Whether all of the answer was.
    whole: bool,
    /// Whether its client left, or the backend broke off.
    broken: bool,
    refused: bool,
    killed: bool,
}

/// One process.
struct Life {
    purse: Arc<Purse>,
    meter: Meter,
    keeper: Arc<Bookkeeper>,
    desk: Desk,
    flowing: Vec<(usize, Box<dyn Deltas>)>,
}

pub(super) struct World {
    disk: Arc<Disk>,
    random: Random,
    seen: Vec<Seen>,
    paid: i64,
    tally: Tally,
}

/// Says so many words, or breaks off after some.
struct Backend(Arc<Random>);

struct Answer {
    ctx: Ctx,
    left: u64,
    said: u64,
    breaks: bool,
    tells: bool,
}

impl Serve<Attempt> for Backend {
    fn serve<'a>(&'a self, ctx: &'a Ctx, attempt: Attempt) -> Serving<'a> {
        Box::pin(async move {
            ctx.note(Note::Placed(Arc::clone(&attempt.deployment), "i".into()));
            if self.0.below(10) == 0 {
                return Err(Error::upstream(Kind::BadUpstream, "broken", "broken"));
            }
            let left = [3, 20, 300, 900][self.0.below(4)];
            let head = Head { status: 200, content_type: Bytes::new(), fields: Vec::new() };
            if !attempt.call.stream {
                ctx.note(Note::Used(used(left)));
                return Ok(Reply::new(head, Body::Whole("word".into())));
            }
            let (breaks, tells) = (self.0.below(5) == 0, self.0.below(2) == 0);
            Ok(Reply::new(head, Body::Stream(Box::new(Answer { ctx: ctx.clone(), left, said: 0, breaks, tells }))))
        })
    }
}

impl Deltas for Answer {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        let delta =
            |bytes: &'static str, pieces, last| Poll::Ready(Some(Ok(Delta { bytes: bytes.into(), pieces, last })));
        if self.left == 0 {
            if self.breaks {
                return Poll::Ready(Some(Err(Error::upstream(Kind::BadUpstream, "broken", "broken"))));
            }
            if self.tells {
                self.ctx.note(Note::Used(used(self.said)));
            }
            return delta("", 0, true);
        }
        // The more that is left, the larger the pieces, so that long answers end.
        let pieces = (self.left / 50 + 1).min(self.left);
        (self.left, self.said) = (self.left - pieces, self.said + pieces);
        delta("word ", pieces as u32, false)
    }
}

fn used(output: u64) -> Usage {
    Usage { input: Tokens(INPUT), output: Tokens(output), ..Usage::default() }
}

fn quiet(_: &[u8], _: &mut dyn FnMut(&str)) -> u64 {
    0
}

impl World {
    /// Lives until the process has died so often; then all comes to rest, and must be true.
    pub(super) async fn live(seed: u64, crashes: usize) -> Tally {
        let disk = Disk::new(seed);
        let mut world =
            Self { disk, random: Random::seeded(seed ^ 0x5EED), seen: Vec::new(), paid: 0, tally: Tally::default() };
        while world.tally.crashes < crashes {
            let fuse = 1 + world.random.below(60) as u64;
            world.disk.begin(fuse);
            let mut life = world.begin();
            while !world.disk.dead() {
                world.happen(&mut life).await;
                world.check(&life);
            }
            for (call, _) in &life.flowing {
                world.seen[*call].killed = true;
            }
            world.tally.crashes += 1;
        }
        world.rest().await;
        world.tally
    }

    fn begin(&self) -> Life {
        let purse = Purse::new(|_| {});
        purse.set_strict(true);
        let till = Till::new(Arc::clone(&purse), Arc::clone(&self.disk) as _, Reading { prompt: quiet, answer: quiet });
        let price: Price = serde_json::from_str(PRICE).unwrap();
        till.catalogue.store(Arc::new(Catalogue::new([price])));
        let backend = Backend(Arc::new(Random::seeded(self.random.next())));
        let keeper = Bookkeeper::new(Arc::clone(&self.disk) as _, Arc::clone(&self.disk) as _, Arc::clone(&purse));
        Life { meter: Meter::new(Arc::new(backend), till), purse, keeper, desk: Desk::default(), flowing: Vec::new() }
    }

    /// The next thing that happens.
    async fn happen(&mut self, life: &mut Life) {
        match self.random.below(20) {
            0..4 => self.call(life).await,
            4..12 if !life.flowing.is_empty() => {
                let nth = self.random.below(life.flowing.len());
                self.poll(life, nth);
            }
            12 if !life.flowing.is_empty() => {
                let (call, deltas) = life.flowing.swap_remove(self.random.below(life.flowing.len()));
                drop(deltas);
                (self.seen[call].broken, self.seen[call].killed) = (true, self.disk.dead());
            }
            13 => {
                let (down, full) = (self.random.below(3) == 0, self.random.below(12) == 0);
                self.disk.set(down, full);
            }
            14 => {
                self.paid += 150;
                self.disk.pay(&TenantId::new("prepaid"), Money::from_units(150));
            }
            _ => drop(self.keep(life).await),
        }
    }

    async fn keep(&self, life: &mut Life) -> Step {
        let step = life.keeper.step(&mut life.desk).await;
        if life.desk.between() {
            let all = self.random.below(8) == 0;
            // The ledger may be gone.
            let _ = life.keeper.load(all).await;
        }
        step
    }

    async fn call(&mut self, life: &mut Life) {
        let (call, tenant) = (self.seen.len(), self.random.below(TENANTS.len()));
        self.seen.push(Seen { tenant, ..Seen::default() });
        // What cannot be cut off can cost more than was thought: only who has no limit, or a fixed price, does it.
        let stream = !matches!(tenant, 1 | 3) || self.random.below(2) == 0;
        let (ctx, attempt) = request(call, tenant, stream);
        let answered = life.meter.serve(&ctx, attempt).await;
        if self.disk.dead() {
            self.seen[call].killed = true;
            if let Ok(reply) = answered {
                drop(reply);
            }
            return;
        }
        match answered.map(|reply| reply.into_parts().1) {
            Ok(Body::Whole(_)) => self.seen[call].whole = true,
            Ok(Body::Stream(deltas) | Body::Flow(deltas)) => life.flowing.push((call, deltas)),
            Err(_) => self.seen[call].refused = true,
        }
    }

    /// A client reads on.
    fn poll(&mut self, life: &mut Life, nth: usize) {
        let Some((call, deltas)) = life.flowing.get_mut(nth) else { return };
        let call = *call;
        let polled = deltas.poll_next(&mut Context::from_waker(Waker::noop()));
        if self.disk.dead() {
            return;
        }
        match polled {
            Poll::Ready(Some(Ok(delta))) => {
                self.seen[call].pieces += u64::from(delta.pieces);
                if !delta.last {
                    return;
                }
                self.seen[call].whole = true;
            }
            Poll::Ready(Some(Err(error))) => {
                self.tally.cut_off += usize::from(error.kind == Kind::OverBudget);
                self.seen[call].broken = true;
            }
            other => panic!("{other:?}"),
        }
        drop(life.flowing.swap_remove(nth));
    }

    /// What must be true at any moment.
    fn check(&self, life: &Life) {
        for (tenant, limit) in [("tokens", LIMIT), ("calls", 30)] {
            let (spent, pending) = life.purse.taken(&TenantId::new(tenant));
            assert!(spent + pending <= Money::from_units(limit), "{tenant}: {spent} spent, {pending} pending");
            assert!(pending >= Money::ZERO);
        }
        let revenue = self.disk.moved(&Account::Revenue);
        let of = |name: &str| self.disk.moved(&Account::Tenant(TenantId::new(name)));
        let debits: Money = TENANTS.iter().map(|(name, ..)| of(name).debits).sum();
        assert_eq!(debits, revenue.credits, "what is taken is given");
        for (tenant, limit) in [("tokens", LIMIT), ("calls", 30), ("prepaid", self.paid)] {
            assert!(of(tenant).debits <= Money::from_units(limit), "{tenant} owes {} of {limit}", of(tenant).debits);
        }
    }

    /// Everything comes to its end, and the ledger must hold the truth.
    async fn rest(&mut self) {
        self.disk.begin(u64::MAX);
        self.disk.set(false, false);
        let mut life = self.begin();
        for _ in 0..20 {
            self.call(&mut life).await;
        }
        while !life.flowing.is_empty() {
            let nth = self.random.below(life.flowing.len());
            self.poll(&mut life, nth);
            self.check(&life);
        }
        let mut idle = 0;
        while idle < 20 {
            idle = if self.keep(&mut life).await == Step::Idle { idle + 1 } else { 0 };
            self.check(&life);
        }
        assert_eq!(life.purse.pending(), Money::ZERO, "every reservation has ended");
        let mut charges: BTreeMap<usize, Vec<Charge>> = BTreeMap::new();
        for charge in self.disk.charges() {
            charges.entry(charge.request.as_str().parse().unwrap()).or_default().push(charge);
            self.tally.charges += 1;
        }
        for (call, seen) in self.seen.iter().enumerate() {
            let found = charges.remove(&call).unwrap_or_default();
            assert!(found.len() <= 1, "call {call} was charged {} times", found.len());
            self.tally.killed += usize::from(found.iter().any(|charge| charge.ending == Ending::GatewayKilled));
            judge(call, seen, found.first());
        }
        assert!(charges.is_empty(), "nobody made these calls: {charges:?}");
        assert_eq!(self.disk.left().0, 0, "what is posted is deleted");
    }
}

/// Whether a charge is what a call must cost.
fn judge(call: usize, seen: &Seen, charge: Option<&Charge>) {
    let context = format!("call {call}: {seen:?}, {charge:?}");
    let Some(charge) = charge else {
        assert!(!seen.whole && seen.pieces == 0, "an answer that was given away: {context}");
        return;
    };
    assert!(!seen.refused, "charged and refused: {context}");
    let output = charge.usage.output.0;
    if seen.killed {
        // Written down before it was handed on: the last of it may not have arrived; and not after each piece.
        let slack = (seen.pieces / 100).max(2) + 20;
        assert!(output + slack >= seen.pieces && output <= 900, "{context}");
    } else if seen.broken {
        assert_eq!(output, seen.pieces, "{context}");
    } else {
        assert_eq!(charge.ending, Ending::Complete, "{context}");
        assert!(seen.pieces == 0 || output == seen.pieces, "{context}");
    }
    let (per_call, tokens) = (Money::from_units(1), Money::from_units(1).times(charge.usage.total().0));
    let due = charge.ending == Ending::Complete || output > 0;
    let expected = if seen.tenant == 1 { if due { per_call } else { Money::ZERO } } else { tokens };
    assert_eq!(charge.amount, expected, "{context}");
}

fn request(call: usize, tenant: usize, stream: bool) -> (Ctx, Attempt) {
    let (name, budgets, billing) = TENANTS[tenant];
    let budgets: Vec<Budget> = serde_json::from_str(budgets).unwrap();
    let billing = Arc::new(serde_json::from_str(billing).unwrap());
    let terms = Terms { budgets: budgets.into(), billing, ..Terms::default() };
    let key = Some(kernel::KeyId::new("k"));
    let now = Moment::now();
    let ctx = Ctx::new(ctx::Facts {
        id: RequestId::new(call.to_string()),
        caller: Caller { tenant: TenantId::new(name), key, terms: Arc::new(terms) },
        priority: Priority::Normal,
        started: now,
        asked: now,
        deadline: None,
        explain: false,
        tag: None,
        budgeted: true,
    });
    let deployment = Arc::new(Deployment {
        index: 0,
        model: ModelName::new("m"),
        version: Version::new("v"),
        weight: 1,
        instances: vec![InstanceId(0)],
        names: vec!["i".into()],
        gpus: Vec::new(),
        label: "m@v".into(),
    });
    let payload = Payload {
        bytes: Bytes::new(),
        model: 0..0,
        prompt: 0..BYTES,
        tools: 0..0,
        force_usage: None,
        blocks: Default::default(),
    };
    let call = Call {
        model: ModelName::new("m"),
        operation: Operation::Chat,
        stream,
        wants_usage: true,
        payload: Arc::new(payload),
        affinity: None,
        output_max: None,
        choices: 1,
        forward: Arc::new([]),
        plain: None,
    };
    (ctx, Attempt { call, deployment, tried: Vec::new(), deadline: now + Duration::from_secs(9) })
}
