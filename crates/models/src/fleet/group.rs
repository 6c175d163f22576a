//! The instances of one deployment, and the step that chooses one of them.

use std::sync::Arc;

use kernel::fleet::{Ask, Choice, Rooms, Seen, Verdict};
use kernel::node::{Lack, Need};
use kernel::{Attempt, InstanceId, Moment, Permit, Room, TenantId, Tokens};
use smallvec::SmallVec;

use crate::balance::{Balance, Candidate, Wanted};
use crate::health::Standing;
use crate::instance::Instance;
use crate::prompt;

/// One version of a model, as calls are placed on it.
pub(super) struct Group {
    /// Tells it from other deployments; stable over reloads.
    pub(super) label: u64,
    pub(super) members: Vec<(InstanceId, Arc<Instance>)>,
    pub(super) balance: Arc<dyn Balance>,
    pub(super) panic_percent: u32,
}

/// Room for the usual number of instances without an allocation.
type Few<T> = SmallVec<[T; 8]>;

impl Group {
    /// Usable instances first; all of them when too few are usable; among those with room for the call, whom the
    /// balance picks.
    pub(super) fn choose(
        &self,
        attempt: &Attempt,
        ask: &Ask<'_>,
        now: Moment,
        witness: &mut dyn FnMut(Seen),
    ) -> Choice {
        let looks: Few<(Standing, f64)> = self.members.iter().map(|(_, instance)| instance.look(now)).collect();
        let usable = looks.iter().filter(|(standing, _)| *standing == Standing::Usable).count();
        let panic = usable * 100 < self.panic_percent as usize * self.members.len();
        let mut open = 0usize;
        let mut candidates: Few<(Candidate, u32)> = Few::new();
        for (index, ((standing, ramp), (id, instance))) in looks.into_iter().zip(&self.members).enumerate() {
            let verdict = if attempt.tried.contains(id) {
                Verdict::Tried
            } else if standing == Standing::Usable || (panic && standing.is_doubt()) {
                open += 1;
                match self.room(instance, ramp, ask, now) {
                    Ok(ceiling) => {
                        candidates.push((candidate(index, instance, ramp, now), ceiling));
                        continue;
                    }
                    Err(verdict) => verdict,
                }
            } else {
                Verdict::Down(standing.as_str())
            };
            witness(seen(index, instance, None, verdict));
        }
        if open == 0 {
            let back = self.members.iter().map(|(_, one)| one.vitals.health.back_in(&one.rules, now)).min();
            return Choice::Down(back.filter(|back| !back.is_zero()));
        }
        match self.take(candidates, attempt, ask, now, witness) {
            Some((id, permit)) => Choice::Taken(id, permit),
            None => match self.rooms(attempt).largest.filter(|largest| *largest < ask.tokens) {
                Some(largest) => Choice::TooLarge(largest),
                None => {
                    if ask.insists {
                        self.promise(attempt, now);
                    }
                    Choice::Busy
                }
            },
        }
    }

    /// How much room for tokens the instances have that have not failed the call.
    pub(super) fn rooms(&self, attempt: &Attempt) -> Rooms {
        let untried = || self.members.iter().filter(|(id, _)| !attempt.tried.contains(id));
        let rooms = || untried().map(|(_, instance)| instance.vitals.slots.room().map(Tokens));
        Rooms { smallest: rooms().flatten().min(), largest: rooms().reduce(|a, b| Some(a?.max(b?))).flatten() }
    }

    /// Hashes the prompt if that is wanted.
    pub(super) fn prepare(&self, attempt: &Attempt, tenant: &TenantId) {
        if self.balance.reads_prompts() {
            prompt::blocks(&attempt.call.payload, tenant);
        }
    }

    /// Has one node kept free for a call that has waited long: the one that is kept already, else the first that can be.
    fn promise(&self, attempt: &Attempt, now: Moment) {
        let nodes = || {
            let untried = self.members.iter().filter(|(id, _)| !attempt.tried.contains(id));
            untried.filter_map(|(_, instance)| instance.node.as_ref())
        };
        let kept = nodes().find(|node| node.is_promised(self.label, now));
        match kept {
            Some(node) => drop(node.promise(self.label, now)),
            None => drop(nodes().find(|node| node.promise(self.label, now))),
        }
    }

