//! Tenants who try to get more than their share, against one who just asks.
//!
//! Both have always something waiting; what the backend does for each while that is so is compared. Nobody may get more
//! than 2 % beyond the half that honest asking brings.

use std::time::Duration;

use kernel::Priority;
use kernel::random::Random;

use super::plan::{Call, Machine, Scene};
use super::world::{self, READ, WRITE};
use crate::queue::cost_of;
use crate::settings::Settings;

const HONEST: usize = 0;
const ADVERSARY: usize = 1;

/// An honest call of a usual size.
fn usual(tenant: usize, at: Duration, random: &Random) -> Call {
    Call {
        at,
        deployment: 0,
        tenant,
        key: 0,
        class: Priority::Normal,
        input: 200 + random.below(400) as u64,
        cached: 0,
        output: 50 + random.below(200) as u64,
        output_max: None,
        stream: random.below(2) == 0,
        patience: None,
        takes: None,
        deadline: Duration::from_secs(100_000),
    }
}

/// The share of the work that the adversary got while both had something waiting.
fn share(adversary: impl Fn(u64, &Random) -> Call) -> f64 {
    share_of(|random| usual(HONEST, Duration::ZERO, random), adversary, 1_000)
}

fn share_of(honest: impl Fn(&Random) -> Call, adversary: impl Fn(u64, &Random) -> Call, count: u64) -> f64 {
    let random = Random::seeded(7);
    let mut calls: Vec<Call> = (0..count).map(|_| honest(&random)).collect();
    calls.extend((0..count).map(|number| adversary(number, &random)));
    let scene = Scene {
        settings: Settings { queue_max: 10_000, shedding: false, ..Settings::default() },
        deployments: vec![vec![Machine { slots: 2, room: None, node: None }; 2]],
        nodes: Vec::new(),
        calls,
        faults: Vec::new(),
        plain: true,
    };
    let history = world::play(&scene);
    assert_eq!(history.wrong, [] as [String; 0]);
    let mut sides = [Vec::new(), Vec::new()];
    for record in history.calls.iter().filter(|record| !record.starts.is_empty()) {
        sides[scene.calls[record.call].tenant].push(record);
    }
    let last = |side: &[&world::Record]| side.iter().map(|record| record.starts[0].0).max().unwrap();
    let first = |side: &[&world::Record]| side.iter().map(|record| record.came).min().unwrap();
    let from = sides.iter().map(|side| first(side)).max().unwrap();
    let to = sides.iter().map(|side| last(side)).min().unwrap();
    let work = |record: &&world::Record| {
        let call = &scene.calls[record.call];
        // What the backend read and wrote for it, whether anybody took it or not.
        let had = record.ended.unwrap().since(record.starts[0].0);
        let reading = READ * (call.input - call.cached) as u32;
        let written = had.saturating_sub(reading).as_micros() / WRITE.as_micros();
        let output = call.output.min(u64::try_from(written).unwrap());
        cost_of(&scene.settings.token_weights, call.input - call.cached, call.cached, output)
    };
    let [honest, adversary] = sides.map(|side| {
        let within = side.iter().filter(|record| (from..=to).contains(&record.starts[0].0));
        within.map(work).sum::<u64>() as f64
    });
    adversary / (adversary + honest)
}

fn gains_nothing(adversary: impl Fn(u64, &Random) -> Call) {
    let honest = share(|_, random| usual(ADVERSARY, Duration::ZERO, random));
    let share = share(adversary);
    assert!((0.49..0.51).contains(&honest), "who asks like the other gets {honest}");
    assert!(share <= 0.5 * 1.02, "it got {share} of the work");
}

#[test]
fn being_idle_first_and_bursting_then_gains_nothing() {
    gains_nothing(|_, random| usual(ADVERSARY, Duration::from_secs(15), random));
}

#[test]
fn many_keys_gain_nothing() {
    gains_nothing(|number, random| Call { key: number as usize, ..usual(ADVERSARY, Duration::ZERO, random) });
}

#[test]
fn asking_for_far_more_or_fewer_tokens_than_needed_gains_nothing() {
    gains_nothing(|_, random| Call { output_max: Some(1_000_000), ..usual(ADVERSARY, Duration::ZERO, random) });
    gains_nothing(|number, random| {
        let call = usual(ADVERSARY, Duration::ZERO, random);
        Call { output_max: (number % 2 == 0).then_some(call.output), ..call }
    });
}

#[test]
fn leaving_early_and_asking_again_gains_nothing() {
    for millis in [1, 20, 60] {
        gains_nothing(|_, random| Call {
            takes: Some(Duration::from_millis(millis)),
            ..usual(ADVERSARY, Duration::ZERO, random)
        });
    }
    // Leaves the line and comes back, again and again.
    gains_nothing(|number, random| {
        let call = usual(ADVERSARY, Duration::from_millis(40 * (number / 4)), random);
        Call { patience: (number % 4 != 0).then_some(Duration::from_millis(39)), ..call }
    });
}

#[test]
fn prompts_that_others_have_paid_for_gain_nothing() {
    gains_nothing(|_, random| {
        let call = usual(ADVERSARY, Duration::ZERO, random);
        Call { cached: call.input * 9 / 10, ..call }
    });
}

#[test]
fn estimates_that_are_far_too_high_keep_no_newcomer_back() {
    // What one asks for and gets is short; the first estimate is more than ten times that.
    let short = |tenant, at, random: &Random| Call { output: 20, input: 20, ..usual(tenant, at, random) };
    let share = share_of(
        |random| short(HONEST, Duration::ZERO, random),
        |_, random| short(ADVERSARY, Duration::from_millis(200), random),
        400,
    );
    assert!((0.47..0.53).contains(&share), "who came a little later got {share} of the work");
}

#[test]
fn teaching_the_estimator_long_answers_and_asking_for_short_ones_gains_nothing() {
    gains_nothing(|number, random| {
        let output = if number % 20 < 5 { 400 } else { 1 };
        Call { output, ..usual(ADVERSARY, Duration::ZERO, random) }
    });
}

#[test]
fn teaching_the_estimator_short_answers_and_asking_for_long_ones_gains_nothing() {
    gains_nothing(|number, random| {
        let output = if number % 20 < 15 { 1 } else { 400 };
        Call { output, ..usual(ADVERSARY, Duration::ZERO, random) }
    });
}
