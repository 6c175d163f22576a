//! The stage: an attempt goes in, a placed call goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kernel::error::Kind;
use kernel::explain::SEEN_MAX;
use kernel::fleet::{Choose, Roster, Seen};
use kernel::{
    Attempt, Ctx, Error, InstanceId, Moment, Note, Origin, Permit, Placed, Priority, Reply, Result, Serve, Serving,
    Tokens,
};

use crate::clock;
use crate::line::{Age, Charge};
use crate::memory::Remembered;
use crate::queue::{Ahead, Answer, Asking, Called, Estimate, Granted, Queue, Refused, Rules, Sight, Taken, reason};
use crate::quota::Claim;
use crate::refusal;
use crate::running::Wish;
use crate::settings::Settings;
use crate::state::{Shared, State};
use crate::turn::{Costs, Turn, Verdict};

/// Puts attempts on instances: decides whose turn it is, and where.
pub struct Scheduler<F> {
    fleet: Arc<F>,
    next: Arc<dyn Serve<Placed>>,
    /// By the deployment's index in the roster.
    pub(crate) queues: Vec<Arc<Queue>>,
    pub(crate) shared: Arc<Shared>,
    preemption: bool,
    preemptions_max: u32,
}

/// What a call has been through in this stage.
#[derive(Debug, Default)]
struct Past {
    /// Its place in the order of arrival, once it has waited.
    age: Option<Age>,
    /// How often it was put back.
    put_back: u32,
}

/// What a call goes on with.
struct Go {
    instance: InstanceId,
    permit: Permit,
    claim: Option<Claim>,
    charge: Option<Charge>,
    /// Why it goes where it goes, if that was not counted yet.
    reason: Option<&'static str>,
}

/// What there is to tell about a decision.
struct Sighting<'a> {
    attempt: &'a Attempt,
    estimate: Estimate,
    /// When it asked.
    since: Moment,
    waited: Duration,
    joined: Option<Ahead>,
    put_back: u32,
}

impl<F: Choose> Scheduler<F> {
    /// A scheduler over a fleet; `next` takes what has been placed.
    pub fn new(
        settings: &Settings,
        state: &State,
        fleet: Arc<F>,
        roster: &Roster,
        next: Arc<dyn Serve<Placed>>,
    ) -> Self {
        let shared = Arc::clone(&state.0);
        let mut deployments: Vec<_> = roster.models.values().flat_map(|model| &model.deployments).collect();
        deployments.sort_by_key(|deployment| deployment.index);
        let rules = Rules::new(settings);
        let queues: Vec<_> = deployments.iter().map(|deployment| shared.queue(deployment, &rules)).collect();
        for queue in &queues {
            queue.books().set(rules.clone(), &fleet);
        }
        shared.retain(|label| queues.iter().any(|queue| &*queue.label == label));
        shared.quotas.set(&settings.cohorts, &settings.quotas);
        shared.preemption.store(settings.preemption, Ordering::Relaxed);
        let (preemption, preemptions_max) = (settings.preemption, settings.preemptions_max);
        Self { fleet, next, queues, shared, preemption, preemptions_max }
    }

    /// Places an attempt, and answers.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice: a waiting call is this large")]
    fn place<'a>(&'a self, ctx: &'a Ctx, mut attempt: Attempt) -> impl Future<Output = Result<Reply>> + Send + 'a {
        async move {
            let Some(queue) = self.queues.get(attempt.deployment.index) else { return Err(unplanned()) };
            let mut past = Past::default();
            loop {
                let go = self.granted(ctx, queue, &attempt, &mut past).await?;
                let (at, tokens) = ((queue.id, go.instance), go.claim.as_ref().map_or(0, Claim::tokens));
                let (mut turn, serving, kept) = self.set_out(ctx, queue, attempt, go, past.put_back);
                let answered = match kept {
                    None => serving.await,
                    Some(kept) => match self.unless_put_back(ctx, at, tokens, serving).await {
                        Some(answered) => answered,
                        None => {
                            turn.ended(Verdict::Undone);
                            drop(turn);
                            attempt = kept;
                            past.put_back += 1;
                            queue.count(&queue.counts.put_back, ctx.facts().priority);
                            ctx.note(Note::PutBack);
                            continue;
                        }
                    },
                };
                return turn.over(answered);
            }
        }
    }

