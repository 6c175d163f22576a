//! Fair turns among members of one level: the virtual token counter of Sheng et al. (OSDI 2024).
//!
//! Everybody has a counter of the service they got, divided by their share: what is settled, and what calls that are being
//! served are thought to cost. Who has the least goes next. Whoever comes back after having had nothing to ask for is
//! lifted to what is settled of who goes next, so that idleness saves nothing up; what is only thought lifts nobody, or an
//! estimate that was too high would keep newcomers back after it has been corrected.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use foldhash::fast::FixedState;
use slab::Slab;

use super::{Age, Cost};

/// Members by key, and those among them who wait, in the order of their counters.
#[derive(Debug)]
pub(super) struct Level<K, M> {
    members: Slab<Member<K, M>>,
    index: HashMap<K, usize, FixedState>,
    /// Counter, age of the oldest ticket, member.
    line: BTreeSet<(Cost, Age, usize)>,
    /// The most that was settled of anybody who has left the line.
    left: Cost,
}

/// One tenant of a class, or one key of a tenant.
#[derive(Debug)]
pub(super) struct Member<K, M> {
    pub(super) key: K,
    /// Service so far, by share.
    settled: Cost,
    /// What calls being served are thought to cost, by share.
    unsettled: Cost,
    weight: u32,
    /// Its entry in the line.
    place: Option<(Cost, Age)>,
    /// Charges not settled yet.
    pub(super) running: u32,
    pub(super) inner: M,
}

impl<K, M> Default for Level<K, M> {
    fn default() -> Self {
        Self { members: Slab::new(), index: HashMap::default(), line: BTreeSet::new(), left: 0 }
    }
}

impl<K, M> Member<K, M> {
    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    /// Service so far and to come, by share.
    pub(super) fn counter(&self) -> Cost {
        self.settled.saturating_add(self.unsettled)
    }
}

impl<K: Hash + Eq + Clone, M: Default> Level<K, M> {
    /// The member of a key, made if it is new.
    pub(super) fn member(&mut self, key: &K, weight: u32) -> usize {
        let at = match self.index.get(key) {
            Some(at) => *at,
            None => {
                let new = Member {
                    key: key.clone(),
                    settled: 0,
                    unsettled: 0,
                    weight: 1,
                    place: None,
                    running: 0,
                    inner: M::default(),
                };
                let at = self.members.insert(new);
                self.index.insert(key.clone(), at);
                at
            }
        };
        if let Some(member) = self.members.get_mut(at) {
            member.weight = weight.max(1);
        }
        at
    }

    pub(super) fn find(&self, key: &K) -> Option<usize> {
        self.index.get(key).copied()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Member<K, M>> {
        self.members.get(at)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Member<K, M>> {
        self.members.get_mut(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Member<K, M>)> {
        self.members.iter()
    }

    /// Who goes next.
    pub(super) fn first(&self) -> Option<usize> {
        self.line.first().map(|(.., at)| *at)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// The greatest distance between the counters of two who wait.
    pub(super) fn gap(&self) -> Cost {
        self.line.first().zip(self.line.last()).map_or(0, |(least, most)| most.0 - least.0)
    }

    /// Enters the line, lifted to who goes next (to the most of those who have left, where nobody waits).
    pub(super) fn enter(&mut self, at: usize, age: Age) {
        self.lift(at);
        self.show(at, age);
    }

    /// Enters the line where it stood before: passed over for a moment, not gone.
    pub(super) fn show(&mut self, at: usize, age: Age) {
        let Some(member) = self.members.get_mut(at) else { return };
        let place = (member.counter(), age);
        match member.place.replace(place) {
            Some(same) if same == place => return,
            Some((counter, age)) => drop(self.line.remove(&(counter, age, at))),
            None => {}
        }
        self.line.insert((place.0, place.1, at));
    }

    /// Leaves the line for a moment.
    pub(super) fn hide(&mut self, at: usize) {
        if let Some((counter, age)) = self.members.get_mut(at).and_then(|member| member.place.take()) {
            self.line.remove(&(counter, age, at));
        }
    }

    /// Leaves the line: nothing left to ask for.
    pub(super) fn leave(&mut self, at: usize) {
        self.hide(at);
        self.left = self.members.get(at).map_or(self.left, |member| self.left.max(member.settled));
    }

    pub(super) fn stands(&self, at: usize) -> bool {
        self.members.get(at).is_some_and(|member| member.place.is_some())
    }

    /// Charges for service to come; gives what was charged, by share.
    pub(super) fn charge(&mut self, at: usize, cost: Cost) -> Cost {
        let Some(member) = self.members.get_mut(at) else { return 0 };
        let share = cost / Cost::from(member.weight);
        member.unsettled = member.unsettled.saturating_add(share);
        member.running += 1;
        self.follow(at);
        share
    }

    /// The same for a member that got its turn without waiting: it comes and leaves.
    pub(super) fn pass(&mut self, at: usize, cost: Cost) -> Cost {
        let waits = self.stands(at);
        if !waits {
            self.lift(at);
        }
        let share = self.charge(at, cost);
        if !waits {
            self.leave(at);
        }
        share
    }

    /// Replaces a charge by the true cost.
    pub(super) fn settle(&mut self, at: usize, share: Cost, cost: Cost) {
        let Some(member) = self.members.get_mut(at) else { return };
        member.running = member.running.saturating_sub(1);
        member.unsettled = member.unsettled.saturating_sub(share);
        member.settled = member.settled.saturating_add(cost / Cost::from(member.weight));
        if member.place.is_none() {
            self.left = self.left.max(member.settled);
        }
        self.follow(at);
    }

    /// Forgets all service: everybody begins anew.
    pub(super) fn reset(&mut self) {
        self.left = 0;
        let all: Vec<usize> = self.members.iter().map(|(at, _)| at).collect();
        for at in all {
            if let Some(member) = self.members.get_mut(at) {
                (member.settled, member.unsettled) = (0, 0);
            }
            self.follow(at);
        }
    }

    /// Forgets members who ask for nothing and would be lifted anyway if they came back.
    pub(super) fn sweep(&mut self, keep: impl Fn(&M) -> bool) {
        let floor = self.floor();
        let Self { members, index, .. } = self;
        members.retain(|_, member| {
            let stays = member.place.is_some() || member.running > 0 || member.settled > floor || keep(&member.inner);
            if !stays {
                index.remove(&member.key);
            }
            stays
        });
    }

    fn floor(&self) -> Cost {
        self.first().and_then(|at| self.members.get(at)).map_or(self.left, |member| member.settled)
    }

    fn lift(&mut self, at: usize) {
        let floor = self.floor();
        if let Some(member) = self.members.get_mut(at) {
            member.settled = member.settled.max(floor);
        }
    }

    /// Brings its place in the line up to date with its counter.
    fn follow(&mut self, at: usize) {
        if let Some((_, age)) = self.members.get(at).and_then(|member| member.place) {
            self.show(at, age);
        }
    }
}
