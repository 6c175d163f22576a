//! What was spent before: by other days, other keys, other processes, and by the ledger.

use kernel::contract::Period;
use kernel::store::ledger::{Account as Side, Cause, Ending, Transfer};
use kernel::store::registry::{PlanRow, Source, SubscriptionRow};
use kernel::{Currency, KeyId, RequestId, Terms, Version};
use proptest::prelude::*;

use super::tests::{DAY, EVENING, ask, caller, fixed, purse};
use super::*;
use crate::invoice::tests::shelf::Shelf;
use crate::invoice::tests::wait;
use crate::invoice::tests::world::{World, at, month};

fn charge(key: &str, amount: &str, at: i64) -> Charge {
    Charge {
        id: PostingId::new(),
        at: Timestamp(at),
        request: RequestId::new("r"),
        tenant: TenantId::new("acme"),
        key: Some(KeyId::new(key)),
        model: ModelName::new("m"),
        version: Version::new("v"),
        operation: "chat",
        tag: None,
        usage: Usage::default(),
        gpu_millis: 0,
        ending: Ending::Complete,
        plan: None,
        price: None,
        currency: Currency::USD,
        amount: Money::parse(amount).unwrap(),
    }
}

/// Spends one at a time; tells whether it could.
fn spends(purse: &Arc<Purse>, caller: &Caller, now: Timestamp) -> bool {
    let model = ModelName::new("m");
    let held = purse.reserve(&Ask { now, id: PostingId::new(), ..ask(caller, &model) }, fixed);
    held.map(|held| held.settle(&Usage::default(), Money::from_units(1), now, None)).is_ok()
}