    /// Sends a call on. Gives its turn, its answer to come, and the attempt once more where it may be put back.
    ///
    /// No `async`: what is only needed on the way would take room in every waiting call.
    fn set_out<'a>(
        &'a self,
        ctx: &'a Ctx,
        queue: &Arc<Queue>,
        attempt: Attempt,
        go: Go,
        put_back: u32,
    ) -> (Turn, Serving<'a>, Option<Attempt>) {
        let Go { instance, permit, claim, charge, reason } = go;
        let may_go_back = self.preemption
            && put_back < self.preemptions_max
            && (ctx.facts().priority == Priority::Low || claim.is_some());
        let kept = may_go_back.then(|| attempt.clone());
        let bytes = attempt.call.payload.prompt.len() + attempt.call.payload.tools.len();
        let turn = Turn::new(queue, ctx, Costs { charge, claim, shares: permit.shares(), bytes, reason });
        (turn, self.next.serve(ctx, Placed { attempt, instance, permit }), kept)
    }

    /// The answer, unless the call is put back before anything of it is there.
    async fn unless_put_back(
        &self,
        ctx: &Ctx,
        at: (usize, InstanceId),
        tokens: u64,
        mut serving: Serving<'_>,
    ) -> Option<Result<Reply>> {
        let (class, tenant) = (ctx.facts().priority, &ctx.facts().caller.tenant);
        let mut stop = self.shared.running.enter(at, (class, tenant), tokens, clock::now());
        // When it is put back, the call at the backend ends and its slot is free before its turn is over: `serving` is
        // dropped here.
        tokio::select! {
            biased;
            answered = &mut serving => Some(answered),
            Ok(()) = &mut stop.told => None,
        }
    }

    /// The right to go on: at once, or when its turn has come.
    async fn granted(&self, ctx: &Ctx, queue: &Arc<Queue>, attempt: &Attempt, past: &mut Past) -> Result<Go> {
        let since = clock::now();
        let (answer, mut sighting) = self.ask(ctx, queue, attempt, past, since);
        let refused = match answer {
            Answer::Go(granted) => return Ok(self.go(ctx, &sighting, granted)),
            Answer::Refused(refused) => refused,
            Answer::Wait(mut place) => {
                let left = attempt.deadline.since(clock::now());
                let called = tokio::time::timeout(left, &mut place.called).await;
                sighting.waited = clock::now().since(since);
                ctx.note(Note::Queued(sighting.waited));
                match called {
                    Ok(Ok(Called::Go(granted))) => {
                        return Ok(self.go(ctx, &sighting, *granted));
                    }
                    Ok(Ok(Called::Refused(refused))) => refused,
                    Ok(Err(_)) => return Err(Error::new(Kind::Internal, Origin::Gateway, "The queue was given up.")),
                    Err(_) => {
                        queue.count(&queue.counts.expired, ctx.facts().priority);
                        self.late(ctx, place.tokens)
                    }
                }
            }
        };
        Err(self.refuse(ctx, &sighting, refused, queue))
    }

    /// Asks for a slot; where there is none, the call waits and may put others back.
    fn ask<'a>(
        &self,
        ctx: &Ctx,
        queue: &Arc<Queue>,
        attempt: &'a Attempt,
        past: &mut Past,
        now: Moment,
    ) -> (Answer, Sighting<'a>) {
        let facts = ctx.facts();
        let owner = &facts.caller;
        let again = past.put_back > 0;
        let asking =
            Asking { class: facts.priority, owner, attempt, again, explain: facts.explain, since: facts.asked, now };
        let (answer, estimate) = queue.ask(&asking, &self.fleet, &self.shared.quotas, &mut past.age);
        let mut joined = None;
        if let Answer::Wait(place) = &answer {
            joined = Some(place.ahead);
            ctx.note(Note::Joined(u32::try_from(place.ahead.0).unwrap_or(u32::MAX), place.ahead.1));
            // It may have been let go on while it joined.
            if place.called.is_empty() {
                let (class, tenant) = (facts.priority, owner.tenant.clone());
                let (tokens, tried) = (place.tokens, attempt.tried.clone());
                self.shared.make_way(queue, Some(Wish { class, tenant, tokens, tried }));
            }
        }
        (answer, Sighting { attempt, estimate, since: now, waited: Duration::ZERO, joined, put_back: past.put_back })
    }

    /// What kept a call waiting up to its deadline.
    fn late(&self, ctx: &Ctx, tokens: u64) -> Refused {
        let facts = ctx.facts();
        match self.shared.quotas.would(&facts.caller.tenant, facts.priority, tokens) {
            Some(_) => Refused::QuotaLate,
            None => Refused::Late,
        }
    }

    fn refuse(&self, ctx: &Ctx, sighting: &Sighting<'_>, refused: Refused, queue: &Queue) -> Error {
        self.remember(ctx, sighting, Sight::new(), Some(refusal::word(refused)));
        refusal::error(refused, sighting.waited, queue.retry_after())
    }

    /// Keeps what was seen in mind, and only what was taken at hand.
    fn go(&self, ctx: &Ctx, sighting: &Sighting<'_>, granted: Granted) -> Go {
        let Granted { taken: Taken { instance, permit, claim, seen }, charge } = granted;
        let reason = if charge.is_none() { reason(&seen) } else { None };
        self.remember(ctx, sighting, seen, None);
        Go { instance, permit, claim, charge, reason }
    }

    fn remember(&self, ctx: &Ctx, sighting: &Sighting<'_>, seen: Sight, refused: Option<&'static str>) {
        let (seen, left_out) = foremost(seen);
        let decision = Remembered {
            estimate: (Tokens(sighting.estimate.input), Tokens(sighting.estimate.output)),
            waited: sighting.waited,
            joined: sighting.joined,
            put_back: sighting.put_back,
            seen,
            left_out,
            refused,
            ..Remembered::new(ctx, sighting.since + sighting.waited)
        };
        let deployment = &sighting.attempt.deployment;
        if ctx.facts().explain {
            ctx.note(Note::Decided(Arc::new(decision.told(deployment))));
        }
        self.shared.memory.keep(decision, deployment, !sighting.attempt.tried.is_empty());
    }
}

