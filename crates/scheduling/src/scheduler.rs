//! The stage: an attempt goes in, a placed call goes on.

use std::sync::Arc;
use std::time::Duration;

use kernel::error::Kind;
use kernel::fleet::{Choice, Choose, Roster};
use kernel::settings::Findings;
use kernel::sight::{Gauges, Sample};
use kernel::{Attempt, Ctx, Error, InstanceId, Moment, Note, Origin, Permit, Placed, Reply, Result, Serve, Serving};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::queue::{Called, Queue, State};

/// What a client is told to wait when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The `scheduling:` section.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Calls that may wait for a free slot, per model version; one more is refused with 503.
    pub queue_max: u32,
}

/// Puts attempts on instances, one slot each.
pub struct Scheduler<F> {
    fleet: Arc<F>,
    next: Arc<dyn Serve<Placed>>,
    /// By the deployment's index in the roster.
    queues: Vec<(Arc<str>, Arc<Queue>)>,
    queue_max: usize,
}

/// Passes a slot on when it is given back. Declared and dropped after the permit it belongs to.
struct Turn(Arc<Queue>);

impl Default for Settings {
    fn default() -> Self {
        Self { queue_max: 1024 }
    }
}

impl Settings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        findings.require(self.queue_max <= 1_000_000, format!("{path}.queue_max"), "must be at most 1000000");
    }
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
        let mut deployments: Vec<_> = roster.models.values().flat_map(|model| &model.deployments).collect();
        deployments.sort_by_key(|deployment| deployment.index);
        let queues: Vec<_> = deployments.iter().map(|d| (Arc::clone(&d.label), state.queue(d))).collect();
        state.retain(|label| queues.iter().any(|(known, _)| &**known == label));
        Self { fleet, next, queues, queue_max: settings.queue_max as usize }
    }

    async fn place(&self, ctx: &Ctx, attempt: Attempt) -> Result<Reply> {
        let Some((_, queue)) = self.queues.get(attempt.deployment.index) else {
            return Err(Error::new(
                Kind::Internal,
                Origin::Gateway,
                "A call was planned for a deployment that does not exist.",
            ));
        };
        let (instance, permit) = self.slot(ctx, queue, &attempt).await?;
        // Declared before the call goes on, so that it is dropped after everything that holds the permit.
        let turn = Turn(Arc::clone(queue));
        let reply = self.next.serve(ctx, Placed { attempt, instance, permit }).await?;
        Ok(reply.holding(turn))
    }

    /// A free slot at once, or the first that comes free.
    async fn slot(&self, ctx: &Ctx, queue: &Arc<Queue>, attempt: &Attempt) -> Result<(InstanceId, Permit)> {
        // Whoever comes while others wait waits behind them.
        if queue.waiting() == 0 {
            match self.fleet.choose(attempt) {
                Choice::Taken(instance, permit) => return Ok((instance, permit)),
                Choice::Down(after) => return Err(down(after)),
                Choice::Busy => {}
            }
        }
        let since = Moment::now();
        let mut place =
            queue.join(self.fleet.clone(), attempt.clone(), self.queue_max).ok_or_else(|| full(self.queue_max))?;
        // A slot may have come free between the look and the joining.
        queue.pump();
        let called = tokio::time::timeout(attempt.deadline.remaining(), &mut place.called).await;
        let waited = Moment::now().since(since);
        ctx.note(Note::Queued(waited));
        match called {
            Ok(Ok(Called::Slot(instance, permit))) => Ok((instance, permit)),
            Ok(Ok(Called::Down(after))) => Err(down(after)),
            Ok(Err(_)) => Err(Error::new(Kind::Internal, Origin::Gateway, "The queue was given up.")),
            Err(_) => Err(too_late(waited)),
        }
    }
}

impl<F: Choose> Serve<Attempt> for Scheduler<F> {
    fn serve<'a>(&'a self, ctx: &'a Ctx, attempt: Attempt) -> Serving<'a> {
        Box::pin(self.place(ctx, attempt))
    }
}

impl<F: Choose> Gauges for Scheduler<F> {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        for (label, queue) in &self.queues {
            let (model, version) = label.rsplit_once('@').unwrap_or((label, ""));
            let labels = vec![("model", model.to_owned()), ("version", version.to_owned())];
            to(Sample {
                name: "sluice_queue_waiting",
                help: "Calls waiting for a free slot.",
                counter: false,
                labels,
                value: queue.waiting() as f64,
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pump();
    }
}

fn down(after: Option<Duration>) -> Error {
    let error = Error::new(Kind::Unavailable, Origin::Gateway, "No instance of this model can be reached right now.");
    error.after(after.unwrap_or(RETRY_AFTER))
}

fn full(max: usize) -> Error {
    let message = format!("All slots of this model are busy and its queue is full ({max} calls wait).");
    Error::new(Kind::Unavailable, Origin::Gateway, message).after(RETRY_AFTER)
}

fn too_late(waited: Duration) -> Error {
    let message =
        format!("All slots of this model were busy: the call waited {} ms, up to its deadline.", waited.as_millis());
    Error::new(Kind::Waited, Origin::Gateway, message).after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kernel::fleet::Deployment;
    use kernel::{Body, Call, Caller, Head, ModelName, Operation, Payload, Priority, RequestId, Slots, Version, ctx};

    use super::*;

    /// One instance with some slots; answers when told to.
    struct Fake {
        slots: Slots,
        served: Mutex<Vec<String>>,
        gate: tokio::sync::Semaphore,
    }

    impl Choose for Fake {
        fn choose(&self, _: &Attempt) -> Choice {
            self.slots.try_take(u32::MAX).map_or(Choice::Busy, |permit| Choice::Taken(InstanceId(0), permit))
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
            deadline: None,
        })
    }

    fn attempt(within: Duration) -> Attempt {
        let deployment = Deployment {
            index: 0,
            model: ModelName::new("m"),
            version: Version::new("v"),
            weight: 1,
            instances: vec![InstanceId(0)],
            label: "m@v".into(),
        };
        let payload = Arc::new(Payload { bytes: bytes::Bytes::new(), model: 0..0, force_usage: None });
        let call = Call {
            model: ModelName::new("m"),
            operation: Operation::Chat,
            stream: false,
            wants_usage: true,
            payload,
            affinity: None,
            forward: Arc::new([]),
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
        };
        roster.models.insert(ModelName::new("m"), Arc::new(model));
        let next: Arc<dyn Serve<Placed>> = fake.clone();
        (Arc::new(Scheduler::new(&Settings { queue_max }, &State::default(), fake.clone(), &roster, next)), fake)
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
        assert_eq!((fake.slots.busy(), scheduler.queues[0].1.waiting()), (1, 3));
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
        assert_eq!((error.kind, error.retry_after), (Kind::Unavailable, Some(RETRY_AFTER)));
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
        assert_eq!(scheduler.queues[0].1.waiting(), 0);
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
}
