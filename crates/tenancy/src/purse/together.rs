//! Several processes with one budget: nothing is spent twice, whichever of them spends it.

use std::collections::HashMap;

use kernel::contract::Budget;
use kernel::error::Kind;
use kernel::share::{Grant, Order, Wish};
use kernel::store::ledger::{Account as Side, Cause, Transfer};
use kernel::{Currency, KeyId, Terms};
use proptest::prelude::*;

use super::*;
use crate::invoice::tests::shelf::Shelf;
use crate::invoice::tests::wait;

const NOW: Timestamp = Timestamp(1_796_082_300_000);

/// What is kept of one counter where all reach it; see `exchange.lua`.
#[derive(Default)]
struct Counter {
    spent: u64,
    /// By process: what it holds, and what it has told.
    nodes: HashMap<usize, (u64, u64)>,
}

struct World {
    purses: Vec<Arc<Purse>>,
    kept: HashMap<String, Counter>,
    caller: Caller,
}

impl World {
    fn new(budgets: &str, nodes: u32) -> Self {
        let of = |_| {
            let purse = Purse::new(|_| {});
            purse.standing.together(nodes);
            purse
        };
        let budgets: Vec<Budget> = serde_json::from_str(budgets).unwrap();
        let terms = Terms { budgets: budgets.into(), ..Terms::default() };
        let caller = Caller { tenant: TenantId::new("acme"), key: Some(KeyId::new("k")), terms: Arc::new(terms) };
        Self { purses: (0..nodes).map(of).collect(), kept: HashMap::new(), caller }
    }

    fn carry_out(&mut self, node: usize, order: &Order) -> Grant {
        let Wish::Funds { limit, mine, known, want, busy } = order.wish else { panic!("{order:?}") };
        let counter = self.kept.entry(order.counter.clone()).or_default();
        let told = counter.nodes.get(&node).map_or(0, |(_, told)| *told);
        counter.spent = (counter.spent + mine.saturating_sub(told)).max(known);
        let others: u64 = counter.nodes.iter().filter(|(other, _)| **other != node).map(|(_, (held, _))| held).sum();
        let units = busy.max(want.min(limit.saturating_sub(counter.spent + others)));
        counter.nodes.insert(node, (units, mine.max(told)));
        Grant { units, left: limit.saturating_sub(counter.spent + others + units), ..Grant::default() }
    }

    /// One process exchanges what is due; the answer may be lost.
    fn exchange(&mut self, node: usize, everybody: bool, answered: bool) {
        let nodes = u32::try_from(self.purses.len()).unwrap();
        let rounds = self.purses[node].standing.rounds(nodes, everybody);
        for round in rounds {
            let grants: Vec<Grant> = round.orders.iter().map(|order| self.carry_out(node, order)).collect();
            round.settle(if answered { &grants } else { &[] });
        }
    }

    fn ask<'a>(&'a self, model: &'a ModelName, streams: bool) -> Ask<'a> {
        Ask {
            id: PostingId::new(),
            caller: &self.caller,
            model,
            listed: None,
            bytes: 400,
            output_max: None,
            choices: 1,
            answers: true,
            streams,
            measured: true,
            gpus: false,
            held: true,
            blind: false,
            now: NOW,
        }
    }

    fn try_one(&self, node: usize, streams: bool, rate: fn(&Usage, u64) -> Money) -> Result<Reservation, Error> {
        self.purses[node].reserve(&self.ask(&ModelName::new("m"), streams), rate)
    }

    /// As the meter does: who is told that nobody knows yet waits for an exchange.
    fn reserve(&mut self, node: usize, rate: fn(&Usage, u64) -> Money) -> Option<Reservation> {
        for _ in 0..3 {
            match self.try_one(node, false, rate) {
                Ok(held) => return Some(held),
                Err(refused) if refused.cause == UNKNOWN => self.exchange(node, false, true),
                Err(_) => return None,
            }
        }
        None
    }

    /// Spent and set aside by all that live.
    fn taken(&self) -> Money {
        let of = |purse: &Arc<Purse>| purse.taken(&self.caller.tenant);
        self.purses.iter().map(of).map(|(spent, pending)| spent + pending).sum()
    }
}

fn fixed(_: &Usage, _: u64) -> Money {
    Money::from_units(1)
}

fn tokens(usage: &Usage, _: u64) -> Money {
    Money::from_units(1).times(usage.total().0)
}