impl<F: Choose> Serve<Attempt> for Scheduler<F> {
    fn serve<'a>(&'a self, ctx: &'a Ctx, attempt: Attempt) -> Serving<'a> {
        Box::pin(self.place(ctx, attempt))
    }
}

/// Who was taken and the best of the others, and how many are left out.
fn foremost(mut seen: Sight) -> (Sight, u32) {
    if seen.len() <= SEEN_MAX {
        return (seen, 0);
    }
    let taken = |one: &Seen| !matches!(one.verdict, kernel::fleet::Verdict::Taken(_));
    seen.sort_by(|a, b| taken(a).cmp(&taken(b)).then(a.score.total_cmp(&b.score)));
    let left_out = seen.len() - SEEN_MAX;
    seen.truncate(SEEN_MAX);
    seen.shrink_to_fit();
    (seen, u32::try_from(left_out).unwrap_or(u32::MAX))
}

fn unplanned() -> Error {
    Error::new(Kind::Internal, Origin::Gateway, "A call was planned for a deployment that does not exist.")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kernel::fleet::{Ask, Choice, Deployment, Rooms};
    use kernel::{
        Body, Call, Caller, Head, InstanceId, ModelName, Operation, Payload, RequestId, Room, Slots, Version, ctx,
    };

    use super::*;

    /// One instance with some slots; answers when told to.
    struct Fake {
        slots: Slots,
        served: Mutex<Vec<String>>,
        gate: tokio::sync::Semaphore,
    }

    impl Choose for Fake {
        fn choose(&self, _: &Attempt, _: &Ask<'_>, _: &mut dyn FnMut(Seen)) -> Choice {
            self.slots
                .try_take(Room { ceiling: u32::MAX, ..Room::default() })
                .map_or(Choice::Busy, |permit| Choice::Taken(InstanceId(0), permit))
        }

        fn rooms(&self, _: &Attempt) -> Rooms {
            Rooms::default()
        }
    }

    impl Serve<Placed> for Fake {
        fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed) -> Serving<'a> {
            Box::pin(async move {
                self.gate.acquire().await.unwrap().forget();
                self.served.lock().unwrap().push(ctx.facts().id.to_string());
                let head = Head { status: 200, content_type: bytes::Bytes::new(), fields: Vec::new() };
                Ok(Reply::new(head, Body::Whole(bytes::Bytes::new())).holding(placed.permit))
            })
        }
    }

    fn context(id: &str) -> Ctx {
        let caller = Caller::anonymous();
        Ctx::new(ctx::Facts {
            id: RequestId::new(id),
            caller,
            priority: Priority::Normal,
            started: Moment::now(),
            asked: Moment::now(),
            deadline: None,
            explain: false,
            tag: None,
            budgeted: true,
        })
    }

    fn attempt(within: Duration) -> Attempt {
        let deployment = Deployment {
            index: 0,
            model: ModelName::new("m"),
            version: Version::new("v"),
            weight: 1,
            instances: vec![InstanceId(0)],
            names: vec!["i".into()],
            gpus: Vec::new(),
            label: "m@v".into(),
        };
        let payload = Arc::new(Payload {
            bytes: bytes::Bytes::new(),
            model: 0..0,
            prompt: 0..0,
            tools: 0..0,
            force_usage: None,
            blocks: Default::default(),
        });
        let call = Call {
            model: ModelName::new("m"),
            operation: Operation::Chat,
            stream: false,
            wants_usage: true,
            payload,
            affinity: None,
            output_max: None,
            choices: 1,
            forward: Arc::new([]),
            plain: None,
        };
        Attempt { call, deployment: Arc::new(deployment), tried: Vec::new(), deadline: Moment::now() + within }
    }

    fn scheduler(slots: u32, queue_max: u32) -> (Arc<Scheduler<Fake>>, Arc<Fake>) {
        let fake = Arc::new(Fake {
            slots: Slots::new(Some(slots)),
            served: Mutex::default(),
            gate: tokio::sync::Semaphore::new(0),
        });
        let mut roster = Roster::default();
        let model = kernel::fleet::Model {
            name: ModelName::new("m"),
            deployments: vec![attempt(Duration::ZERO).deployment],
            timeout: Duration::MAX,
            attempts_max: 1,
            retry_percent: 0,
            retry_min: 0,
            priority: None,
            middleware: None,
            service: false,
        };
        roster.models.insert(ModelName::new("m"), Arc::new(model));
        let next: Arc<dyn Serve<Placed>> = fake.clone();
        let settings = Settings { queue_max, ..Settings::default() };
        (Arc::new(Scheduler::new(&settings, &State::default(), fake.clone(), &roster, next)), fake)
    }

    fn call(
        scheduler: &Arc<Scheduler<Fake>>,
        id: &'static str,
        within: Duration,
    ) -> tokio::task::JoinHandle<Result<Reply>> {
        let scheduler = Arc::clone(scheduler);
        tokio::spawn(async move { scheduler.serve(&context(id), attempt(within)).await })
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn those_who_wait_are_served_in_the_order_they_came() {
        let (scheduler, fake) = scheduler(1, 10);
        let mut calls = Vec::new();
        for id in ["a", "b", "c", "d"] {
            calls.push(call(&scheduler, id, LONG));
            tokio::task::yield_now().await;
        }
        assert_eq!((fake.slots.busy(), scheduler.queues[0].waiting()), (1, 3));
        fake.gate.add_permits(4);
        for call in calls {
            drop(call.await.unwrap().unwrap());
        }
        assert_eq!(*fake.served.lock().unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(fake.slots.busy(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_with_a_time_to_come_back() {
        let (scheduler, _fake) = scheduler(1, 1);
        let _running = (call(&scheduler, "a", LONG), call(&scheduler, "b", LONG));
        tokio::task::yield_now().await;
        let error = call(&scheduler, "c", LONG).await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.retry_after), (Kind::Unavailable, Some(crate::queue::RETRY_MIN)));
    }

    #[tokio::test]
    async fn a_call_that_waits_past_its_deadline_is_told_how_long_it_waited() {
        let (scheduler, _fake) = scheduler(1, 10);
        let _running = call(&scheduler, "a", LONG);
        tokio::task::yield_now().await;
        let error = call(&scheduler, "b", Duration::from_millis(30)).await.unwrap().unwrap_err();
        assert_eq!(error.kind, Kind::Waited);
        assert!(error.message.contains("waited 3"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_client_that_leaves_leaves_no_ticket_and_no_slot_behind() {
        let (scheduler, fake) = scheduler(1, 10);
        let (running, waiting) = (call(&scheduler, "a", LONG), call(&scheduler, "b", LONG));
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!(scheduler.queues[0].waiting(), 0);
        running.abort();
        assert!(running.await.is_err());
        assert_eq!(fake.slots.busy(), 0);
    }

    #[tokio::test]
    async fn a_cancelled_call_hands_its_slot_to_the_next() {
        let (scheduler, fake) = scheduler(1, 10);
        let (running, waiting) = (call(&scheduler, "a", LONG), call(&scheduler, "b", LONG));
        tokio::task::yield_now().await;
        running.abort();
        assert!(running.await.is_err());
        fake.gate.add_permits(1);
        assert!(waiting.await.unwrap().is_ok());
    }

    /// A grant and a client that leaves may meet at any moment: on two threads, whatever they do to each other, nothing
    /// is left behind.
    #[test]
    fn clients_that_leave_while_they_are_let_go_on_leave_nothing_behind() {
        let (scheduler, fake) = scheduler(1, 1024);
        fake.gate.add_permits(usize::MAX >> 4);
        let threads = [0u64, 1].map(|seed| {
            let scheduler = Arc::clone(&scheduler);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let random = kernel::random::Random::seeded(seed);
                runtime.block_on(async {
                    let until = std::time::Instant::now() + Duration::from_secs(1);
                    while std::time::Instant::now() < until {
                        let context = context("x");
                        let mut calls: Vec<_> = (0..8).map(|_| scheduler.serve(&context, attempt(LONG))).collect();
                        // All of them begin, and any of them leaves at any point.
                        for _ in 0..random.below(20) {
                            let at = random.below(calls.len());
                            let polled = std::future::poll_fn(|cx| {
                                std::task::Poll::Ready(calls.get_mut(at).map(|call| call.as_mut().poll(cx)))
                            });
                            if polled.await.is_none_or(|polled| polled.is_ready()) {
                                drop(calls.swap_remove(at));
                                if calls.is_empty() {
                                    break;
                                }
                            }
                        }
                        drop(calls);
                    }
                });
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let books = scheduler.queues[0].books();
        assert_eq!((fake.slots.busy(), books.len(), books.line().running()), (0, 0, 0));
    }
}