#[test]
fn a_clock_that_is_set_back_frees_nothing_and_stops_nothing() {
    let (purse, caller) = (purse(), caller(r#"[{"limit":"2","per":"day"}]"#, "[]", "{}"));
    let spend = |now: i64| spends(&purse, &caller, Timestamp(now));
    let (evening, midnight) = (EVENING.millis(), EVENING.millis() + 900_000);
    assert!(spend(evening) && spend(evening) && !spend(evening), "the day's two are spent");
    // A step of a second over midnight and back, again and again: each day has its two.
    assert!(spend(midnight + 500) && !spend(midnight - 500));
    assert!(spend(midnight + 600) && !spend(midnight + 700), "the new day's two are spent");
    assert!(!spend(midnight - 300) && !spend(midnight + 800));
    // Set back by weeks: what is spent counts in the days that the charges name, and ends there as well.
    let earlier = evening - 40 * DAY;
    assert!(spend(earlier) && spend(earlier) && !spend(earlier), "a day of its own");
    assert!(spend(earlier + DAY), "and the day after is another");
    assert!(!spend(midnight + 900), "the day it strayed from was not freed");
    // Ahead by a year and back.
    assert!(spend(midnight + 365 * DAY) && !spend(midnight + 1000));
}

#[test]
fn a_day_the_clock_strays_to_is_asked_for_before_anything_is_spent_on_it() {
    let (purse, caller) = (purse(), caller(r#"[{"limit":"2","per":"day"}]"#, "[]", "{}"));
    purse.expect_ledger();
    purse.set_strict(true);
    let ledger = Shelf::default();
    let spend = |now: i64| spends(&purse, &caller, Timestamp(now));
    let load = || wait(purse.load(&ledger, false)).unwrap();
    assert!(!spend(EVENING.millis()), "nobody knows yet");
    load();
    assert!(spend(EVENING.millis()) && spend(EVENING.millis() + DAY), "what has only begun is known");
    let earlier = EVENING.millis() - 40 * DAY;
    ledger.change(|rows| rows.charges.push(charge("k", "1", earlier)));
    assert!(!spend(earlier), "what was spent weeks ago is not");
    load();
    assert!(spend(earlier) && !spend(earlier), "one was spent then");
}

#[test]
fn many_tenants_are_asked_about_at_once_and_the_newest_first() {
    let (purse, ledger) = (purse(), Shelf::default());
    purse.expect_ledger();
    let budgets = r#"[{"limit":"5","per":"day"},{"limit":"9","per":"month"},{"limit":"9","per":"total"}]"#;
    let of = |nth: usize| Caller {
        tenant: TenantId::new(format!("t{nth}")),
        ..caller(budgets, "[]", r#"{"prepaid":true}"#)
    };
    for nth in 0..600 {
        assert!(!spends(&purse, &of(nth), EVENING));
        let tenant = TenantId::new(format!("t{nth}"));
        ledger
            .change(|rows| rows.charges.push(Charge { tenant: tenant.clone(), ..charge("k", "4", EVENING.millis()) }));
        let paid = Transfer {
            id: PostingId::new(),
            at: EVENING,
            cause: Cause::TopUp,
            debit: Side::Cash,
            credit: Side::Tenant(tenant),
            amount: Money::from_units(100),
            currency: Currency::USD,
            reverses: None,
            invoice: None,
            note: None,
        };
        ledger.change(|rows| rows.transfers.push(paid));
    }
    let asked = || ledger.change(|rows| std::mem::take(&mut rows.questions));
    wait(purse.load(&ledger, false)).unwrap();
    assert_eq!((asked(), purse.unknown()), (4, 100), "three periods and the balances, and no more before posting");
    assert!(spends(&purse, &of(599), EVENING) && !spends(&purse, &of(599), EVENING), "four were spent");
    assert!(!spends(&purse, &of(0), EVENING), "not told yet");
    // All are to be asked about again, but the others come first.
    wait(purse.load(&ledger, true)).unwrap();
    assert!(spends(&purse, &of(0), EVENING) && !spends(&purse, &of(0), EVENING));
    assert_eq!(asked(), 4);
    while purse.unknown() > 0 {
        wait(purse.load(&ledger, false)).unwrap();
    }
    assert!((0..600).all(|nth| purse.taken(&of(nth).tenant).0 >= Money::from_units(4)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_a_month_has_spent_is_what_its_invoice_will_say(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            world.calls(200, month("2026-11")).await;
            let now = Timestamp(at("2026-11-30").millis() + 1000);
            let plan = world.shelf.change(|rows| rows.plans.iter().find(|plan| plan.terms.contains("included_tokens")).cloned());
            let Some(plan) = plan else { return Ok(()) };
            let terms: serde_json::Value = serde_json::from_str(&plan.terms).unwrap();
            let billing: kernel::Billing = serde_json::from_value(terms["billing"].clone()).unwrap();
            if billing.by_token() {
                return Ok(());
            }
            let budgets = r#"[{"limit":"1000000000","per":"month"},{"limit":"1000000000","per":"day"},{"limit":"1000000000","per":"total"}]"#;
            let caller = caller(budgets, r#"[{"limit":"1000000000","per":"month"}]"#, &terms["billing"].to_string());
            let key = Caller { key: Some(KeyId::new("k1")), ..caller.clone() };
            let purse = purse();
            purse.expect_fees(Arc::clone(&world.shelf) as _);
            purse.expect_ledger();
            for caller in [&caller, &key] {
                let _ = purse.reserve(&Ask { now, ..ask(caller, &ModelName::new("m")) }, fixed);
            }
            purse.load(&*world.shelf, true).await.unwrap();
            let (views, _) = purse.view(&caller.tenant, now);
            let spent = |per, key: bool| {
                views.iter().find(|view| view.per == per && view.key.is_some() == key).unwrap().spent
            };
            let invoice = world.books.draft(&world.tenant, month("2026-11"), Some(billing.currency())).await.unwrap();
            let lines = invoice.lines.iter().filter(|line| line.item.kind != crate::invoice::Kind::Fee);
            let due: Money = lines.map(|line| line.count.exact).sum();
            prop_assert_eq!(spent(Period::Month, false), due);
            // November is all there ever was.
            prop_assert_eq!(spent(Period::Total, false), due);
            prop_assert!(spent(Period::Day, false) <= due && spent(Period::Month, true) <= due);
            Ok(())
        })?;
    }
}

/// A plan of 300 tokens a month, of which a tenant that came on the 21st has 100.
#[test]
fn what_is_beyond_the_included_tokens_of_a_part_of_a_month_is_spent_after_a_restart_too() {
    let billing = r#"{"monthly":{"fee":"1","included_tokens":300,"overage_per_1k_tokens":"1000"}}"#;
    let caller = caller(r#"[{"limit":"1000","per":"month"},{"limit":"500","per":"day"}]"#, "[]", billing);
    let shelf = Arc::new(Shelf::default());
    shelf.change(|rows| {
        rows.plans.push(PlanRow {
            id: "p@1".into(),
            name: "p".into(),
            source: Source::Api,
            terms: format!(r#"{{"name":"p","billing":{billing}}}"#),
            created: at("2026-01-01"),
            again: Vec::new(),
            retired: None,
        });
        let (tenant, from) = (caller.tenant.clone(), at("2026-11-21"));
        rows.subscriptions.push(SubscriptionRow { tenant, plan: "p".into(), from, until: None });
    });
    let started = |now: Timestamp| {
        let purse = purse();
        purse.expect_fees(Arc::clone(&shelf) as _);
        purse.expect_ledger();
        assert!(purse.reserve(&Ask { now, ..ask(&caller, &ModelName::new("m")) }, fixed).is_err());
        wait(purse.load(&*shelf, false)).unwrap();
        purse
    };
    let mut first = started(Timestamp(EVENING.millis() - DAY));
    let used = |output: u64| Usage { output: Tokens(output), ..Usage::default() };
    let model = ModelName::new("m");
    let settled = |purse: &Arc<Purse>, tokens: u64, at: Timestamp| {
        let id = PostingId::new();
        let asked = Ask { id, now: at, bytes: 0, ..ask(&caller, &model) };
        let held = purse.reserve(&asked, |_, _| Money::ZERO).unwrap();
        held.settle(&used(tokens), Money::ZERO, at, None);
        let made = charge("k", "0", at.millis());
        let made = Charge { id, usage: used(tokens), plan: Some("p@1".into()), ..made };
        shelf.change(|rows| rows.charges.push(made.clone()));
        purse.posted([&made]);
    };
    let yesterday = Timestamp(EVENING.millis() - DAY);
    let spent = |purse: &Arc<Purse>| {
        let of = |per| purse.view(&caller.tenant, EVENING).0.iter().find(|view| view.per == per).unwrap().spent;
        [Period::Month, Period::Day].map(of)
    };
    settled(&first, 150, yesterday);
    settled(&first, 70, EVENING);
    // 50 are beyond yesterday, 70 today.
    let expected = [120, 70].map(Money::from_units);
    assert_eq!(spent(&first), expected);
    wait(first.load(&*shelf, true)).unwrap();
    assert_eq!(spent(&first), expected, "counted once");
    first = started(EVENING);
    assert_eq!(spent(&first), expected, "and after a restart");
    settled(&first, 30, EVENING);
    assert_eq!(spent(&first), [150, 100].map(Money::from_units));
}

#[test]
fn keys_that_take_each_others_place_spend_one_budget() {
    let budgets = r#"[{"limit":"3","per":"month"}]"#;
    let of = |key: &str, kin: &[&str]| {
        let caller = caller("[]", budgets, "{}");
        let terms = Terms { kin: kin.iter().map(|id| KeyId::new(*id)).collect(), ..Terms::clone(&caller.terms) };
        Caller { key: Some(KeyId::new(key)), terms: Arc::new(terms), ..caller }
    };
    let (old, new) = (of("a", &["a", "b"]), of("b", &["a", "b"]));
    let first = purse();
    assert!(spends(&first, &of("a", &[]), EVENING) && spends(&first, &new, EVENING));
    assert!(spends(&first, &old, EVENING) && !spends(&first, &new, EVENING) && !spends(&first, &old, EVENING));
    assert!(spends(&first, &of("c", &[]), EVENING), "another key has its own");
    // After a restart, whichever of them calls first.
    for caller in [&old, &new] {
        let (purse, ledger) = (purse(), Shelf::default());
        purse.expect_ledger();
        purse.set_strict(true);
        let before = ["a", "b", "c"].map(|key| charge(key, "1", EVENING.millis()));
        ledger.change(|rows| rows.charges.extend(before));
        assert!(!spends(&purse, caller, EVENING), "nobody knows yet");
        wait(purse.load(&ledger, false)).unwrap();
        assert!(spends(&purse, caller, EVENING) && !spends(&purse, caller, EVENING));
        // What is posted is counted once.
        let mut own = charge(caller.key.as_ref().unwrap().as_str(), "1", EVENING.millis());
        own.id = PostingId::new();
        purse.posted([&own]);
        ledger.change(|rows| rows.charges.push(own));
        wait(purse.load(&ledger, true)).unwrap();
        assert_eq!(purse.taken(&caller.tenant), (Money::from_units(3), Money::ZERO));
    }
}
