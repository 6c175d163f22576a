//! Budgets hold, whoever calls at once.

use kernel::contract::Budget;
use kernel::error::Kind;
use kernel::{Currency, KeyId, Terms};
use proptest::prelude::*;

use super::*;

/// 2026-11-30, a quarter to midnight.
pub(super) const EVENING: Timestamp = Timestamp(1_796_082_300_000);
pub(super) const DAY: i64 = 86_400_000;

pub(super) fn caller(budgets: &str, key_budgets: &str, billing: &str) -> Caller {
    let list = |json: &str| serde_json::from_str::<Vec<Budget>>(json).unwrap().into();
    let terms = Terms {
        budgets: list(budgets),
        key_budgets: list(key_budgets),
        billing: Arc::new(serde_json::from_str(billing).unwrap()),
        ..Terms::default()
    };
    Caller { tenant: TenantId::new("acme"), key: Some(KeyId::new("k")), terms: Arc::new(terms) }
}

pub(super) fn purse() -> Arc<Purse> {
    Purse::new(|_| {})
}

pub(super) fn ask<'a>(caller: &'a Caller, model: &'a ModelName) -> Ask<'a> {
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
        measured: true,
        gpus: false,
        held: true,
        blind: false,
        now: EVENING,
    }
}

fn tokens(usage: &Usage, _: u64) -> Money {
    Money::from_units(1).times(usage.total().0)
}

pub(super) fn fixed(_: &Usage, _: u64) -> Money {
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
                held.settle(&Usage::default(), Money::from_units(1), EVENING, None);
            }
        }
        assert_eq!(purse.taken(&caller.tenant), (Money::from_units(4), Money::ZERO));
        let again: Vec<_> =
            (0..9).filter_map(|_| purse.reserve(&ask(&caller, &ModelName::new("m")), fixed).ok()).collect();
        assert_eq!(again.len(), 6, "what was not spent is free again");
    }
}

