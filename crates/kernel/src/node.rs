//! A machine and what it has: cpu, memory, gpu, or anything else that can be counted.
//!
//! Instances share nodes. An instance needs its resources for as long as it has a call at all; a call may need some
//! more for itself. Both are taken in one step, all or nothing, and given back when the call's permit is dropped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Moment;

/// So much of a named resource, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    /// What: `cpu`, `memory_gb`, `gpu`, …
    pub name: Arc<str>,
    /// How much, in thousandths.
    pub milli: u64,
}

/// What one call takes of a node.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// Which instance; stable over reloads.
    pub instance: u64,
    /// What the instance needs while it has any call.
    pub standing: &'a [Amount],
    /// What each of its calls needs beside that.
    pub each: &'a [Amount],
    /// Which deployment asks; see [`Node::promise`].
    pub by: u64,
}

/// Why a node gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Not enough is left of something.
    Resources,
    /// It is promised to somebody else.
    Promised,
}

/// Hands out its resources, never more than it has. What it has may change while some of it is out: less takes nothing
/// back, it only stops handing out until enough has returned.
#[derive(Debug)]
pub struct Node {
    name: Arc<str>,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// What there is, and how much of it is out. Something that was taken off the config stays while it is out.
    stock: Vec<(Amount, u64)>,
    /// Instances with calls: how many, and what was taken for the instance itself.
    active: Vec<(u64, u32, Vec<Amount>)>,
    /// For whom it is kept free, and until when.
    promise: Option<(u64, Moment)>,
}

/// What one call has taken of a node. Dropping it gives it back.
#[derive(Debug)]
pub struct Claim {
    node: Arc<Node>,
    instance: u64,
    each: Vec<Amount>,
}

/// How long a promise holds if it is not renewed: some rounds of looking after those who wait.
const PROMISE: Duration = Duration::from_millis(500);

