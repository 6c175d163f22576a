//! The arithmetic of quotas: pure, in two dimensions (calls, tokens) that do not mix.

use std::collections::HashMap;
use std::time::Duration;

use kernel::explain::QuotaView;
use kernel::{Moment, Priority, TenantId};

use super::{CohortSettings, QuotaSettings};

/// What a call needs of a quota: calls (always one) and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) tokens: u64,
}

/// Which quota: a tenant's, for one class or for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Leaf {
    tenant: TenantId,
    class: Option<Priority>,
}

/// Why a quota gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The tenant has used up its own and may not or cannot borrow more.
    Spent,
    /// It is within its own: others have borrowed that.
    Lent,
    /// It asks for more tokens than it could ever have: at most so many.
    TooLarge(u64),
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    leaves: HashMap<Leaf, usize>,
    /// What is out of quotas that were taken off the config, by side: they may come back before it does.
    gone: HashMap<Leaf, [u64; 2]>,
}

#[derive(Debug)]
struct Node {
    leaf: Option<Leaf>,
    name: Option<String>,
    parent: Option<usize>,
    sides: [Side; 2],
    /// At a root: who wants its own back, and until when nobody may borrow for that.
    wanted: Option<(usize, Moment)>,
}

/// One dimension of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    /// At a leaf: whether it is limited at all.
    limited: bool,
    nominal: u64,
    borrow: Option<u64>,
    lend: Option<u64>,
    /// Its own nominal, and what of its children's is lent to it.
    subtree: u64,
    used: u64,
}

/// How long an owner's wish to have its own back keeps others from borrowing, unless it is renewed: some rounds of
/// looking after those who wait.
const WANTED: Duration = Duration::from_millis(300);

/// The sides of a node.
const CALLS: usize = 0;
const TOKENS: usize = 1;

impl Need {
    fn sides(self) -> [(usize, u64); 2] {
        [(CALLS, 1), (TOKENS, self.tokens)]
    }
}

impl Side {
    /// What never leaves it.
    fn kept(&self) -> u64 {
        self.lend.map_or(0, |lend| self.subtree.saturating_sub(lend))
    }
}

impl Tree {
    /// The tree of a validated config, with what is out under `before`.
    pub(super) fn new(cohorts: &[CohortSettings], quotas: &[QuotaSettings], before: &Self) -> Self {
        let mut tree = Self::default();
        let place = |name: &Option<String>| cohorts.iter().position(|cohort| Some(&cohort.name) == name.as_ref());
        for cohort in cohorts {
            let side = |nominal, borrow, lend| Side { limited: true, nominal, borrow, lend, ..Side::default() };
            tree.nodes.push(Node {
                leaf: None,
                name: Some(cohort.name.clone()),
                parent: place(&cohort.parent),
                sides: [
                    side(cohort.concurrency, cohort.borrow.concurrency, cohort.lend.concurrency),
                    side(cohort.tokens_in_flight, cohort.borrow.tokens_in_flight, cohort.lend.tokens_in_flight),
                ],
                wanted: None,
            });
        }
        for quota in quotas {
            let leaf = Leaf { tenant: TenantId::new(quota.tenant.as_str()), class: quota.class };
            let side = |nominal: Option<u64>, borrow, lend| Side {
                limited: nominal.is_some(),
                nominal: nominal.unwrap_or(0),
                borrow,
                lend,
                ..Side::default()
            };
            tree.leaves.insert(leaf.clone(), tree.nodes.len());
            tree.nodes.push(Node {
                leaf: Some(leaf),
                name: None,
                parent: place(&quota.cohort),
                sides: [
                    side(quota.concurrency, quota.borrow.concurrency, quota.lend.concurrency),
                    side(quota.tokens_in_flight, quota.borrow.tokens_in_flight, quota.lend.tokens_in_flight),
                ],
                wanted: None,
            });
        }
        tree.sum_up();
        for (leaf, used) in before.out() {
            match tree.leaves.get(&leaf).copied() {
                Some(at) => used.into_iter().enumerate().for_each(|(side, used)| tree.add(at, side, used)),
                None => drop(tree.gone.insert(leaf, used)),
            }
        }
        tree
    }

