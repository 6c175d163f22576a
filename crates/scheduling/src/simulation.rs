//! The whole stage under random load and faults, on a virtual clock: the same seed gives the same history.
//!
//! A seed makes a [`Scene`](plan::Scene): machines, tenants, quotas, calls, aborts, deaths, reloads. The [`world`] plays
//! it through the real scheduler with simulated backends, and [`verdict`] looks for what must never happen.
//!
//! `SLUICE_SEED=7 cargo test -p scheduling simulation` plays one seed again and prints what happened;
//! `SLUICE_SEEDS=1000000` plays so many in each of the four parts.

mod adversaries;
mod plan;
mod verdict;
mod world;

use plan::Scene;

/// Seeds played by each part; four parts share the cores.
const SEEDS: u64 = 2_500;

fn play(part: u64) {
    if let Some(seed) = number("SLUICE_SEED") {
        let scene = Scene::random(seed);
        println!("{scene:#?}");
        let history = world::play(&scene);
        history.calls.iter().for_each(|call| println!("{call:?}"));
        verdict::judge(&scene, &history).unwrap();
        return;
    }
    let seeds = number("SLUICE_SEEDS").unwrap_or(SEEDS);
    for seed in part * seeds..(part + 1) * seeds {
        let scene = Scene::random(seed);
        let history = std::panic::catch_unwind(|| world::play(&scene));
        let history = history.unwrap_or_else(|_| panic!("seed {seed} broke down: play it with SLUICE_SEED={seed}"));
        if let Err(wrong) = verdict::judge(&scene, &history) {
            panic!("seed {seed}: {wrong}: play it with SLUICE_SEED={seed}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how a developer asks for a seed; nothing of it is in the product")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nothing_that_must_not_happen_happens_in_any_history_first_part() {
    play(0);
}

#[test]
fn nothing_that_must_not_happen_happens_in_any_history_second_part() {
    play(1);
}

#[test]
fn nothing_that_must_not_happen_happens_in_any_history_third_part() {
    play(2);
}

#[test]
fn nothing_that_must_not_happen_happens_in_any_history_fourth_part() {
    play(3);
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in [1, 77, 4_242] {
        let scene = Scene::random(seed);
        assert_eq!(world::play(&scene).calls, world::play(&scene).calls, "seed {seed}");
    }
}