#[test]
fn what_nobody_knows_the_size_of_begins_only_where_something_is_left_for_all() {
    let mut world = World::new(r#"[{"limit":"1","per":"day"}]"#, 2);
    let price = r#"{"model":"m","from":"2020-01-01","audio_output_per_1m_tokens":"1"}"#;
    let catalogue = crate::Catalogue::new([serde_json::from_str(price).unwrap()]);
    let listed = Arc::clone(catalogue.find("m", kernel::Currency::default(), NOW).unwrap());
    let reserve = |world: &mut World, node: usize| {
        let mut last = None;
        for _ in 0..3 {
            let model = ModelName::new("m");
            let asked = Ask { listed: Some(&listed), ..world.ask(&model, false) };
            match world.purses[node].reserve(&asked, |_, _| Money::ZERO) {
                Ok(held) => return Ok(held),
                Err(refused) if refused.cause == UNKNOWN => world.exchange(node, false, true),
                Err(refused) => last = Some(refused.kind),
            }
        }
        Err(last)
    };
    let held = reserve(&mut world, 0).ok().unwrap();
    held.settle(&Usage::default(), Money::from_units(1), NOW, None);
    (0..2).for_each(|node| world.exchange(node, true, true));
    for node in 0..2 {
        assert_eq!(reserve(&mut world, node).err(), Some(Some(Kind::OverBudget)), "process {node}");
    }
}

#[test]
fn of_fifty_calls_at_four_processes_on_a_budget_for_ten_exactly_ten_pass() {
    for spread in [[0, 1, 2, 3], [0, 0, 0, 0], [1, 1, 1, 2]] {
        let mut world = World::new(r#"[{"limit":"10","per":"day"}]"#, 4);
        let held: Vec<_> = (0..50).filter_map(|nth| world.reserve(spread[nth % 4], fixed)).collect();
        assert_eq!(held.len(), 10, "{spread:?}");
        for (nth, held) in held.into_iter().enumerate() {
            // Half of them cost nothing in the end: what was set aside is there for others.
            match nth % 2 {
                0 => held.settle(&Usage::default(), Money::from_units(1), NOW, None),
                _ => drop(held),
            }
        }
        (0..4).for_each(|node| world.exchange(node, true, true));
        let again: Vec<_> = (0..50).filter_map(|nth| world.reserve(3 - nth % 4, fixed)).collect();
        assert_eq!(again.len(), 5, "{spread:?}");
    }
}

#[test]
fn a_balance_paid_in_is_spent_once_by_all_together() {
    let mut world = World::new("[]", 4);
    let billing = serde_json::from_str(r#"{"prepaid":true}"#).unwrap();
    world.caller.terms = Arc::new(Terms { billing: Arc::new(billing), ..Terms::default() });
    let ledger = Shelf::default();
    let paid = Transfer {
        id: PostingId::new(),
        at: NOW,
        cause: Cause::TopUp,
        debit: Side::Cash,
        credit: Side::Tenant(world.caller.tenant.clone()),
        amount: Money::from_units(10),
        currency: Currency::USD,
        reverses: None,
        invoice: None,
        note: None,
    };
    ledger.change(|rows| rows.transfers.push(paid));
    for (node, purse) in world.purses.iter().enumerate() {
        purse.expect_ledger();
        assert!(world.try_one(node, false, fixed).is_err(), "nobody knows yet");
        wait(purse.load(&ledger, false)).unwrap();
    }
    let held: Vec<_> = (0..50).filter_map(|nth| world.reserve(nth % 4, fixed)).collect();
    assert_eq!(held.len(), 10);
    held.into_iter().for_each(|held| held.settle(&Usage::default(), Money::from_units(1), NOW, None));
    (0..4).for_each(|node| world.exchange(node, true, true));
    assert!((0..4).all(|node| world.reserve(node, fixed).is_none()), "and is gone");
}

#[test]
fn what_nobody_needs_any_more_is_given_back() {
    let mut world = World::new(r#"[{"limit":"100","per":"day"}]"#, 2);
    let held = world.reserve(0, fixed).unwrap();
    held.settle(&Usage::default(), Money::from_units(1), NOW, None);
    (0..20).for_each(|_| world.exchange(0, true, true));
    let on_lease: u64 = world.kept.values().flat_map(|counter| counter.nodes.values()).map(|(held, _)| held).sum();
    assert_eq!((on_lease, world.kept.values().map(|counter| counter.spent).sum::<u64>()), (0, 1_000_000));
    assert!(world.purses[0].standing.rounds(2, true).is_empty(), "and nobody asks for nothing");
    assert_eq!((0..200).filter_map(|_| world.reserve(1, fixed)).map(std::mem::forget).count(), 99);
}

#[test]
fn cut_off_from_each_other_each_keeps_to_its_part_of_what_remains() {
    let world = World::new(r#"[{"limit":"12","per":"day"}]"#, 4);
    let share = |purse: &Arc<Purse>| {
        purse.standing.set_apart(4);
        let one = || purse.reserve(&world.ask(&ModelName::new("m"), false), fixed).ok();
        (0..50).filter_map(|_| one()).map(std::mem::forget).count()
    };
    assert_eq!(world.purses.iter().map(share).collect::<Vec<_>>(), [3; 4]);
}

#[test]
fn what_costs_nothing_waits_for_nobody() {
    let mut world = World::new(r#"[{"limit":"2","per":"day"}]"#, 2);
    // Spent to the last, and beyond by what it cost in the end.
    let held = world.reserve(0, fixed).unwrap();
    held.settle(&Usage::default(), Money::from_units(3), NOW, None);
    assert!(world.reserve(0, fixed).is_none() && world.reserve(1, fixed).is_some());
    assert!((0..2).all(|node| world.try_one(node, false, |_, _| Money::ZERO).is_ok()));
    world.exchange(0, true, true);
    world.purses.iter().for_each(|purse| purse.expect_others());
    assert!((0..2).all(|node| world.try_one(node, true, |_, _| Money::ZERO).is_ok()));
}

#[test]
fn before_it_is_known_how_many_there_are_a_call_waits() {
    let world = World::new(r#"[{"limit":"12","per":"day"}]"#, 1);
    world.purses[0].expect_others();
    assert_eq!(world.try_one(0, false, fixed).err().unwrap().cause, UNKNOWN);
    let model = ModelName::new("m");
    let blind = Ask { blind: true, ..world.ask(&model, false) };
    assert!(world.purses[0].reserve(&blind, fixed).is_ok(), "not for ever");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn all_together_never_spend_more_than_there_is(steps in proptest::collection::vec((0usize..4, 0u8..8, 0u64..300), 1..400)) {
        let mut world = World::new(r#"[{"limit":"6000","per":"day"}]"#, 4);
        let mut held: Vec<Vec<(Reservation, Usage)>> = (0..4).map(|_| Vec::new()).collect();
        for (node, what, more) in steps {
            match what {
                0 | 1 => if let Some(reservation) = world.reserve(node, tokens) {
                    held[node].push((reservation, Usage { input: Tokens(100), ..Usage::default() }));
                },
                2 | 3 if !held[node].is_empty() => {
                    let at = more as usize % held[node].len();
                    let (reservation, usage) = held[node].swap_remove(at);
                    // Never more than was set aside: what exceeds that exceeds every budget.
                    let output = more.min(u64::try_from(reservation.amount().pico() / 1_000_000_000_000).unwrap().saturating_sub(100));
                    let usage = Usage { output: Tokens(output), ..usage };
                    if more % 5 > 0 {
                        reservation.settle(&usage, tokens(&usage, 0), NOW, Some(0));
                    }
                }
                4 => world.exchange(node, false, true),
                5 | 6 => world.exchange(node, true, true),
                _ => {}
            }
            prop_assert!(world.taken() <= Money::from_units(6000), "{}", world.taken());
        }
    }

    #[test]
    fn streams_go_beyond_by_at_most_half_of_what_was_left_and_by_nothing_where_all_have_just_asked(
        steps in proptest::collection::vec((0usize..4, 0u8..8, 1u64..300), 1..300),
        fresh: bool,
    ) {
        let mut world = World::new(r#"[{"limit":"6000","per":"day"}]"#, 4);
        let mut held: Vec<Vec<(Reservation, Usage)>> = (0..4).map(|_| Vec::new()).collect();
        for (node, what, more) in steps {
            if fresh {
                (0..4).for_each(|node| world.exchange(node, true, true));
            }
            match what {
                0 => match world.try_one(node, true, tokens) {
                    Ok(reservation) => held[node].push((reservation, Usage { input: Tokens(100), ..Usage::default() })),
                    Err(_) => world.exchange(node, false, true),
                },
                1..=4 if !held[node].is_empty() => {
                    let at = more as usize % held[node].len();
                    let (reservation, usage) = &mut held[node][at];
                    let next = Usage { output: Tokens(usage.output.0 + more), ..*usage };
                    if reservation.cover(&next, 0, tokens, NOW).is_ok() {
                        *usage = next;
                    }
                }
                5 if !held[node].is_empty() => {
                    let (reservation, usage) = held[node].swap_remove(0);
                    reservation.settle(&usage, tokens(&usage, 0), NOW, None);
                }
                6 => world.exchange(node, true, true),
                _ => {}
            }
            let most = Money::from_units(if fresh { 6000 } else { 9000 });
            prop_assert!(world.taken() <= most, "{} of {most}", world.taken());
        }
    }

    #[test]
    fn a_process_that_dies_costs_the_others_at_most_what_it_had_on_lease(steps in proptest::collection::vec((0usize..4, 0u8..6), 1..300)) {
        let mut world = World::new(r#"[{"limit":"50","per":"day"}]"#, 4);
        let (mut gone, mut bound) = (Money::ZERO, 0);
        for (node, what) in steps {
            match what {
                0..=2 => if let Some(held) = world.reserve(node, fixed) {
                    held.settle(&Usage::default(), Money::from_units(1), NOW, None);
                },
                3 | 4 => world.exchange(node, true, true),
                _ => {
                    // It dies, another takes its place, and what it held is free again.
                    let (spent, pending) = world.purses[node].taken(&world.caller.tenant);
                    gone += spent + pending;
                    for counter in world.kept.values_mut() {
                        bound += counter.nodes.remove(&node).map_or(0, |(held, _)| held);
                    }
                    let purse = Purse::new(|_| {});
                    purse.standing.together(4);
                    world.purses[node] = purse;
                }
            }
            let most = Money::from_units(50) + Money::from_pico(i128::from(bound) * 1_000_000);
            prop_assert!(world.taken() + gone <= most, "{} of {most}", world.taken() + gone);
        }
    }
}