    /// What is out, of quotas that are gone as well.
    fn out(&self) -> Vec<(Leaf, [u64; 2])> {
        let here = self.nodes.iter().filter_map(|node| Some((node.leaf.clone()?, node.sides.map(|side| side.used))));
        let gone = self.gone.iter().map(|(leaf, used)| (leaf.clone(), *used));
        here.chain(gone).filter(|(_, used)| *used != [0, 0]).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The quota for a tenant's calls of a class.
    pub(super) fn leaf(&self, tenant: &TenantId, class: Priority) -> Option<Leaf> {
        let own = Leaf { tenant: tenant.clone(), class: Some(class) };
        let any = Leaf { tenant: tenant.clone(), class: None };
        [own, any].into_iter().find(|leaf| self.leaves.contains_key(leaf))
    }

    /// Why a leaf would not get what is needed, whatever others want; `None` if it would.
    pub(super) fn would(&self, leaf: &Leaf, need: Need) -> Option<Blocked> {
        let at = self.leaves.get(leaf).copied()?;
        let mut fits = true;
        for (side, need) in need.sides() {
            if self.limited(at, side).is_none() {
                continue;
            }
            let most = self.most(at, side);
            if need > most {
                return Some(if side == TOKENS { Blocked::TooLarge(most) } else { Blocked::Spent });
            }
            fits &= i128::from(need) <= self.available(at, side);
        }
        match fits {
            true => None,
            false if self.within(leaf, need) => Some(Blocked::Lent),
            false => Some(Blocked::Spent),
        }
    }

    /// The most tokens a leaf could have; `None` if it does not limit them.
    pub(super) fn most_tokens(&self, leaf: &Leaf) -> Option<u64> {
        let at = self.leaves.get(leaf).copied()?;
        self.limited(at, TOKENS).map(|_| self.most(at, TOKENS))
    }

    /// What a leaf lacks of what is needed, in calls and in tokens.
    pub(super) fn lacking(&self, leaf: &Leaf, need: Need) -> [u64; 2] {
        let Some(at) = self.leaves.get(leaf).copied() else { return [0; 2] };
        need.sides().map(|(side, need)| match self.limited(at, side) {
            Some(_) => (i128::from(need) - self.available(at, side)).clamp(0, i128::from(u64::MAX)) as u64,
            None => 0,
        })
    }

    /// What comes back to others when a leaf gives so much back: only what it limits was ever taken from them.
    pub(super) fn frees(&self, leaf: &Leaf, need: Need) -> [u64; 2] {
        let Some(at) = self.leaves.get(leaf).copied() else { return [0; 2] };
        need.sides().map(|(side, need)| if self.limited(at, side).is_some() { need } else { 0 })
    }

    /// Whether a leaf would stay within its own.
    pub(super) fn within(&self, leaf: &Leaf, need: Need) -> bool {
        let Some(at) = self.leaves.get(leaf).copied() else { return false };
        let own = |(side, need): (usize, u64)| {
            self.limited(at, side).is_none_or(|own| own.used.saturating_add(need) <= own.nominal)
        };
        need.sides().into_iter().all(own)
    }

    pub(super) fn take(&mut self, leaf: &Leaf, need: Need, now: Moment) -> Result<(), Blocked> {
        let Some(at) = self.leaves.get(leaf).copied() else { return Ok(()) };
        let (blocked, within) = (self.would(leaf, need), self.within(leaf, need));
        let root = self.root(at);
        let Some(root) = self.nodes.get_mut(root) else { return Ok(()) };
        match (blocked, within) {
            // Others who want theirs say so again when it is their turn.
            (None, true) => drop(root.wanted.take_if(|(by, _)| *by == at)),
            (None, false) if root.wanted.is_some_and(|(_, until)| until > now) => return Err(Blocked::Spent),
            (None, false) => {}
            (Some(Blocked::Lent), _) => {
                if root.wanted.is_none_or(|(by, until)| by == at || until <= now) {
                    root.wanted = Some((at, now + WANTED));
                }
                return Err(Blocked::Lent);
            }
            (Some(blocked), _) => return Err(blocked),
        }
        need.sides().into_iter().for_each(|(side, need)| self.add(at, side, need));
        Ok(())
    }

    pub(super) fn give_back(&mut self, leaf: &Leaf, need: Need) {
        if let Some(at) = self.leaves.get(leaf).copied() {
            need.sides().into_iter().for_each(|(side, need)| self.remove(at, side, need));
        } else if let Some([calls, tokens]) = self.gone.get_mut(leaf) {
            (*calls, *tokens) = (calls.saturating_sub(1), tokens.saturating_sub(need.tokens));
            if *calls == 0 {
                self.gone.remove(leaf);
            }
        }
    }

    /// How far a leaf has gone beyond its own, as a share of its tree.
    pub(super) fn borrowed(&self, leaf: &Leaf) -> f64 {
        let Some(at) = self.leaves.get(leaf).copied() else { return 0.0 };
        let root = self.root(at);
        let share = |side: usize| {
            let (own, all) = (self.limited(at, side)?, self.side(root, side)?);
            let over = own.used.saturating_sub(own.nominal);
            Some(over as f64 / all.subtree.max(1) as f64)
        };
        [CALLS, TOKENS].into_iter().filter_map(share).fold(0.0, f64::max)
    }

    pub(super) fn related(&self, a: (&TenantId, Priority), b: (&TenantId, Priority)) -> bool {
        let root = |(tenant, class): (&TenantId, Priority)| {
            self.leaf(tenant, class).and_then(|leaf| self.leaves.get(&leaf).copied()).map(|at| self.root(at))
        };
        root(a).is_some_and(|a| Some(a) == root(b))
    }

    pub(super) fn show(&self) -> Vec<QuotaView> {
        let shown = |node: &Node| QuotaView {
            tenant: node.leaf.as_ref().map(|leaf| leaf.tenant.clone()),
            class: node.leaf.as_ref().and_then(|leaf| leaf.class),
            cohort: match (&node.name, node.parent.and_then(|parent| self.nodes.get(parent))) {
                (Some(name), _) => Some(name.clone()),
                (None, Some(parent)) => parent.name.clone(),
                (None, None) => None,
            },
            amounts: node.sides.map(|side| (side.limited.then_some(side.nominal), side.used)),
        };
        self.nodes.iter().map(shown).collect()
    }

    fn side(&self, at: usize, side: usize) -> Option<&Side> {
        self.nodes.get(at)?.sides.get(side)
    }

    /// A leaf's side, if it is limited.
    fn limited(&self, at: usize, side: usize) -> Option<Side> {
        self.side(at, side).copied().filter(|side| side.limited)
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.nodes.get(at)?.parent
    }

    fn root(&self, mut at: usize) -> usize {
        while let Some(parent) = self.parent(at) {
            at = parent;
        }
        at
    }

    /// What is free for a node: of its own, and of what it may borrow. Negative after a config has taken away more than
    /// was free.
    fn available(&self, at: usize, side: usize) -> i128 {
        let Some(own) = self.side(at, side) else { return 0 };
        let (subtree, used, kept) = (i128::from(own.subtree), i128::from(own.used), i128::from(own.kept()));
        let Some(parent) = self.parent(at) else { return subtree - used };
        let mut above = self.available(parent, side);
        if let Some(borrow) = own.borrow {
            above = above.min(subtree - kept - (used - kept).max(0) + i128::from(borrow));
        }
        (kept - used).max(0) + above
    }

    /// What a node could have if nobody else had anything.
    fn most(&self, at: usize, side: usize) -> u64 {
        let Some(own) = self.side(at, side) else { return 0 };
        let Some(parent) = self.parent(at) else { return own.subtree };
        let lent = own.subtree - own.kept();
        let above = self.most(parent, side);
        own.kept() + own.borrow.map_or(above, |borrow| above.min(lent + borrow))
    }

    /// Takes from a node what it keeps for itself, and the rest from above.
    fn add(&mut self, at: usize, side: usize, amount: u64) {
        let parent = self.parent(at);
        let Some(own) = self.nodes.get_mut(at).and_then(|node| node.sides.get_mut(side)) else { return };
        let kept = own.kept().saturating_sub(own.used);
        own.used += amount;
        // What a leaf does not limit it takes from nobody.
        if let (Some(parent), true) = (parent, own.limited) {
            self.add(parent, side, amount.saturating_sub(kept));
        }
    }

    fn remove(&mut self, at: usize, side: usize, amount: u64) {
        let parent = self.parent(at);
        let Some(own) = self.nodes.get_mut(at).and_then(|node| node.sides.get_mut(side)) else { return };
        let above = own.used.saturating_sub(own.kept());
        own.used = own.used.saturating_sub(amount);
        if let (Some(parent), true) = (parent, own.limited) {
            self.remove(parent, side, amount.min(above));
        }
    }

    /// Fills in `subtree`, children before parents.
    fn sum_up(&mut self) {
        let depth = |tree: &Self, mut at: usize| {
            let mut depth = 0;
            while let Some(parent) = tree.parent(at) {
                (at, depth) = (parent, depth + 1);
            }
            depth
        };
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(depth(self, *at)));
        for at in order {
            for side in [CALLS, TOKENS] {
                let Some(own) = self.nodes.get_mut(at).and_then(|node| node.sides.get_mut(side)) else { continue };
                own.subtree += own.nominal;
                let lent = own.subtree - own.kept();
                let parent = self.parent(at).and_then(|parent| self.nodes.get_mut(parent));
                if let Some(above) = parent.and_then(|parent| parent.sides.get_mut(side)) {
                    above.subtree += lent;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Allowance;

    const NOW: Moment = Moment::from_micros(0);

    fn cohort(name: &str, parent: Option<&str>, concurrency: u64) -> CohortSettings {
        let (parent, borrow, lend) = (parent.map(str::to_owned), Allowance::default(), Allowance::default());
        CohortSettings { name: name.into(), parent, concurrency, tokens_in_flight: 0, borrow, lend }
    }

    fn quota(tenant: &str, cohort: Option<&str>, concurrency: u64) -> QuotaSettings {
        QuotaSettings {
            tenant: tenant.into(),
            class: None,
            cohort: cohort.map(str::to_owned),
            concurrency: Some(concurrency),
            tokens_in_flight: None,
            borrow: Allowance::default(),
            lend: Allowance::default(),
        }
    }

    fn calls(most: u64) -> Allowance {
        Allowance { concurrency: Some(most), tokens_in_flight: None }
    }

    fn take(tree: &mut Tree, tenant: &str, at: Moment) -> Result<(), Blocked> {
        let leaf = tree.leaf(&TenantId::new(tenant), Priority::Normal).unwrap();
        tree.take(&leaf, Need { tokens: 0 }, at)
    }

    fn give_back(tree: &mut Tree, tenant: &str) {
        let leaf = tree.leaf(&TenantId::new(tenant), Priority::Normal).unwrap();
        tree.give_back(&leaf, Need { tokens: 0 });
    }

    /// How many calls a tenant can have at once.
    fn many(tree: &mut Tree, tenant: &str) -> usize {
        std::iter::repeat_with(|| take(tree, tenant, NOW)).take_while(Result::is_ok).count()
    }

    #[test]
    fn without_a_cohort_a_quota_is_a_limit() {
        let mut tree = Tree::new(&[], &[quota("a", None, 3)], &Tree::default());
        assert_eq!(many(&mut tree, "a"), 3);
        assert_eq!(take(&mut tree, "a", NOW), Err(Blocked::Spent));
    }

    #[test]
    fn what_a_member_does_not_use_others_borrow_within_their_limits_and_its_own() {
        let mut lender = quota("lender", Some("c"), 10);
        lender.lend = calls(6);
        let mut modest = quota("modest", Some("c"), 2);
        modest.borrow = calls(3);
        let quotas = [lender, modest, quota("greedy", Some("c"), 0)];
        let mut tree = Tree::new(&[cohort("c", None, 1)], &quotas, &Tree::default());
        assert_eq!(many(&mut tree, "modest"), 5, "its 2, and 3 borrowed");
        assert_eq!(many(&mut tree, "greedy"), 4, "what is left of the 6 lent and the cohort's own 1");
        assert_eq!(many(&mut tree, "lender"), 4, "what it does not lend");
    }

    #[test]
    fn who_wants_its_own_back_goes_before_those_who_borrow() {
        let quotas = [quota("owner", Some("c"), 2), quota("guest", Some("c"), 0)];
        let mut tree = Tree::new(&[cohort("c", None, 0)], &quotas, &Tree::default());
        assert_eq!(many(&mut tree, "guest"), 2);
        assert_eq!(take(&mut tree, "owner", NOW), Err(Blocked::Lent));
        give_back(&mut tree, "guest");
        assert_eq!(take(&mut tree, "guest", NOW), Err(Blocked::Spent), "the owner waits for it");
        assert_eq!(take(&mut tree, "owner", NOW), Ok(()));
        give_back(&mut tree, "guest");
        assert_eq!(take(&mut tree, "guest", NOW), Ok(()), "and has it");
        assert_eq!(take(&mut tree, "owner", NOW), Err(Blocked::Lent));
        give_back(&mut tree, "guest");
        assert_eq!(take(&mut tree, "guest", NOW + WANTED), Ok(()), "a wish not repeated lapses");
    }

    #[test]
    fn more_tokens_than_there_could_ever_be_are_refused_for_good() {
        let mut small = quota("a", Some("c"), 1);
        small.tokens_in_flight = Some(100);
        let mut other = quota("b", Some("c"), 1);
        other.tokens_in_flight = Some(50);
        let mut tree = Tree::new(&[cohort("c", None, 0)], &[small, other], &Tree::default());
        let leaf = tree.leaf(&TenantId::new("a"), Priority::Low).unwrap();
        assert_eq!(tree.take(&leaf, Need { tokens: 151 }, NOW), Err(Blocked::TooLarge(150)));
        assert_eq!(tree.take(&leaf, Need { tokens: 150 }, NOW), Ok(()));
    }

    #[test]
    fn what_is_out_stays_out_over_a_reload() {
        let cohorts = [cohort("c", None, 0)];
        let mut tree = Tree::new(&cohorts, &[quota("a", Some("c"), 4), quota("b", Some("c"), 4)], &Tree::default());
        assert_eq!(many(&mut tree, "a"), 8);
        let mut tree = Tree::new(&cohorts, &[quota("a", Some("c"), 1), quota("b", Some("c"), 2)], &tree);
        assert_eq!(take(&mut tree, "b", NOW), Err(Blocked::Lent));
        (0..6).for_each(|_| give_back(&mut tree, "a"));
        assert_eq!(take(&mut tree, "b", NOW), Ok(()));
    }

    #[test]
    fn what_is_out_of_a_quota_that_was_taken_off_is_out_of_it_when_it_comes_back() {
        let with = [quota("a", None, 2)];
        let mut tree = Tree::new(&[], &with, &Tree::default());
        let leaf = tree.leaf(&TenantId::new("a"), Priority::Normal).unwrap();
        assert_eq!(many(&mut tree, "a"), 2);
        let mut tree = Tree::new(&[], &[], &tree);
        tree.give_back(&leaf, Need { tokens: 0 });
        let mut tree = Tree::new(&[], &with, &Tree::new(&[], &[], &tree));
        assert_eq!(many(&mut tree, "a"), 1, "one is still out");
        (0..2).for_each(|_| give_back(&mut tree, "a"));
        let tree = Tree::new(&[], &[], &tree);
        assert!(tree.gone.is_empty());
    }

    proptest! {
        /// Random trees and histories: no root is oversold, nobody borrows more than allowed or is lent more than is lent,
        /// and when all is given back nothing is left.
        #[test]
        fn quotas_are_never_oversold_and_leak_nothing(
            parents in proptest::collection::vec(0usize..4, 3),
            leaves in proptest::collection::vec((0usize..4, 0u64..5, proptest::option::of(0u64..4), proptest::option::of(0u64..4)), 1..6),
            extra in proptest::collection::vec(0u64..3, 4),
            steps in proptest::collection::vec((0usize..6, any::<bool>()), 0..200),
        ) {
            let name = |at: usize| format!("c{at}");
            let cohorts: Vec<_> = (0..4).map(|at| {
                let parent = (at > 0).then(|| name(parents[at - 1] % at));
                cohort(&name(at), parent.as_deref(), extra[at])
            }).collect();
            let quotas: Vec<_> = leaves.iter().enumerate().map(|(at, (parent, nominal, borrow, lend))| {
                let mut quota = quota(&at.to_string(), Some(&name(*parent)), *nominal);
                (quota.borrow.concurrency, quota.lend.concurrency) = (*borrow, *lend);
                quota
            }).collect();
            let total: u64 = extra.iter().sum::<u64>() + leaves.iter().map(|leaf| leaf.1).sum::<u64>();
            let mut tree = Tree::new(&cohorts, &quotas, &Tree::default());
            let mut out = vec![0u64; leaves.len()];
            for (who, taking) in steps {
                let who = who % leaves.len();
                let (_, nominal, borrow, _) = leaves[who];
                if taking {
                    let got = take(&mut tree, &who.to_string(), NOW + WANTED * 2);
                    if got.is_ok() {
                        out[who] += 1;
                        prop_assert!(out[who] <= nominal + borrow.unwrap_or(u64::MAX - nominal));
                    }
                } else if out[who] > 0 {
                    out[who] -= 1;
                    give_back(&mut tree, &who.to_string());
                }
                prop_assert!(out.iter().sum::<u64>() <= total);
                // Whatever others have, what somebody does not lend is there for it.
                for (at, (_, nominal, _, lend)) in leaves.iter().enumerate() {
                    let kept = lend.map_or(0, |lend| nominal.saturating_sub(lend));
                    let others: u64 = out.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, out)| out).sum();
                    prop_assert!(others <= total - kept);
                }
            }
            for (who, out) in out.into_iter().enumerate() {
                (0..out).for_each(|_| give_back(&mut tree, &who.to_string()));
            }
            prop_assert!(tree.nodes.iter().all(|node| node.sides.iter().all(|side| side.used == 0)));
        }
    }
}
