//! Budgets hold, whoever calls at once.

use kernel::contract::{Budget, Period};
use kernel::error::Kind;
use kernel::store::ledger::{Account as Side, Cause, Ending, Transfer};
use kernel::store::registry::{PlanRow, Source, SubscriptionRow};
use kernel::{Currency, KeyId, RequestId, Terms, Version};
use proptest::prelude::*;

use super::*;
use crate::invoice::tests::shelf::Shelf;
use crate::invoice::tests::wait;
use crate::invoice::tests::world::{World, at, month};

/// 2026-11-30, a quarter to midnight.
const EVENING: Timestamp = Timestamp(1_796_082_300_000);
const DAY: i64 = 86_400_000;

fn caller(budgets: &str, key_budgets: &str, billing: &str) -> Caller {
    let list = |json: &str| serde_json::from_str::<Vec<Budget>>(json).unwrap().into();
    let terms = Terms {
        budgets: list(budgets),
        key_budgets: list(key_budgets),
        billing: Arc::new(serde_json::from_str(billing).unwrap()),
        ..Terms::default()
    };
    Caller { tenant: TenantId::new("acme"), key: Some(KeyId::new("k")), terms: Arc::new(terms) }
}

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

fn purse() -> Arc<Purse> {
    Purse::new(|_| {})
}

fn ask<'a>(caller: &'a Caller, model: &'a ModelName) -> Ask<'a> {
    Ask {
        id: PostingId::new(),
        caller,
        model,
        listed: None,
        bytes: 400,
        output_max: None,
        choices: 1,
        answers: true,
        streams: true,
        held: true,
        blind: false,
        now: EVENING,
    }
}

fn tokens(usage: &Usage) -> Money {
    Money::from_units(1).times(usage.total().0)
}

fn fixed(_: &Usage) -> Money {
    Money::from_units(1)
}

#[test]
fn of_fifty_calls_at_once_on_a_budget_for_ten_exactly_ten_pass() {
    for budgets in [(r#"[{"limit":"10","per":"day"}]"#, "[]"), ("[]", r#"[{"limit":"10","per":"total"}]"#)] {
        let (purse, caller) = (purse(), caller(budgets.0, budgets.1, r#"{"per_call":"1"}"#));
        let passed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    if let Ok(held) = purse.reserve(&ask(&caller, &ModelName::new("m")), fixed) {
                        passed.lock().unwrap().push(held);
                    }
                });
            }
        });
        assert_eq!(passed.lock().unwrap().len(), 10, "{budgets:?}");
        assert_eq!(purse.pending(), Money::from_units(10));
        for (nth, held) in passed.into_inner().unwrap().into_iter().enumerate() {
            if nth < 4 {
                held.settle(&Usage::default(), Money::from_units(1), EVENING, false);
            }
        }
        assert_eq!(purse.taken(&caller.tenant), (Money::from_units(4), Money::ZERO));
        let again: Vec<_> =
            (0..9).filter_map(|_| purse.reserve(&ask(&caller, &ModelName::new("m")), fixed).ok()).collect();
        assert_eq!(again.len(), 6, "what was not spent is free again");
    }
}

