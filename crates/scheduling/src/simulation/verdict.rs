//! What must never have happened.

use std::collections::BTreeMap;

use kernel::{Moment, Priority};

use super::plan::{INPUT_MAX, OUTPUT_MAX, Scene};
use super::world::{History, Record};
use crate::line::AGED_EVERY;
use crate::queue::cost_of;

/// Looks a history over.
pub(super) fn judge(scene: &Scene, history: &History) -> Result<(), String> {
    if let Some(wrong) = history.wrong.first() {
        return Err(wrong.clone());
    }
    if let Some(call) = history.calls.iter().find(|call| call.ended.is_none() || call.outcome == "internal") {
        return Err(format!("a call did not end as it should: {call:?}"));
    }
    keys_are_served_in_order(scene, history)?;
    if scene.plain {
        if let Some(call) = history.calls.iter().find(|call| call.outcome != "answered") {
            return Err(format!("nothing was in its way, but it was not answered: {call:?}"));
        }
        nobody_waits_beside_a_free_slot(scene, history)?;
        classes_go_first(scene, history)?;
        classes_age(scene, history)?;
        tenants_are_served_alike(scene, history)?;
    }
    Ok(())
}

/// No inversion within a class: of two calls of one key, the earlier starts no later.
fn keys_are_served_in_order(scene: &Scene, history: &History) -> Result<(), String> {
    // Full lines put calls out, which may come back; then nothing is said about order.
    let mut lines: BTreeMap<_, Vec<&Record>> = BTreeMap::new();
    for record in history.calls.iter().filter(|record| !record.disturbed) {
        let plan = &scene.calls[record.call];
        lines.entry((plan.deployment, plan.class, plan.tenant, plan.key)).or_default().push(record);
    }
    for line in lines.values() {
        for (at, later) in line.iter().enumerate() {
            let overtaken =
                line[..at].iter().find(|earlier| earlier.came < later.came && earlier.starts[0].0 > later.starts[0].0);
            if let Some(earlier) = overtaken {
                // Two configs at once: the tickets of each are let go on by its own fleet.
                // Where caches have bounds, small calls go where a larger one could not.
                let bounded =
                    scene.deployments[scene.calls[later.call].deployment].iter().any(|one| one.room.is_some());
                let reloaded =
                    scene.faults.iter().any(|fault| matches!(fault.kind, super::plan::FaultKind::Reload { .. }));
                if !reloaded && !bounded {
                    return Err(format!("{later:?} overtook {earlier:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Work is conserved: no time passes in which somebody waits and a slot is free.
fn nobody_waits_beside_a_free_slot(scene: &Scene, history: &History) -> Result<(), String> {
    let slots: i64 = scene.deployments[0].iter().map(|machine| i64::from(machine.slots)).sum();
    let mut events = Vec::new();
    for call in &history.calls {
        let (started, ended) = (call.starts[0].0, call.ended.unwrap_or(call.came));
        events.extend([(call.came, 1, 0), (started, -1, 1), (ended, 0, -1)]);
    }
    events.sort_unstable_by_key(|event| event.0);
    let (mut waiting, mut running) = (0i64, 0i64);
    for (at, event) in events.iter().enumerate() {
        (waiting, running) = (waiting + event.1, running + event.2);
        let passes = events.get(at + 1).is_some_and(|next| next.0 > event.0);
        if passes && waiting > 0 && running < slots {
            return Err(format!("from {:?} {waiting} waited beside {} free slots", event.0, slots - running));
        }
    }
    Ok(())
}

/// Placements in their order: when, of which class, which call.
fn placements<'a>(scene: &Scene, history: &'a History) -> Vec<(Moment, Priority, &'a Record)> {
    let mut all: Vec<_> = history.calls.iter().collect();
    all.sort_by_key(|record| record.starts[0].2);
    all.into_iter().map(|record| (record.starts[0].0, scene.calls[record.call].class, record)).collect()
}

/// No inversion between classes: a call that starts while a higher one waits belongs to a class that has aged.
fn classes_go_first(scene: &Scene, history: &History) -> Result<(), String> {
    let aging = scene.settings.aging_ms.duration();
    let placements = placements(scene, history);
    for (at, class, record) in &placements {
        let waits = |call: &Record| call.came < *at && call.starts[0].0 > *at;
        let higher = history.calls.iter().find(|call| scene.calls[call.call].class > *class && waits(call));
        let aged = history
            .calls
            .iter()
            .any(|call| scene.calls[call.call].class == *class && call.came + aging <= *at && call.starts[0].0 >= *at);
        if let Some(higher) = higher.filter(|_| !aged) {
            return Err(format!("{record:?} went before {higher:?}, though its class {class:?} has not aged"));
        }
    }
    Ok(())
}

/// While a class has somebody waiting for as long as `aging_ms`, it gets a turn in every so many.
fn classes_age(scene: &Scene, history: &History) -> Result<(), String> {
    let aging = scene.settings.aging_ms.duration();
    let placements = placements(scene, history);
    for class in [Priority::Normal, Priority::Low] {
        let mut others = 0;
        for (at, other, record) in &placements {
            let waits = |call: &Record| {
                let plan = &scene.calls[call.call];
                plan.class == class && call.came + aging <= *at && call.starts[0].0 > *at
            };
            if *other == class {
                others = 0;
            } else if *other > class && history.calls.iter().any(waits) {
                others += 1;
                // Two lower classes share the turns of the aged; and what happens at one moment has no order.
                if others > 2 * AGED_EVERY + 4 {
                    return Err(format!("{} turns went past the class {class:?} up to {record:?}", others));
                }
            } else {
                others = 0;
            }
        }
    }
    Ok(())
}

/// Between two tenants who both wait all the time, service differs by no more than the bound of Sheng et al.:
/// 2·max(w_p·L_in, w_q·M), M being the tokens, prompts and answers, that can be under way at once.
fn tenants_are_served_alike(scene: &Scene, history: &History) -> Result<(), String> {
    let weights = scene.settings.token_weights;
    let slots: u32 = scene.deployments[0].iter().map(|machine| machine.slots).sum();
    let under_way = u64::from(slots) * (INPUT_MAX + OUTPUT_MAX);
    let bound = 2 * cost_of(&weights, INPUT_MAX, 0, 0).max(cost_of(&weights, 0, 0, under_way));
    let tenants = 1 + scene.calls.iter().map(|call| call.tenant).max().unwrap_or(0);
    for class in Priority::ALL {
        for one in 0..tenants {
            for other in 0..one {
                let gap = greatest_gap(scene, history, class, (one, other));
                if gap > bound {
                    return Err(format!(
                        "tenants {one} and {other} of {class:?} drifted apart by {gap}, more than {bound}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The greatest difference in service over any stretch of time in which both tenants waited throughout.
fn greatest_gap(scene: &Scene, history: &History, class: Priority, (one, other): (usize, usize)) -> u64 {
    let of = |tenant: usize| {
        move |record: &&Record| {
            let plan = &scene.calls[record.call];
            plan.class == class && plan.tenant == tenant
        }
    };
    let waits = |tenant: usize, from: Moment, to: Moment| {
        // Whether its waiting calls cover all the time between.
        let mut spans: Vec<_> = history.calls.iter().filter(of(tenant)).map(|r| (r.came, r.starts[0].0)).collect();
        spans.sort_unstable();
        let mut covered = from;
        for (came, started) in spans {
            if came < covered || (came == from && covered == from) {
                covered = covered.max(started);
            }
        }
        covered > to
    };
    let service = |record: &Record| {
        let plan = &scene.calls[record.call];
        cost_of(&scene.settings.token_weights, plan.input - plan.cached, plan.cached, plan.output) as i64
    };
    let mut starts: Vec<_> = history
        .calls
        .iter()
        .filter(|r| of(one)(r) || of(other)(r))
        .map(|r| (r.starts[0].0, r.starts[0].2, r))
        .collect();
    starts.sort_by_key(|(at, number, _)| (*at, *number));
    let (mut gap, mut least, mut most, mut greatest) = (0i64, 0i64, 0i64, 0i64);
    let mut last: Option<Moment> = None;
    for (at, _, record) in starts {
        let unbroken = last.is_some_and(|last| waits(one, last, at) && waits(other, last, at));
        if !unbroken {
            (gap, least, most) = (0, 0, 0);
        }
        last = Some(at);
        // The start that ends somebody's waiting is not part of the stretch.
        if !(waits(one, at, at) && waits(other, at, at)) {
            last = None;
            continue;
        }
        gap += if scene.calls[record.call].tenant == one { service(record) } else { -service(record) };
        (least, most) = (least.min(gap), most.max(gap));
        greatest = greatest.max(most - least);
    }
    greatest as u64
}