#[test]
fn who_is_refused_is_told_which_budget_what_stands_in_the_way_and_when_it_starts_anew() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let refused = |caller: &Caller| {
        let error = purse.reserve(&ask(caller, &model), fixed).err().unwrap();
        assert_eq!(error.kind, Kind::OverBudget);
        (error.message.into_owned(), error.cause.into_owned(), error.retry_after)
    };
    let of = |tenant: &str, budgets: &str, billing: &str| Caller {
        tenant: TenantId::new(tenant),
        ..caller(budgets, "[]", billing)
    };
    let anew = "It starts anew at 2026-12-01T00:00:00Z.";
    let small = of("small", r#"[{"limit":"0.5","per":"month"}]"#, "{}");
    let said = "The budget of tenant `small`, 0.5 usd a month, does not pay for this call: 0 usd are spent, 0 usd reserved \
                by calls under way; the rest is too small for this call, which takes at least 1 usd. ";
    assert_eq!(refused(&small), (format!("{said}{anew}"), "over_budget".into(), None));
    let two = of("acme", r#"[{"limit":"2.5","per":"month"}]"#, "{}");
    let reserve = || purse.reserve(&ask(&two, &model), fixed).unwrap();
    let spend = |held: Reservation, units| held.settle(&Usage::default(), Money::from_units(units), EVENING, None);
    let (first, second) = (reserve(), reserve());
    spend(first, 1);
    let said = "The budget of tenant `acme`, 2.5 usd a month, does not pay for this call: 1 usd are spent, 1 usd reserved \
                by calls under way; try again when they have ended. ";
    assert_eq!(refused(&two), (format!("{said}{anew}"), "over_budget".into(), Some(Duration::from_secs(1))));
    spend(second, 2);
    let said =
        "The budget of tenant `acme`, 2.5 usd a month, is spent: 3 usd are spent, 0 usd reserved by calls under way. ";
    assert_eq!(refused(&two), (format!("{said}{anew}"), "over_budget".into(), None));
    let paid = of("paid", "[]", r#"{"prepaid":true}"#);
    let books = purse.account(&paid.tenant);
    (books.lock().balance.loaded, books.lock().balance.posted) = (true, Money::from_units(1));
    let held = purse.reserve(&ask(&paid, &model), fixed).unwrap();
    let said = "The prepaid balance of tenant `paid` does not pay for this call: 1 usd are left, 1 usd of them reserved by \
                calls under way; try again when they have ended. Pay in, then try again.";
    assert_eq!(refused(&paid), (said.into(), "no_balance".into(), Some(Duration::from_secs(1))));
    spend(held, 1);
    let said = "The prepaid balance of tenant `paid` is spent: 0 usd are left, 0 usd of them reserved by calls under way. \
                Pay in, then try again.";
    assert_eq!(refused(&paid), (said.into(), "no_balance".into(), None));
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
    assert!(first.cover(&flowed(256), 0, tokens, EVENING).is_ok());
    let error = first.cover(&flowed(257), 0, tokens, EVENING).err().unwrap();
    assert_eq!(error.kind, Kind::OverBudget);
    drop(second);
    first.cover(&flowed(257), 0, tokens, EVENING).unwrap();
    assert_eq!(first.amount(), Money::from_units(100 + 257 + 64), "somewhat more than needed");
    first.cover(&flowed(500), 0, tokens, EVENING).unwrap();
    assert!(first.cover(&flowed(501), 0, tokens, EVENING).is_err());
    first.settle(&flowed(500), Money::from_units(600), EVENING, Some(0));
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
    held.settle(&usage, Money::ZERO, EVENING, Some(0));
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
        held.settle(&Usage::default(), Money::from_units(1), EVENING, None);
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
    a.settle(&Usage::default(), Money::from_units(1), EVENING, None);
    let tomorrow = Timestamp(EVENING.millis() + DAY);
    let next = Ask { now: tomorrow, ..ask(&caller, &model) };
    let c = purse.reserve(&next, fixed).unwrap();
    assert!(purse.reserve(&next, fixed).is_err(), "one is still reserved of yesterday's");
    b.settle(&Usage::default(), Money::from_units(1), EVENING, None);
    assert_eq!(purse.taken(&caller.tenant), (Money::ZERO, Money::from_units(1)), "it belongs to yesterday");
    c.settle(&Usage::default(), Money::from_units(1), tomorrow, None);
    assert_eq!(purse.taken(&caller.tenant).0, Money::from_units(1));
}

#[test]
fn another_limit_keeps_what_was_spent() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let small = caller(r#"[{"limit":"1","per":"day"}]"#, "[]", "{}");
    purse.reserve(&ask(&small, &model), fixed).unwrap().settle(&Usage::default(), Money::from_units(1), EVENING, None);
    let large = caller(r#"[{"limit":"2","per":"day"}]"#, "[]", "{}");
    assert!(purse.reserve(&ask(&small, &model), fixed).is_err());
    let held = purse.reserve(&ask(&large, &model), fixed).unwrap();
    assert!(purse.reserve(&ask(&large, &model), fixed).is_err());
    drop(held);
}

#[test]
fn what_a_key_has_spent_counts_once_whatever_is_said_later_of_its_line() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let alone = caller("[]", r#"[{"limit":"3","per":"day"}]"#, "{}");
    let after = |former: &str| {
        let terms = Terms { kin: [KeyId::new(former)].into(), ..(*alone.terms).clone() };
        Caller { terms: Arc::new(terms), ..alone.clone() }
    };
    for (nth, caller) in [after("abc"), after("def"), alone.clone()].iter().enumerate() {
        let held = purse.reserve(&ask(caller, &model), fixed).unwrap();
        held.settle(&Usage::default(), Money::from_units(1), EVENING, None);
        let spent = Money::from_units(i64::try_from(nth).unwrap() + 1);
        assert_eq!(purse.taken(&alone.tenant).0, spent);
        assert_eq!(purse.view(&alone.tenant, EVENING).0.len(), 1, "it is counted in one place");
    }
    for caller in [after("abc"), after("def"), alone.clone()] {
        assert!(purse.reserve(&ask(&caller, &model), fixed).is_err(), "no new budget is made by naming another");
    }
    let abc = Caller { key: Some(KeyId::new("abc")), ..alone.clone() };
    assert!(purse.reserve(&ask(&abc, &model), fixed).is_err(), "and the first one shares it");
}

#[test]
fn a_soft_budget_refuses_nobody_and_is_told_of_once() {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notices);
    let purse = Purse::new(move |notice| kept.lock().unwrap().push((notice.limit, notice.spent)));
    let caller = caller(r#"[{"limit":"2","per":"day","hard":false}]"#, "[]", "{}");
    for _ in 0..5 {
        let held = purse.reserve(&ask(&caller, &ModelName::new("m")), fixed).unwrap();
        held.settle(&Usage::default(), Money::from_units(1), EVENING, None);
    }
    assert_eq!(*notices.lock().unwrap(), [(Money::from_units(2), Money::from_units(3))]);
}

#[test]
fn what_costs_nothing_is_never_refused() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let caller = caller(r#"[{"limit":"0","per":"day"}]"#, "[]", r#"{"prepaid":true}"#);
    purse.set_strict(true);
    assert!(purse.reserve(&ask(&caller, &model), |_, _| Money::ZERO).is_ok());
    assert_eq!(purse.reserve(&ask(&caller, &model), fixed).err().unwrap().kind, Kind::Unavailable);
    purse.set_strict(false);
    assert_eq!(purse.reserve(&ask(&caller, &model), fixed).err().unwrap().kind, Kind::OverBudget);
}

fn priced(price: &str) -> Arc<Listed> {
    let price = format!(r#"{{"model":"m","from":"2020-01-01",{price}}}"#);
    let catalogue = crate::Catalogue::new([serde_json::from_str(&price).unwrap()]);
    Arc::clone(catalogue.find("m", Currency::default(), EVENING).unwrap())
}

/// What a call costs by the price alone.
fn by(listed: &Arc<Listed>) -> impl Fn(&Usage, u64) -> Money {
    let listed = Arc::clone(listed);
    move |usage, gpu_millis| {
        let consumed = rating::Consumed { usage, gpu_millis, answered: true, cached: false };
        rating::rate(&consumed, &kernel::Billing::default(), Some(&listed.rates))
    }
}

#[test]
fn whatever_has_a_price_is_refused_once_nothing_is_left() {
    let model = ModelName::new("m");
    let prices = [
        r#""per_image":"0.5""#,
        r#""per_gpu_second":"0.5""#,
        r#""audio_input_per_1m_tokens":"1""#,
        r#""audio_output_per_1m_tokens":"1""#,
        r#""output_per_1m_tokens":"1""#,
        r#""cached_input_per_1m_tokens":"1""#,
    ];
    for (budgets, billing) in [(r#"[{"limit":"0","per":"day"}]"#, "{}"), ("[]", r#"{"prepaid":true}"#)] {
        let caller = caller(budgets, "[]", billing);
        for price in prices {
            let listed = priced(price);
            for (streams, answers, most) in [(true, true, None), (false, false, None), (true, true, Some(Tokens(0)))] {
                let (purse, base) = (purse(), ask(&caller, &model));
                let asked = Ask { listed: Some(&listed), streams, answers, output_max: most, ..base };
                purse.account(&caller.tenant).lock().balance.loaded = true;
                let refused = purse.reserve(&asked, by(&listed)).err();
                assert_eq!(refused.map(|error| error.kind), Some(Kind::OverBudget), "{price} {billing} {streams}");
                let plain = Ask { measured: false, answers: false, bytes: 0, ..asked };
                assert!(purse.reserve(&plain, by(&listed)).is_ok(), "a plain service has none of it");
            }
        }
    }
}

#[test]
fn images_are_set_aside_so_that_of_ten_at_once_as_many_pass_as_can_be_paid() {
    let (purse, model, listed) =
        (purse(), ModelName::new("m"), priced(r#""per_image":"0.5","input_per_1m_tokens":"1""#));
    let caller = caller(r#"[{"limit":"2.002","per":"day"}]"#, "[]", "{}");
    let asked = Ask { listed: Some(&listed), streams: false, ..ask(&caller, &model) };
    let held: Vec<_> = (0..10).filter_map(|_| purse.reserve(&asked, by(&listed)).ok()).collect();
    assert_eq!(held.len(), 4);
    let made = |images| Usage { input: Tokens(100), output: Tokens(1), images, ..Usage::default() };
    drop(held);
    for _ in 0..100 {
        let free = Ask { held: false, ..asked };
        purse.reserve(&free, by(&listed)).unwrap().settle(&made(3), Money::ZERO, EVENING, Some(0));
    }
    assert_eq!(
        purse.reserve(&asked, by(&listed)).unwrap().amount(),
        Money::parse("1.5001").unwrap(),
        "three are learned"
    );
}

#[test]
fn gpu_time_is_set_aside_and_what_it_takes_longer_is_added() {
    let (purse, model, listed) = (purse(), ModelName::new("m"), priced(r#""per_gpu_second":"1""#));
    let caller = caller(r#"[{"limit":"3","per":"day"}]"#, "[]", "{}");
    let asked = Ask { listed: Some(&listed), gpus: true, ..ask(&caller, &model) };
    let mut first = purse.reserve(&asked, by(&listed)).unwrap();
    assert_eq!(first.amount(), Money::from_units(1), "a second is thought to do");
    let others: Vec<_> = (0..9).filter_map(|_| purse.reserve(&asked, by(&listed)).ok()).collect();
    assert_eq!(others.len(), 2);
    assert_eq!(first.cover(&Usage::default(), 1_001, by(&listed), EVENING).err().unwrap().kind, Kind::OverBudget);
    drop(others);
    first.cover(&Usage::default(), 1_001, by(&listed), EVENING).unwrap();
    assert!(first.amount() > Money::parse("1.001").unwrap(), "somewhat more than needed");
}

#[test]
fn sound_is_set_aside_as_it_was_learned() {
    let (purse, model, listed) = (purse(), ModelName::new("m"), priced(r#""audio_output_per_1m_tokens":"1000000""#));
    let caller = caller(r#"[{"limit":"100000","per":"day"}]"#, "[]", "{}");
    let asked = Ask { listed: Some(&listed), ..ask(&caller, &model) };
    let usage = Usage { output: Tokens(200), audio_output: Tokens(100), ..Usage::default() };
    for _ in 0..300 {
        purse.reserve(&asked, by(&listed)).unwrap().settle(&usage, Money::ZERO, EVENING, Some(0));
    }
    let mut held = purse.reserve(&asked, by(&listed)).unwrap();
    assert!((98..=102).any(|tokens| held.amount() == Money::from_units(tokens)), "{}", held.amount());
    held.cover(&Usage { output: Tokens(400), ..Usage::default() }, 0, by(&listed), EVENING).unwrap();
    assert!(held.amount() > Money::from_units(195), "{}", held.amount());
}

#[test]
fn what_a_fee_includes_is_free_until_it_is_used_up() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let monthly = r#"{"monthly":{"fee":"1","included_tokens":400,"overage_per_1k_tokens":"1000"}}"#;
    let caller = caller(r#"[{"limit":"0","per":"month"}]"#, "[]", monthly);
    let free = |_: &Usage, _: u64| Money::ZERO;
    let held = purse.reserve(&ask(&caller, &model), free).unwrap();
    held.settle(&Usage { input: Tokens(100), output: Tokens(300), ..Usage::default() }, Money::ZERO, EVENING, Some(0));
    let least = Ask { bytes: 0, answers: false, ..ask(&caller, &model) };
    assert_eq!(purse.reserve(&least, free).err().unwrap().kind, Kind::OverBudget, "nothing is known of its size");
}

#[test]
fn tokens_beyond_the_included_ones_spend_a_budget_at_once() {
    let (purse, model) = (purse(), ModelName::new("m"));
    let monthly = r#"{"monthly":{"fee":"1","included_tokens":400,"overage_per_1k_tokens":"1000"}}"#;
    let caller = caller(r#"[{"limit":"500","per":"month"}]"#, "[]", monthly);
    let free = |_: &Usage, _: u64| Money::ZERO;
    let held = purse.reserve(&ask(&caller, &model), free).unwrap();
    assert_eq!(held.amount(), Money::ZERO, "356 are included");
    let usage = Usage { input: Tokens(100), output: Tokens(600), ..Usage::default() };
    held.settle(&usage, Money::ZERO, EVENING, None);
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
                    if reservation.cover(&next, 0, tokens, EVENING).is_ok() {
                        *usage = next;
                    }
                }
                3 if !held.is_empty() => {
                    let (reservation, usage) = held.swap_remove(which % held.len());
                    if more % 3 > 0 {
                        reservation.settle(&usage, tokens(&usage, 0), EVENING, Some(0));
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
