//! The stage: a call goes in, attempts go on until one is answered.

use std::collections::HashMap;
use std::sync::Arc;

use kernel::error::Kind;
use kernel::fleet::{Deployment, Model, Roster};
use kernel::random::Random;
use kernel::{Attempt, Call, Ctx, Error, InstanceId, ModelName, Moment, Origin, Reply, Result, Retry, Serve, Serving};

use crate::budget::Budget;
use crate::split;

/// Plans calls over the models of one config.
pub struct Orchestrator {
    models: HashMap<ModelName, (Arc<Model>, Arc<Budget>)>,
    next: Arc<dyn Serve<Attempt>>,
    random: Random,
}

impl Orchestrator {
    /// An orchestrator over a roster; `next` takes the attempts.
    pub fn new(roster: &Roster, next: Arc<dyn Serve<Attempt>>) -> Self {
        let models = roster.models.iter().map(|(name, model)| {
            let budget = Budget::new(model.retry_percent, model.retry_min);
            (name.clone(), (Arc::clone(model), budget))
        });
        Self { models: models.collect(), next, random: Random::seeded(Moment::now().as_micros()) }
    }

    async fn plan(&self, ctx: &Ctx, call: Call) -> Result<Reply> {
        let Some((model, budget)) = self.models.get(&call.model) else { return Err(unknown(&call.model)) };
        let active = budget.enter();
        let whole = ctx.facts().started + model.timeout;
        let deadline = ctx.facts().deadline.map_or(whole, |asked| asked.min(whole));
        let mut versions = split::order(&model.deployments, call.affinity, &self.random).into_iter();
        let Some(mut deployment) = versions.next() else { return Err(unknown(&call.model)) };
        let (mut tried, mut last) = (Vec::new(), None);
        let mut attempts = 1;
        let mut retrying = None;
        loop {
            let attempt =
                Attempt { call: call.clone(), deployment: Arc::clone(&deployment), tried: tried.clone(), deadline };
            let error = match self.next.serve(ctx, attempt).await {
                Ok(reply) => return Ok(reply.holding(active)),
                Err(error) => error,
            };
            drop(retrying.take());
            let Some(failed) = error.instance else {
                // Nobody in this version could be asked: that costs no backend anything, so the next one is tried freely.
                // What is too large for this version may fit another.
                let elsewhere = error.kind == Kind::Unavailable || error.cause == "too_large";
                let fallback = elsewhere.then(|| versions.next()).flatten();
                let Some(next) = fallback else { return Err(last.unwrap_or(error)) };
                (deployment, last) = (next, Some(last.unwrap_or(error)));
                continue;
            };
            tried.push(failed);
            if error.retry != Retry::Elsewhere || attempts >= model.attempts_max || deadline <= Moment::now() {
                return Err(error);
            }
            if exhausted(&deployment, &tried) {
                let Some(next) = versions.next() else { return Err(error) };
                deployment = next;
            }
            // A backend that could not be reached, or died over the call, is doing no work for it: trying elsewhere adds
            // no load. Answers that failed did cost work, and repeating them all would double it.
            if !matches!(&*error.cause, "connect" | "connect_timeout" | "broken") {
                retrying = budget.take();
                if retrying.is_none() {
                    return Err(error);
                }
            }
            attempts += 1;
            last = Some(error);
        }
    }
}

impl Serve<Call> for Orchestrator {
    fn serve<'a>(&'a self, ctx: &'a Ctx, call: Call) -> Serving<'a> {
        Box::pin(self.plan(ctx, call))
    }
}

fn exhausted(deployment: &Deployment, tried: &[InstanceId]) -> bool {
    deployment.instances.iter().all(|instance| tried.contains(instance))
}