    /// Takes a slot of whom the balance picks; of the next best where somebody else was faster.
    fn take(
        &self,
        mut candidates: Few<(Candidate, u32)>,
        attempt: &Attempt,
        ask: &Ask<'_>,
        now: Moment,
        witness: &mut dyn FnMut(Seen),
    ) -> Option<(InstanceId, Permit)> {
        if candidates.is_empty() {
            return None;
        }
        let reads = self.balance.reads_prompts();
        let blocks = if reads { prompt::blocks(&attempt.call.payload, ask.tenant) } else { &[] };
        let wanted = Wanted { affinity: attempt.call.affinity, tokens: ask.tokens, blocks };
        let mut shown: Few<Candidate> = candidates.iter().map(|(candidate, _)| *candidate).collect();
        while !shown.is_empty() {
            let pick = self.balance.pick(&mut shown, &wanted, now);
            let position = if pick.position < shown.len() { pick.position } else { 0 };
            let chosen = shown.remove(position);
            let (_, ceiling) = candidates.remove(position);
            let (id, instance) = self.members.get(chosen.index)?;
            let room = Room { ceiling, tokens: ask.tokens.0, unread: pick.unread.0 };
            match self.occupy(instance, room, now) {
                Ok(permit) => {
                    instance.vitals.health.chosen(&instance.rules, now);
                    self.balance.placed(chosen.identity, &wanted, now);
                    if ask.insists {
                        let nodes = self.members.iter().filter_map(|(_, instance)| instance.node.as_ref());
                        nodes.for_each(|node| node.release(self.label));
                    }
                    witness(seen(chosen.index, instance, Some(&chosen), Verdict::Taken(pick.reason)));
                    for other in &shown {
                        if let Some((_, instance)) = self.members.get(other.index) {
                            witness(seen(other.index, instance, Some(other), Verdict::Passed));
                        }
                    }
                    return Some((*id, permit));
                }
                // Somebody else was faster: choose among the others.
                Err(verdict) => witness(seen(chosen.index, instance, Some(&chosen), verdict)),
            }
        }
        None
    }

    /// How many slots the instance may use, if it has room for the call.
    fn room(&self, instance: &Instance, ramp: f64, ask: &Ask<'_>, now: Moment) -> Result<u32, Verdict> {
        let slots = &instance.vitals.slots;
        let limit = slots.limit().unwrap_or(u32::MAX);
        let ceiling = if ramp >= 1.0 { limit } else { ((f64::from(limit) * ramp) as u32).max(1) };
        if slots.busy() >= ceiling {
            return Err(Verdict::Full);
        }
        if ask.below.is_some_and(|below| slots.room().is_none_or(|room| room >= below.0)) {
            return Err(Verdict::Promised);
        }
        if slots.room().is_some_and(|room| slots.tokens().saturating_add(ask.tokens.0) > room) {
            return Err(Verdict::NoTokens);
        }
        match &instance.node {
            Some(node) => node.fits(&self.need(instance), now).map(|()| ceiling).map_err(verdict),
            None => Ok(ceiling),
        }
    }

    fn occupy(&self, instance: &Instance, room: Room, now: Moment) -> Result<Permit, Verdict> {
        let permit = instance.vitals.slots.try_take(room).ok_or(Verdict::Full)?;
        match &instance.node {
            Some(node) => Ok(permit.with(node.take(&self.need(instance), now).map_err(verdict)?)),
            None => Ok(permit),
        }
    }

    fn need<'a>(&self, instance: &'a Instance) -> Need<'a> {
        Need { instance: instance.identity, standing: &instance.needs, each: &instance.call_needs, by: self.label }
    }
}