#[test]
fn who_is_refused_is_told_which_budget_and_when_it_starts_anew() {
    let caller = caller(r#"[{"limit":"0.5","per":"month"}]"#, "[]", "{}");
    let error = purse().reserve(&ask(&caller, &ModelName::new("m")), fixed).err().unwrap();
    assert_eq!((error.kind, &*error.cause), (Kind::OverBudget, "over_budget"));
    assert_eq!(
        error.message,
        "The budget of tenant `acme`, 0.5 usd a month, is spent: 0 usd are used or reserved. It starts anew at \
         2026-12-01T00:00:00Z."
    );
}

#[test]
fn a_call_gets_what_is_left_and_more_until_nothing_is() {
    let (purse, model) = (purse(), ModelName::new("m"));
    // 100 tokens of prompt, 256 of answer are expected.
    let caller = caller(r#"[{"limit":"600","per":"day"}]"#, "[]", "{}");
    let mut first = purse.reserve(&ask(&caller, &model), tokens).unwrap();
    assert_eq!(first.amount(), Money::from_units(356));
    let second = purse.reserve(&ask(&caller, &model), tokens).unwrap();
    assert_eq!(second.amount(), Money::from_units(244), "what is left pays for a shorter answer");
    assert!(purse.reserve(&ask(&caller, &model), tokens).is_err());
    let flowed = |output| Usage { input: Tokens(100), output: Tokens(output), ..Usage::default() };
    assert!(first.cover(&flowed(256), tokens, EVENING).is_ok());
    let error = first.cover(&flowed(257), tokens, EVENING).err().unwrap();
    assert_eq!(error.kind, Kind::OverBudget);
    drop(second);
    first.cover(&flowed(257), tokens, EVENING).unwrap();
    assert_eq!(first.amount(), Money::from_units(100 + 257 + 64), "somewhat more than needed");
    first.cover(&flowed(500), tokens, EVENING).unwrap();
    assert!(first.cover(&flowed(501), tokens, EVENING).is_err());
    first.settle(&flowed(500), Money::from_units(600), EVENING, true);
    assert_eq!(purse.taken(&caller.tenant), (Money::from_units(600), Money::ZERO));
}

#[test]
fn a_worst_case_reserves_no_more_than_what_is_likely() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let caller = caller(r#"[{"limit":"1000","per":"day"}]"#, "[]", "{}");
    let mut asked = ask(&caller, &model);
    asked.output_max = Some(Tokens(1_000_000));
    let held = purse.reserve(&asked, tokens).unwrap();
    assert_eq!(held.amount(), Money::from_units(356));
    asked.output_max = Some(Tokens(5));
    assert_eq!(purse.reserve(&asked, tokens).unwrap().amount(), Money::from_units(105));
}

#[test]
fn each_of_several_answers_is_set_aside_and_learned_from() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let caller = caller(r#"[{"limit":"5000","per":"day"}]"#, "[]", "{}");
    let asked = Ask { choices: 5, ..ask(&caller, &model) };
    let held = purse.reserve(&asked, tokens).unwrap();
    assert_eq!(held.amount(), Money::from_units(100 + 5 * 256));
    let short = Ask { output_max: Some(Tokens(10)), ..asked };
    assert_eq!(purse.reserve(&short, tokens).unwrap().amount(), Money::from_units(100 + 5 * 10));
    let whole = Ask { streams: false, ..asked };
    assert_eq!(purse.reserve(&whole, tokens).unwrap().amount(), Money::from_units(100 + 5 * 640));
    let vectors = Ask { answers: false, ..asked };
    assert_eq!(purse.reserve(&vectors, tokens).unwrap().amount(), Money::from_units(100));
    let usage = Usage { input: Tokens(100), output: Tokens(5 * 256), ..Usage::default() };
    held.settle(&usage, Money::ZERO, EVENING, true);
    assert_eq!(
        purse.reserve(&ask(&caller, &model), tokens).unwrap().amount(),
        Money::from_units(356),
        "as long as before"
    );
    // Five few words each must be paid for, not sixteen tokens in all.
    let little = Caller { terms: caller.terms.clone(), tenant: TenantId::new("other"), key: None };
    let _most = purse.reserve(&Ask { choices: 1, bytes: 4 * 4600, ..ask(&little, &model) }, tokens).unwrap();
    assert!(purse.reserve(&Ask { choices: 5, ..ask(&little, &model) }, tokens).is_err(), "144 are left");
    assert!(purse.reserve(&ask(&little, &model), tokens).is_ok());
}

#[test]
fn every_budget_must_agree_and_only_the_models_it_names_count() {
    let purse = purse();
    let caller = caller(
        r#"[{"limit":"100","per":"month"},{"limit":"2","per":"day","models":["gpt-*"]},{"limit":"3","per":"day","scope":"key"}]"#,
        "[]",
        "{}",
    );
    let (gpt, other) = (ModelName::new("gpt-4o"), ModelName::new("llama"));
    let spend = |model: &ModelName| {
        let held = purse.reserve(&ask(&caller, model), fixed).ok()?;
        held.settle(&Usage::default(), Money::from_units(1), EVENING, false);
        Some(())
    };
    assert!(spend(&gpt).is_some() && spend(&gpt).is_some() && spend(&gpt).is_none());
    assert!(spend(&other).is_some() && spend(&other).is_none(), "the key's three are spent");
    let second = Caller { key: Some(KeyId::new("k2")), ..caller.clone() };
    assert!(purse.reserve(&ask(&second, &other), fixed).is_ok(), "another key has its own");
    assert!(purse.reserve(&ask(&second, &gpt), fixed).is_err(), "the tenant's counts all keys");
}

#[test]
fn a_period_starts_anew_and_what_is_reserved_goes_over_into_it() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let caller = caller(r#"[{"limit":"2","per":"day"}]"#, "[]", "{}");
    let (a, b) =
        (purse.reserve(&ask(&caller, &model), fixed).unwrap(), purse.reserve(&ask(&caller, &model), fixed).unwrap());
    a.settle(&Usage::default(), Money::from_units(1), EVENING, false);
    let tomorrow = Timestamp(EVENING.millis() + DAY);
    let next = Ask { now: tomorrow, ..ask(&caller, &model) };
    let c = purse.reserve(&next, fixed).unwrap();
    assert!(purse.reserve(&next, fixed).is_err(), "one is still reserved of yesterday's");
    b.settle(&Usage::default(), Money::from_units(1), EVENING, false);
    assert_eq!(purse.taken(&caller.tenant), (Money::ZERO, Money::from_units(1)), "it belongs to yesterday");
    c.settle(&Usage::default(), Money::from_units(1), tomorrow, false);
    assert_eq!(purse.taken(&caller.tenant).0, Money::from_units(1));
}

/// Spends one at a time; tells whether it could.
fn spends(purse: &Arc<Purse>, caller: &Caller, now: Timestamp) -> bool {
    let model = ModelName::new("m");
    let held = purse.reserve(&Ask { now, id: PostingId::new(), ..ask(caller, &model) }, fixed);
    held.map(|held| held.settle(&Usage::default(), Money::from_units(1), now, false)).is_ok()
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
        let held = purse.reserve(&asked, |_| Money::ZERO).unwrap();
        held.settle(&used(tokens), Money::ZERO, at, false);
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

#[test]
fn another_limit_keeps_what_was_spent() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let small = caller(r#"[{"limit":"1","per":"day"}]"#, "[]", "{}");
    purse.reserve(&ask(&small, &model), fixed).unwrap().settle(&Usage::default(), Money::from_units(1), EVENING, false);
    let large = caller(r#"[{"limit":"2","per":"day"}]"#, "[]", "{}");
    assert!(purse.reserve(&ask(&small, &model), fixed).is_err());
    let held = purse.reserve(&ask(&large, &model), fixed).unwrap();
    assert!(purse.reserve(&ask(&large, &model), fixed).is_err());
    drop(held);
}

#[test]
fn a_soft_budget_refuses_nobody_and_is_told_of_once() {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notices);
    let purse = Purse::new(move |notice| kept.lock().unwrap().push((notice.limit, notice.spent)));
    let caller = caller(r#"[{"limit":"2","per":"day","hard":false}]"#, "[]", "{}");
    for _ in 0..5 {
        let held = purse.reserve(&ask(&caller, &ModelName::new("m")), fixed).unwrap();
        held.settle(&Usage::default(), Money::from_units(1), EVENING, false);
    }
    assert_eq!(*notices.lock().unwrap(), [(Money::from_units(2), Money::from_units(3))]);
}

#[test]
fn what_costs_nothing_is_never_refused() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let caller = caller(r#"[{"limit":"0","per":"day"}]"#, "[]", r#"{"prepaid":true}"#);
    purse.set_strict(true);
    assert!(purse.reserve(&ask(&caller, &model), |_| Money::ZERO).is_ok());
    assert_eq!(purse.reserve(&ask(&caller, &model), fixed).err().unwrap().kind, Kind::Unavailable);
    purse.set_strict(false);
    assert_eq!(purse.reserve(&ask(&caller, &model), fixed).err().unwrap().kind, Kind::OverBudget);
}

#[test]
fn tokens_beyond_the_included_ones_spend_a_budget_at_once() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let monthly = r#"{"monthly":{"fee":"1","included_tokens":400,"overage_per_1k_tokens":"1000"}}"#;
    let caller = caller(r#"[{"limit":"500","per":"month"}]"#, "[]", monthly);
    let free = |_: &Usage| Money::ZERO;
    let held = purse.reserve(&ask(&caller, &model), free).unwrap();
    assert_eq!(held.amount(), Money::ZERO, "356 are included");
    let usage = Usage { input: Tokens(100), output: Tokens(600), ..Usage::default() };
    held.settle(&usage, Money::ZERO, EVENING, false);
    assert_eq!(purse.taken(&caller.tenant).0, Money::from_units(300));
    assert_eq!(purse.reserve(&ask(&caller, &model), free).unwrap().amount(), Money::from_units(200));
}

proptest! {
    #[test]
    fn posted_and_pending_never_exceed_the_limit(steps in proptest::collection::vec((0u8..4, 0usize..8, 0u64..400), 1..200)) {
        let (purse, model) = (purse(), ModelName::new("m"));
        let caller = caller(r#"[{"limit":"2000","per":"day"}]"#, r#"[{"limit":"1500","per":"total"}]"#, "{}");
        let mut held: Vec<(Reservation, Usage)> = Vec::new();
        for (what, which, more) in steps {
            match what {
                0 => if let Ok(reservation) = purse.reserve(&ask(&caller, &model), tokens) {
                    held.push((reservation, Usage { input: Tokens(100), ..Usage::default() }));
                },
                1 | 2 if !held.is_empty() => {
                    let at = which % held.len();
                    let (reservation, usage) = &mut held[at];
                    let next = Usage { output: Tokens(usage.output.0 + more), ..*usage };
                    if reservation.cover(&next, tokens, EVENING).is_ok() {
                        *usage = next;
                    }
                }
                3 if !held.is_empty() => {
                    let (reservation, usage) = held.swap_remove(which % held.len());
                    if more % 3 > 0 {
                        reservation.settle(&usage, tokens(&usage), EVENING, true);
                    }
                }
                _ => {}
            }
            let (spent, pending) = purse.taken(&caller.tenant);
            prop_assert!(spent + pending <= Money::from_units(1500), "{} + {}", spent, pending);
        }
        drop(held);
        prop_assert_eq!(purse.pending(), Money::ZERO);
    }
}
