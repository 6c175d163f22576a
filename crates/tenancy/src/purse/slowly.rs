//! A ledger that takes long to add up, and one that is away.

use std::time::Duration;

use kernel::{KeyId, TenantId};

use super::loading::Pace;
use super::tests::{EVENING, ask, caller, fixed, purse};
use super::*;
use crate::invoice::tests::shelf::Shelf;

const TENANTS: usize = 200;

fn of(nth: usize) -> Caller {
    Caller {
        tenant: TenantId::new(format!("t{nth}")),
        key: Some(KeyId::new("k")),
        ..caller(r#"[{"limit":"5","per":"month"}]"#, "[]", "{}")
    }
}

/// Whether the ledger has told what a tenant has spent.
fn is_loaded(purse: &Purse, nth: usize) -> bool {
    purse.view(&of(nth).tenant, EVENING).0.iter().all(|view| view.loaded)
}

/// All have called once, with hard budgets, and nobody knows yet what they have spent.
fn called() -> (Arc<Purse>, Shelf) {
    let purse = purse();
    purse.expect_ledger();
    for nth in 0..TENANTS {
        assert!(purse.reserve(&ask(&of(nth), &ModelName::new("m")), fixed).is_err());
    }
    (purse, Shelf::default())
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_takes_long_to_add_up_holds_up_itself_alone_and_makes_nobody_blind() {
    let (purse, ledger) = called();
    let hour = Duration::from_secs(3600);
    ledger.change(|rows| rows.slow.insert(of(77).tenant, hour));
    let (mut pace, began) = (Pace::default(), tokio::time::Instant::now());
    while purse.unknown() > 0 {
        let step = tokio::time::Instant::now();
        purse.load_at(&mut pace, &ledger, false).await.unwrap();
        assert!(step.elapsed() <= Duration::from_secs(10), "posting goes on between");
        assert!(purse.is_being_told() && !purse.blind(), "the store is well");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((0..TENANTS).filter(|nth| !is_loaded(&purse, *nth)).collect::<Vec<_>>(), [77]);
    assert_eq!(pace.off(), 1);
    // Its calls do not bring it back before its time, nor does asking about all again.
    let _ = purse.reserve(&ask(&of(77), &ModelName::new("m")), fixed);
    let refreshed = tokio::time::Instant::now();
    purse.load_at(&mut pace, &ledger, true).await.unwrap();
    while purse.unknown() > 0 {
        purse.load_at(&mut pace, &ledger, false).await.unwrap();
    }
    assert!(refreshed.elapsed() < Duration::from_secs(1), "{:?}", refreshed.elapsed());
    // Later it is tried again, and found to have become quick.
    ledger.change(|rows| rows.slow.clear());
    assert!(!pace.has_due());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(pace.has_due());
    // New ones come before it.
    assert!(purse.reserve(&ask(&of(TENANTS), &ModelName::new("m")), fixed).is_err());
    purse.load_at(&mut pace, &ledger, false).await.unwrap();
    assert!(is_loaded(&purse, TENANTS) && !is_loaded(&purse, 77) && pace.has_due());
    purse.load_at(&mut pace, &ledger, false).await.unwrap();
    assert!(is_loaded(&purse, 77) && pace.off() == 0);
}

#[tokio::test]
async fn who_was_subscribed_to_what_is_one_question_for_all() {
    let (purse, ledger) = (purse(), Arc::new(Shelf::default()));
    purse.expect_ledger();
    purse.expect_fees(Arc::clone(&ledger) as _);
    let billing = r#"{"monthly":{"fee":"1","included_tokens":300,"overage_per_1k_tokens":"1"}}"#;
    for nth in 0..TENANTS {
        let caller = Caller { tenant: of(nth).tenant, ..caller("[]", "[]", billing) };
        let _ = purse.reserve(&ask(&caller, &ModelName::new("m")), fixed);
    }
    purse.load(&*ledger, false).await.unwrap();
    assert_eq!(purse.unknown(), 0);
    assert_eq!(ledger.change(|rows| rows.questions), 3, "the month, the month by day, and that");
}

#[tokio::test(start_paused = true)]
async fn tenants_that_all_take_some_time_are_asked_about_in_as_many_questions_as_it_needs() {
    let (purse, ledger) = called();
    for nth in 0..TENANTS {
        ledger.change(|rows| rows.slow.insert(of(nth).tenant, Duration::from_millis(700)));
    }
    let mut pace = Pace::default();
    while purse.unknown() > 0 {
        purse.load_at(&mut pace, &ledger, false).await.unwrap();
        assert!(!purse.blind(), "slow is not away");
    }
    assert!((0..TENANTS).all(|nth| is_loaded(&purse, nth)) && pace.off() == 0);
}

#[tokio::test(start_paused = true)]
async fn only_a_store_that_is_away_makes_budgets_blind() {
    let (purse, ledger) = called();
    ledger.change(|rows| rows.away = true);
    let mut pace = Pace::default();
    assert!(purse.load_at(&mut pace, &ledger, false).await.is_err());
    assert!(purse.blind() && purse.unknown() == TENANTS && pace.off() == 0, "nobody is put off for it");
    ledger.change(|rows| rows.away = false);
    while purse.unknown() > 0 {
        purse.load_at(&mut pace, &ledger, false).await.unwrap();
    }
    assert!(!purse.blind() && (0..TENANTS).all(|nth| is_loaded(&purse, nth)));
}
