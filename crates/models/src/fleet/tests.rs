//! Limits that are found out, over reloads and on the wire.

use std::time::Duration;

use kernel::sight::Gauges;

use super::*;
use crate::adaptive::Awaited;
use crate::settings::AdaptiveSettings;

fn fleet(state: &State, adaptive: Option<AdaptiveSettings>, max_concurrency: Option<u32>) -> Fleet {
    let mut model = ModelSettings::short("m", Some("http://127.0.0.1:1".into()), "openai");
    (model.adaptive, model.max_concurrency) = (adaptive, max_concurrency);
    Fleet::new(&[model], &[], state)
}

fn slots(fleet: &Fleet) -> Option<f64> {
    let mut found = None;
    fleet.show(&mut |sample| {
        if sample.name == "sluice_instance_slots" {
            found = Some(sample.value);
        }
    });
    found
}

#[test]
fn a_limit_found_out_survives_reloads_and_is_forgotten_when_one_is_given() {
    let (state, rules) = (State::default(), AdaptiveSettings::default());
    let first = fleet(&state, Some(rules.clone()), None);
    assert_eq!(slots(&first), Some(16.0));
    first.instances[0].failed("status_503", None);
    assert_eq!(slots(&first), Some(12.0));
    let second = fleet(&state, Some(AdaptiveSettings { initial: 100, ..rules.clone() }), None);
    assert_eq!(slots(&second), Some(12.0));
    let third = fleet(&state, Some(AdaptiveSettings { min: 14, ..rules.clone() }), None);
    assert_eq!(slots(&third), Some(14.0), "new bounds hold at once");
    let given = fleet(&state, None, Some(3));
    // A call of an older config ends.
    second.instances[0].succeeded(Awaited::FirstPiece, Duration::from_millis(5), Moment::now());
    assert_eq!(slots(&given), Some(3.0));
    assert_eq!(slots(&fleet(&state, None, None)), None);
    assert_eq!(slots(&fleet(&state, Some(rules), None)), Some(16.0));
}

#[tokio::test]
async fn a_429_on_the_wire_lowers_the_limit() {
    let mut model = ModelSettings::short("m", None, "sim");
    model.adaptive = Some(AdaptiveSettings::default());
    model.sim = Some(sim::Settings { models: Vec::new(), rate_limit_rate: 1.0, ..sim::Settings::default() });
    let fleet = Fleet::new(&[model], &[], &State::default());
    let body = bytes::Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#);
    let envelope =
        wire::openai::request::Envelope { operation: kernel::Operation::Chat, session: None, forward: Arc::new([]) };
    let call = wire::openai::request::read(body, envelope).unwrap();
    let deployment = Arc::clone(&fleet.roster.models[&call.model].deployments[0]);
    let deadline = Moment::now() + Duration::from_secs(10);
    let attempt = Attempt { call, deployment, tried: Vec::new(), deadline };
    let facts = kernel::ctx::Facts {
        id: kernel::RequestId::new("r"),
        caller: kernel::Caller::anonymous(),
        priority: kernel::Priority::Normal,
        started: Moment::now(),
        asked: Moment::now(),
        deadline: None,
        explain: false,
        tag: None,
        budgeted: true,
    };
    let ctx = Ctx::new(facts);
    let tenant = kernel::TenantId::new("t");
    let ask = Ask { tenant: &tenant, tokens: kernel::Tokens(0), insists: false, below: None };
    let Choice::Taken(instance, permit) = fleet.choose(&attempt, &ask, &mut |_| {}) else { panic!("it is idle") };
    assert!(fleet.serve(&ctx, Placed { attempt, instance, permit }).await.is_err());
    assert_eq!(slots(&fleet), Some(12.0));
}

#[test]
fn quick_answers_under_full_use_let_more_calls_in() {
    let fleet = fleet(&State::default(), Some(AdaptiveSettings::default()), None);
    let instance = &fleet.instances[0];
    let (mut now, mut permits) = (Moment::from_micros(1_000_000_000), Vec::new());
    for _ in 0..400 {
        let room = kernel::Room { ceiling: u32::MAX, ..kernel::Room::default() };
        permits.extend(std::iter::from_fn(|| instance.vitals.slots.try_take(room)));
        now = now + Duration::from_millis(100);
        instance.succeeded(Awaited::FirstPiece, Duration::from_millis(50), now);
    }
    assert!(slots(&fleet).unwrap() > 30.0, "{:?}", slots(&fleet));
}