fn unknown(model: &ModelName) -> Error {
    let message = format!("The model `{model}` does not exist here. GET /v1/models lists the ones that do.");
    let mut error = Error::new(Kind::UnknownModel, Origin::Caller, message);
    error.field = Some("model".into());
    error
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use bytes::Bytes;
    use kernel::{Body, Caller, Head, Operation, Payload, Priority, RequestId, Version, ctx};

    use super::*;

    /// Fails on the instances it is told to, in the way it is told; picks the first untried instance.
    struct Fake {
        failing: Vec<(u32, Error)>,
        asked: Mutex<Vec<u32>>,
    }

    impl Serve<Attempt> for Fake {
        fn serve<'a>(&'a self, _: &'a Ctx, attempt: Attempt) -> Serving<'a> {
            let result = match attempt.deployment.instances.iter().find(|id| !attempt.tried.contains(id)) {
                None => Err(Error::new(Kind::Unavailable, Origin::Gateway, "down")),
                Some(id) => {
                    self.asked.lock().unwrap().push(id.0);
                    match self.failing.iter().find(|(failing, _)| *failing == id.0) {
                        Some((_, error)) => Err(error.clone().at(*id)),
                        None => Ok(Reply::new(
                            Head { status: 200, content_type: Bytes::new(), fields: Vec::new() },
                            Body::Whole(Bytes::new()),
                        )),
                    }
                }
            };
            Box::pin(std::future::ready(result))
        }
    }

    fn broken() -> Error {
        Error::upstream(Kind::BadUpstream, "status_500", "broken")
    }

    async fn run(versions: &[&[u32]], failing: Vec<(u32, Error)>) -> (Result<Reply>, Vec<u32>) {
        let deployment = |(index, instances): (usize, &&[u32])| {
            let instances = instances.iter().map(|id| InstanceId(*id)).collect();
            // Weights fall steeply, so that the first version is the first choice for a fixed lot.
            let weight = 1_000_000 / 10u32.pow(2 * index as u32);
            Arc::new(Deployment {
                index,
                model: ModelName::new("m"),
                version: Version::new(index.to_string()),
                weight,
                instances,
                names: Vec::new(),
                gpus: Vec::new(),
                label: "m".into(),
            })
        };
        let deployments = versions.iter().enumerate().map(deployment).collect();
        let model = Model {
            name: ModelName::new("m"),
            deployments,
            timeout: Duration::from_secs(9),
            attempts_max: 3,
            retry_percent: 20,
            retry_min: 3,
            priority: None,
            middleware: None,
            service: false,
        };
        let roster = Roster { models: [(model.name.clone(), Arc::new(model))].into() };
        let fake = Arc::new(Fake { failing, asked: Mutex::default() });
        let orchestrator = Orchestrator::new(&roster, fake.clone());
        let facts = ctx::Facts {
            id: RequestId::new("r"),
            caller: Caller::anonymous(),
            priority: Priority::Normal,
            started: Moment::now(),
            asked: Moment::now(),
            deadline: None,
            explain: false,
            tag: None,
            budgeted: true,
        };
        let payload = Arc::new(Payload {
            bytes: Bytes::new(),
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
            affinity: Some(0),
            output_max: None,
            choices: 1,
            forward: Arc::new([]),
            plain: None,
        };
        let result = orchestrator.serve(&Ctx::new(facts), call).await;
        let asked = fake.asked.lock().unwrap().clone();
        (result, asked)
    }

    #[tokio::test]
    async fn a_failure_is_tried_on_another_instance() {
        let (result, asked) = run(&[&[0, 1]], vec![(0, broken())]).await;
        assert!(result.is_ok());
        assert_eq!(asked, [0, 1]);
    }

    #[tokio::test]
    async fn no_more_is_tried_than_allowed_and_nobody_twice() {
        let all = (0..5).map(|id| (id, broken())).collect();
        let (result, asked) = run(&[&[0, 1, 2, 3, 4]], all).await;
        assert_eq!(result.unwrap_err().kind, Kind::BadUpstream);
        assert_eq!(asked, [0, 1, 2]);
    }

    #[tokio::test]
    async fn what_is_the_clients_fault_is_tried_once() {
        let (result, asked) = run(&[&[0, 1]], vec![(0, broken().final_())]).await;
        assert!(result.is_err());
        assert_eq!(asked, [0]);
    }

    #[tokio::test]
    async fn another_version_stands_in_when_one_has_nobody_left() {
        let (result, asked) = run(&[&[0], &[1]], vec![(0, broken())]).await;
        assert!(result.is_ok());
        assert_eq!(asked, [0, 1]);
        let (result, asked) = run(&[&[], &[1]], vec![]).await;
        assert!(result.is_ok());
        assert_eq!(asked, [1]);
    }
}
