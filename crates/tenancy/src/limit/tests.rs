//! What a limiter promises, call by call.

use std::time::Duration;

use kernel::contract::ModelLimits;
use kernel::error::Kind;
use kernel::{KeyId, Limits, Terms};

use super::*;

const START: u64 = 5_000_000;

fn at(millis: u64) -> Moment {
    Moment::from_micros(START + millis * 1000)
}

fn rps(rps: u32) -> Limits {
    Limits { rps: Some(rps), ..Limits::default() }
}

fn caller(terms: Terms) -> Caller {
    Caller { tenant: TenantId::new("acme"), key: Some(KeyId::new("k1")), terms: Arc::new(terms) }
}

fn of_tenant(limits: Limits) -> Caller {
    caller(Terms { limits, ..Terms::default() })
}

fn m(name: &str) -> ModelName {
    ModelName::new(name)
}

fn ask(limiter: &Arc<Limiter>, caller: &Caller, now: Moment) -> Result<Taken, Box<Refused>> {
    limiter.admit(caller, &m("m"), Ask::default(), now).map(|taken| taken.unwrap())
}

/// How many of `calls` calls at one moment pass.
fn pass(limiter: &Arc<Limiter>, caller: &Caller, model: &str, calls: usize, now: Moment) -> usize {
    let model = m(model);
    (0..calls)
        .filter(|_| {
            limiter.admit(caller, &model, Ask::default(), now).map(|taken| taken.map(|one| one.leave(now))).is_ok()
        })
        .count()
}

#[test]
fn where_nothing_is_limited_nothing_is_looked_up() {
    let limiter = Arc::new(Limiter::default());
    let model_only =
        Terms { model_limits: [ModelLimits { model: "big*".into(), limits: rps(1) }].into(), ..Terms::default() };
    let free = |caller: &Caller| limiter.admit(caller, &m("m"), Ask::default(), at(0)).unwrap().is_none();
    assert!(free(&Caller::anonymous()) && free(&caller(model_only.clone())));
    let keyless = Caller { key: None, ..caller(Terms { key_limits: rps(1), ..Terms::default() }) };
    assert!(free(&keyless), "no key, no key's limit");
    assert_eq!(limiter.tenants(), 0);
}

#[test]
fn a_refusal_says_which_limit_whose_and_when_and_it_is_true() {
    let limiter = Arc::new(Limiter::default());
    let check = |caller: Caller, words: &str, cause: &str| {
        let taken = ask(&limiter, &caller, at(0)).unwrap();
        let refused = ask(&limiter, &caller, at(0)).unwrap_err();
        let Refused { error, .. } = *refused;
        assert!(error.message.contains(words), "{words}: {}", error.message);
        assert_eq!((error.kind, &*error.cause), (Kind::Limited, cause));
        let wait = error.retry_after.unwrap();
        if cause != "limit_concurrency" {
            let early = at(0) + (wait - Duration::from_micros(1));
            assert!(ask(&limiter, &caller, early).is_err(), "{words}: not before");
        }
        taken.leave(at(0));
        assert!(ask(&limiter, &caller, at(0) + wait).is_ok(), "{words}: then it passes");
    };
    let named = |tenant: &str, terms: Terms| Caller { tenant: TenantId::new(tenant), ..caller(terms) };
    let tenant = |name: &str, limits: Limits| named(name, Terms { limits, ..Terms::default() });
    check(tenant("a", rps(1)), "1 requests per second of this tenant", "limit_rps");
    check(tenant("b", Limits { rpm: Some(1), ..Limits::default() }), "1 requests per minute", "limit_rpm");
    check(tenant("c", Limits { tpm: Some(1), ..Limits::default() }), "1 tokens per minute", "limit_tpm");
    check(tenant("d", Limits { concurrency: Some(1), ..Limits::default() }), "1 calls at once", "limit_concurrency");
    check(named("e", Terms { key_limits: rps(1), ..Terms::default() }), "of this API key", "limit_rps");
    let model_limits = [ModelLimits { model: "m".into(), limits: rps(1) }].into();
    check(named("f", Terms { model_limits, ..Terms::default() }), "of this tenant on the model `m`", "limit_rps");
}