/// The instance as the balance sees it.
fn candidate(index: usize, instance: &Instance, ramp: f64, now: Moment) -> Candidate {
    let share = (instance.vitals.health.considered() * ramp).max(0.01);
    Candidate {
        index,
        identity: instance.identity,
        weight: f64::from(instance.weight) * share,
        busy: instance.vitals.slots.busy(),
        limit: instance.vitals.slots.limit(),
        unread: Tokens(instance.vitals.slots.unread()),
        micros: instance.vitals.timing.micros(now),
        told: instance.told(now),
        score: f64::NAN,
    }
}

/// An instance as it was looked at; `candidate` is what the balance saw of it.
fn seen(index: usize, instance: &Instance, candidate: Option<&Candidate>, verdict: Verdict) -> Seen {
    let slots = &instance.vitals.slots;
    Seen {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        busy: candidate.map_or_else(|| slots.busy(), |candidate| candidate.busy),
        limit: slots.limit().unwrap_or(u32::MAX),
        score: candidate.map_or(f64::NAN, |candidate| candidate.score),
        verdict,
    }
}

fn verdict(lack: Lack) -> Verdict {
    match lack {
        Lack::Resources => Verdict::NoResources,
        Lack::Promised => Verdict::Promised,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use kernel::fleet::Choose;
    use kernel::{Call, ModelName, Operation, Payload, TenantId};

    use crate::fleet::{Fleet, State};
    use crate::settings::ModelSettings;

    use super::*;

    fn fleet(state: &State) -> Fleet {
        let instances: Vec<_> = (0..6).map(|n| serde_json::json!({ "endpoint": format!("http://host-{n}") })).collect();
        let versions = [serde_json::json!({ "version": "1", "instances": instances })];
        let model = serde_json::json!({ "model_name": "m", "balance": "prefix_aware", "versions": versions });
        Fleet::new(&[serde_json::from_value::<ModelSettings>(model).unwrap()], &[], state)
    }

    /// Where a call of the tenant goes, why, and its slot.
    fn choose(fleet: &Fleet, tenant: &str, prompt: &str) -> (InstanceId, &'static str, Permit) {
        let payload = Payload {
            bytes: prompt.to_owned().into(),
            model: 0..0,
            prompt: 0..prompt.len(),
            tools: 0..0,
            force_usage: None,
            blocks: OnceLock::new(),
        };
        let call = Call {
            model: ModelName::new("m"),
            operation: Operation::Chat,
            stream: true,
            wants_usage: true,
            payload: Arc::new(payload),
            affinity: None,
            output_max: None,
            choices: 1,
            forward: Arc::new([]),
            plain: None,
        };
        let deployment = Arc::clone(&fleet.roster().models[&ModelName::new("m")].deployments[0]);
        let attempt = Attempt { call, deployment, tried: Vec::new(), deadline: Moment::now() };
        let mut reason = "";
        let ask = Ask { tenant: &TenantId::new(tenant), tokens: Tokens(100), insists: false, below: None };
        let choice = fleet.choose(&attempt, &ask, &mut |seen| {
            if let Verdict::Taken(why) = seen.verdict {
                reason = why;
            }
        });
        let Choice::Taken(id, permit) = choice else { panic!("{choice:?}") };
        (id, reason, permit)
    }

    #[test]
    fn a_prompt_goes_where_its_tenant_sent_it_before_even_after_a_reload() {
        let (state, prompt) = (State::default(), "Once upon a time. ".repeat(1000));
        let before = fleet(&state);
        let (home, reason, first) = choose(&before, "a", &prompt);
        assert_eq!(reason, "least_work");
        drop(first);
        let after = fleet(&state);
        drop(before);
        let (at, reason, _again) = choose(&after, "a", &format!("{prompt} And then?"));
        assert_eq!((at, reason), (home, "prefix"));
        assert_eq!(choose(&after, "b", &prompt).1, "least_work");
    }

    #[test]
    fn a_prompt_counts_as_unread_until_its_answer_begins() {
        let fleet = fleet(&State::default());
        let (at, _, mut permit) = choose(&fleet, "a", &"Once upon a time. ".repeat(1000));
        let unread = || fleet.instances[at.0 as usize].vitals.slots.unread();
        assert!((4_000..6_000).contains(&unread()), "{}", unread());
        permit.begun();
        assert_eq!(unread(), 0);
    }
}