impl Node {
    /// A node with so much.
    pub fn new(name: impl Into<Arc<str>>, has: &[Amount]) -> Arc<Self> {
        let node = Self { name: name.into(), books: Mutex::default() };
        node.set(has);
        Arc::new(node)
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Changes what it has, for claims from now on.
    pub fn set(&self, has: &[Amount]) {
        let mut books = self.lock();
        for (amount, _) in &mut books.stock {
            amount.milli = has.iter().find(|new| new.name == amount.name).map_or(0, |new| new.milli);
        }
        for new in has {
            if !books.stock.iter().any(|(amount, _)| amount.name == new.name) {
                books.stock.push((new.clone(), 0));
            }
        }
        books.stock.retain(|(amount, out)| amount.milli > 0 || *out > 0);
    }

    /// Takes what a call needs, if all of it is there. Never waits.
    ///
    /// # Errors
    /// What is lacking.
    pub fn take(self: &Arc<Self>, need: &Need<'_>, now: Moment) -> Result<Claim, Lack> {
        let mut books = self.lock();
        books.fits(need, now)?;
        books.add(need.each);
        match books.active.iter_mut().find(|(instance, ..)| *instance == need.instance) {
            Some((_, calls, _)) => *calls += 1,
            None => {
                books.add(need.standing);
                books.active.push((need.instance, 1, need.standing.to_vec()));
            }
        }
        if books.promise.is_some_and(|(to, _)| to == need.by) {
            books.promise = None;
        }
        Ok(Claim { node: Arc::clone(self), instance: need.instance, each: need.each.to_vec() })
    }

    /// Whether a call's needs would be met now.
    ///
    /// # Errors
    /// What is lacking.
    pub fn fits(&self, need: &Need<'_>, now: Moment) -> Result<(), Lack> {
        self.lock().fits(need, now)
    }

    /// Keeps the node free for a deployment that has waited long, so that what others give back is not taken by others
    /// again. Holds for half a second unless renewed; the first to be promised anything has it. Tells whether it is kept.
    pub fn promise(&self, to: u64, now: Moment) -> bool {
        let mut books = self.lock();
        let free = books.promise.is_none_or(|(holder, until)| holder == to || until <= now);
        if free {
            books.promise = Some((to, now + PROMISE));
        }
        free
    }

    /// Whether it is kept free for a deployment.
    pub fn is_promised(&self, to: u64, now: Moment) -> bool {
        self.lock().promise.is_some_and(|(holder, until)| holder == to && until > now)
    }

    /// It need not be kept free for a deployment any longer.
    pub fn release(&self, from: u64) {
        self.lock().promise.take_if(|(holder, _)| *holder == from);
    }

    /// What there is and how much of it is out, both in thousandths.
    pub fn stock(&self) -> Vec<(Amount, u64)> {
        self.lock().stock.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Books> {
        // Poisoned books are whole: each entry is changed by plain arithmetic that cannot panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn fits(&self, need: &Need<'_>, now: Moment) -> Result<(), Lack> {
        if self.promise.is_some_and(|(to, until)| to != need.by && until > now) {
            return Err(Lack::Promised);
        }
        let running = self.active.iter().any(|(instance, ..)| *instance == need.instance);
        let standing = if running { &[] } else { need.standing };
        let wanted = |name: &Arc<str>| -> u64 {
            standing.iter().chain(need.each).filter(|amount| amount.name == *name).map(|amount| amount.milli).sum()
        };
        // Invariant: out ≤ what there was when it was taken, because check and taking are under one lock.
        let met = |amount: &Amount| {
            let left = self.stock.iter().find(|(has, _)| has.name == amount.name);
            let left = left.map_or(0, |(has, out)| has.milli.saturating_sub(*out));
            wanted(&amount.name) <= left
        };
        if standing.iter().chain(need.each).all(met) { Ok(()) } else { Err(Lack::Resources) }
    }

    fn add(&mut self, amounts: &[Amount]) {
        for amount in amounts {
            if let Some((_, out)) = self.stock.iter_mut().find(|(has, _)| has.name == amount.name) {
                *out += amount.milli;
            }
        }
    }

    fn give_back(&mut self, amounts: &[Amount]) {
        for amount in amounts {
            if let Some((_, out)) = self.stock.iter_mut().find(|(has, _)| has.name == amount.name) {
                *out = out.saturating_sub(amount.milli);
            }
        }
        self.stock.retain(|(amount, out)| amount.milli > 0 || *out > 0);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut books = self.node.lock();
        books.give_back(&self.each);
        let Some(at) = books.active.iter().position(|(instance, ..)| *instance == self.instance) else { return };
        let Some((_, calls, _)) = books.active.get_mut(at) else { return };
        *calls -= 1;
        if *calls == 0 {
            let (_, _, standing) = books.active.swap_remove(at);
            books.give_back(&standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts(list: &[(&str, u64)]) -> Vec<Amount> {
        list.iter().map(|(name, milli)| Amount { name: (*name).into(), milli: *milli }).collect()
    }

    const NOW: Moment = Moment::from_micros(0);

    #[test]
    fn an_instance_holds_its_needs_while_it_has_a_call_and_each_call_its_own() {
        let node = Node::new("n", &amounts(&[("gpu", 2_000), ("cpu", 3_000)]));
        let (standing, each) = (amounts(&[("gpu", 2_000)]), amounts(&[("cpu", 1_000)]));
        let need = |instance| Need { instance, standing: &standing, each: &each, by: instance };
        let first = node.take(&need(1), NOW).unwrap();
        assert_eq!(node.take(&need(2), NOW).unwrap_err(), Lack::Resources, "the gpus are the first one's");
        let second = node.take(&need(1), NOW).unwrap();
        drop(first);
        assert_eq!(node.take(&need(2), NOW).unwrap_err(), Lack::Resources, "it still has a call");
        drop(second);
        let other = node.take(&need(2), NOW).unwrap();
        assert_eq!(
            node.stock(),
            [(amounts(&[("gpu", 2_000)])[0].clone(), 2_000), (amounts(&[("cpu", 3_000)])[0].clone(), 1_000)]
        );
        drop(other);
        assert!(node.stock().iter().all(|(_, out)| *out == 0));
    }

    #[test]
    fn a_promise_keeps_others_out_until_it_is_used_or_lapses() {
        let node = Node::new("n", &amounts(&[("gpu", 1_000)]));
        let each = amounts(&[("gpu", 1_000)]);
        let need = |by| Need { instance: by, standing: &[], each: &each, by };
        assert!(node.promise(7, NOW) && node.is_promised(7, NOW));
        assert!(!node.promise(8, NOW), "it is kept for another");
        node.release(8);
        assert_eq!(node.take(&need(8), NOW).unwrap_err(), Lack::Promised);
        drop(node.take(&need(7), NOW).unwrap());
        drop(node.take(&need(8), NOW).unwrap());
        node.promise(7, NOW);
        assert!(node.take(&need(8), NOW + PROMISE).is_ok());
    }

    proptest! {
        /// Random takes, returns and changes of what there is: never more out than there was room for, and in the end
        /// nothing is out.
        #[test]
        fn a_node_is_never_oversold_and_leaks_nothing(
            steps in proptest::collection::vec((0u8..4, 0u64..4, 0u64..5, 0u64..4), 0..200)
        ) {
            let node = Node::new("n", &amounts(&[("a", 8), ("b", 8)]));
            let (mut has, mut held) = ([8u64, 8], Vec::new());
            for (what, instance, a, b) in steps {
                match what {
                    0 | 1 => {
                        let (standing, each) = (amounts(&[("a", instance + 1)]), amounts(&[("a", a), ("b", b)]));
                        let before = node.stock();
                        let need = Need { instance, standing: &standing, each: &each, by: instance };
                        if let Ok(claim) = node.take(&need, NOW) {
                            held.push(claim);
                            for (name, limit) in [("a", has[0]), ("b", has[1])] {
                                let out = |stock: &[(Amount, u64)]| stock.iter().find(|(x, _)| &*x.name == name).map_or(0, |x| x.1);
                                let (was, is) = (out(&before), out(&node.stock()));
                                prop_assert!(is == was || is <= limit, "{name}: {is} of {limit} out");
                            }
                        }
                    }
                    2 => drop((!held.is_empty()).then(|| held.swap_remove(instance as usize % held.len()))),
                    _ => {
                        has = [a + 4, b + 4];
                        node.set(&amounts(&[("a", has[0]), ("b", has[1])]));
                    }
                }
            }
            held.clear();
            prop_assert!(node.stock().iter().all(|(_, out)| *out == 0));
        }
    }
}