#[test]
fn a_call_that_one_limit_holds_up_takes_nothing_of_the_others() {
    let limiter = Arc::new(Limiter::default());
    let both = caller(Terms { limits: rps(10), key_limits: rps(2), ..Terms::default() });
    assert_eq!(pass(&limiter, &both, "m", 9, at(0)), 2);
    let other_key = Caller { key: Some(KeyId::new("k2")), ..both.clone() };
    let left = ask(&limiter, &other_key, at(0)).unwrap().view(at(0));
    assert_eq!(left.requests.unwrap().remaining, 1, "the second key's own; of the tenant's seven are left");
    assert_eq!(pass(&limiter, &Caller { key: None, ..both }, "m", 20, at(0)), 7);
}

#[test]
fn each_key_and_each_model_has_its_own_and_the_closest_pattern_counts() {
    let limiter = Arc::new(Limiter::default());
    let of = |model: &str, limit: u32| ModelLimits { model: model.into(), limits: rps(limit) };
    let model_limits = [of("*", 9), of("gpt-*", 3), of("gpt-4o", 2), of("gpt-*", 7)].into();
    let caller = caller(Terms { model_limits, ..Terms::default() });
    let passed = ["gpt-4o", "gpt-5", "gpt-4o-mini", "llama"].map(|model| pass(&limiter, &caller, model, 20, at(0)));
    assert_eq!(passed, [2, 3, 3, 9]);
}

#[test]
fn calls_at_once_come_back_however_they_end() {
    let limiter = Arc::new(Limiter::default());
    let caller = of_tenant(Limits { concurrency: Some(2), ..Limits::default() });
    let mut held = vec![ask(&limiter, &caller, at(0)).unwrap(), ask(&limiter, &caller, at(0)).unwrap()];
    let refused = ask(&limiter, &caller, at(0)).unwrap_err();
    assert_eq!(refused.view.concurrency.unwrap(), Gauge { limit: 2, remaining: 0, reset: Duration::ZERO });
    drop(held.pop());
    held.push(ask(&limiter, &caller, at(1)).unwrap());
    held.pop().unwrap().leave(at(400));
    held.push(ask(&limiter, &caller, at(400)).unwrap());
    let told = ask(&limiter, &caller, at(400)).unwrap_err().error.retry_after.unwrap();
    assert!(told >= Duration::from_millis(50) && told < Duration::from_secs(1), "as calls stay: {told:?}");
}

#[test]
fn tokens_are_thought_first_and_made_up_for_in_the_end() {
    let limiter = Arc::new(Limiter::default());
    let caller = of_tenant(Limits { tpm: Some(1000), ..Limits::default() });
    let ask = Ask { bytes: 400, output_max: Some(Tokens(100_000)), answered: true, choices: 1 };
    let admit = |now| limiter.admit(&caller, &m("m"), ask, now).map(Option::unwrap);
    let left = |taken: &Taken, now| taken.view(now).tokens.unwrap().remaining;
    let mut taken = admit(at(0)).unwrap();
    assert_eq!(left(&taken, at(0)), 1000 - 100 - 256, "not the most it may be answered");
    let usage = Usage { input: Tokens(90), output: Tokens(10), ..Usage::default() };
    taken.correct(&usage, at(0));
    taken.correct(&usage, at(0));
    assert_eq!(left(&taken, at(0)), 900, "once");
    let second = admit(at(0)).unwrap();
    assert_eq!(left(&second, at(0)), 900 - 110, "learned");
    let mut third = admit(at(0)).unwrap();
    third.correct(&Usage { input: Tokens(90), output: Tokens(1500), ..Usage::default() }, at(0));
    let refused = admit(at(0)).unwrap_err();
    assert_eq!(refused.view.tokens.unwrap().remaining, 0);
    // 100 + 110 + 1590 taken of 1000, at 1000 per minute.
    assert_eq!(refused.error.retry_after.unwrap(), Duration::from_micros(60_000 * 801));
    let mut failed = admit(at(60_000)).unwrap();
    failed.unused(at(60_000));
    assert_eq!(left(&failed, at(60_000)), 200, "a call that nobody answered takes no tokens");
}

