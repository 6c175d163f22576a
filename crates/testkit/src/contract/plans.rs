//! Plans and prices.

use kernel::store::Fault;
use kernel::store::registry::{PlanRow, PriceRow, TenantRow};

use super::Shared;
use super::tenants::{at, conflict, plan, price, tenant};

pub(super) async fn the_version_of_a_plan_entered_last_is_in_force(one: Shared, two: Shared) {
    let in_force = || async {
        let seen = two.snapshot(None).await.unwrap().unwrap();
        seen.plans.into_iter().map(|plan| plan.id).collect::<Vec<_>>()
    };
    one.enter_plan(plan("pro", "a")).await.unwrap();
    // The same moment: the clock is no judge of what came last.
    two.enter_plan(plan("pro", "b")).await.unwrap();
    assert_eq!(in_force().await, ["pro@b"]);
    one.enter_plan(PlanRow { created: at(5), ..plan("free", "a") }).await.unwrap();
    two.enter_plan(PlanRow { created: at(6), ..plan("pro", "a") }).await.unwrap();
    assert_eq!(in_force().await, ["free@a", "pro@a"], "one can be put back in force");
    let all = one.plans().await.unwrap();
    let all: Vec<_> = all.iter().map(|plan| plan.id.as_str()).collect();
    assert_eq!(all, ["free@a", "pro@b", "pro@a"], "by name and time");
    // Bills of the time before ask what was in force then: put back, a version keeps every time at which it was.
    two.enter_plan(PlanRow { created: at(7), ..plan("pro", "b") }).await.unwrap();
    one.enter_plan(PlanRow { created: at(8), ..plan("pro", "a") }).await.unwrap();
    let all = two.plans().await.unwrap();
    let times = |id: &str| all.iter().find(|plan| plan.id == id).map(|plan| plan.entries().collect::<Vec<_>>());
    assert_eq!(times("pro@a"), Some(vec![at(0), at(6), at(8)]));
    assert_eq!(times("pro@b").unwrap()[1], at(7));
    assert_eq!(in_force().await, ["free@a", "pro@a"]);
}

pub(super) async fn a_plan_is_not_retired_under_its_tenants(one: Shared, two: Shared) {
    assert_eq!(one.retire_plan("pro", at(1)).await, Err(Fault::Missing));
    one.enter_plan(plan("pro", "a")).await.unwrap();
    one.make_tenant(TenantRow { plan: Some("pro".into()), ..tenant("acme") }).await.unwrap();
    let outcome = two.retire_plan("pro", at(1)).await;
    assert!(conflict(&outcome), "{outcome:?}");
    one.change_tenant(TenantRow { updated: at(2), ..tenant("acme") }, at(0)).await.unwrap();
    two.retire_plan("pro", at(3)).await.unwrap();
    let seen = one.snapshot(None).await.unwrap().unwrap();
    assert_eq!((seen.plans[0].id.as_str(), seen.plans[0].retired), ("pro@a", Some(at(3))));
    one.enter_plan(PlanRow { created: at(4), ..plan("pro", "a") }).await.unwrap();
    assert_eq!(two.snapshot(None).await.unwrap().unwrap().plans[0].retired, None, "entered again, it is back");
}

pub(super) async fn a_price_is_entered_once_and_withdrawn(one: Shared, two: Shared) {
    one.enter_price(price("p1")).await.unwrap();
    two.enter_price(PriceRow { terms: "{\"never\":1}".into(), ..price("p1") }).await.unwrap();
    one.enter_price(PriceRow { created: at(1), ..price("p0") }).await.unwrap();
    assert_eq!(two.withdraw_price("p2", at(3)).await, Err(Fault::Missing));
    two.withdraw_price("p1", at(3)).await.unwrap();
    one.withdraw_price("p1", at(4)).await.unwrap();
    let gone = PriceRow { withdrawn: Some(at(3)), ..price("p1") };
    let left = PriceRow { created: at(1), ..price("p0") };
    assert_eq!(two.prices().await.unwrap(), [gone, left.clone()]);
    assert_eq!(two.snapshot(None).await.unwrap().unwrap().prices, [left]);
}