#[test]
fn a_call_larger_than_its_whole_limit_passes_where_anything_is_left_and_is_paid_for() {
    let limiter = Arc::new(Limiter::default());
    let caller = of_tenant(Limits { tpm: Some(100), ..Limits::default() });
    let huge = Ask { bytes: 4000, output_max: None, answered: false, choices: 1 };
    let taken = limiter.admit(&caller, &m("m"), huge, at(0)).unwrap().unwrap();
    assert_eq!(taken.view(at(0)).tokens.unwrap().remaining, 0);
    let refused = limiter.admit(&caller, &m("m"), Ask::default(), at(0)).unwrap_err();
    assert_eq!(refused.error.retry_after.unwrap(), Duration::from_millis(901 * 600));
}

#[test]
fn the_tightest_limit_is_shown_and_reset_waits_for_all_of_them() {
    let limiter = Arc::new(Limiter::default());
    let caller = of_tenant(Limits { rps: Some(10), rpm: Some(60), ..Limits::default() });
    assert_eq!(pass(&limiter, &caller, "m", 7, at(0)), 7);
    let view = ask(&limiter, &caller, at(0)).unwrap().view(at(0)).requests.unwrap();
    assert_eq!(view, Gauge { limit: 10, remaining: 2, reset: Duration::from_millis(800) });
    for second in 1..7 {
        pass(&limiter, &caller, "m", 9, at(second * 1000));
    }
    let view = ask(&limiter, &caller, at(7000)).unwrap().view(at(7000)).requests.unwrap();
    // 63 were taken and 7 have come back: 4 of 60 are left, and ten when six more have come back.
    assert_eq!((view.limit, view.remaining, view.reset), (10, 4, Duration::from_secs(6)));
}

#[test]
fn a_changed_limit_keeps_what_is_taken_and_a_limit_taken_away_holds_nobody_up() {
    let limiter = Arc::new(Limiter::default());
    assert_eq!(pass(&limiter, &of_tenant(rps(10)), "m", 8, at(0)), 8);
    assert_eq!(pass(&limiter, &of_tenant(rps(12)), "m", 8, at(0)), 4);
    let held = ask(&limiter, &of_tenant(Limits { concurrency: Some(1), ..Limits::default() }), at(0)).unwrap();
    assert!(ask(&limiter, &of_tenant(Limits { concurrency: Some(1), ..Limits::default() }), at(0)).is_err());
    assert_eq!(pass(&limiter, &of_tenant(Limits { rpm: Some(5), ..Limits::default() }), "m", 9, at(0)), 5);
    drop(held);
}

#[test]
fn tenants_at_rest_are_forgotten_and_those_who_owe_or_hold_are_not() {
    let limiter = Arc::new(Limiter::default());
    let of = |tenant: usize| Caller { tenant: TenantId::new(format!("t{tenant}")), ..of_tenant(rps(1)) };
    for tenant in 0..100_000 {
        pass(&limiter, &of(tenant), "m", 1, at(0));
    }
    let held = ask(&limiter, &of(0), at(1000)).unwrap();
    limiter.tend(at(500));
    assert_eq!(limiter.tenants(), 100_000);
    limiter.tend(at(1500));
    assert_eq!(limiter.tenants(), 1);
    drop(held);
    limiter.tend(at(2500));
    assert_eq!(limiter.tenants(), 0);
}
