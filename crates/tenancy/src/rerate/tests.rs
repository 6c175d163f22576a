//! Re-rating against invoices of made-up tenants: it agrees with all of them, and finds every change to one.

use kernel::{Currency, Money};
use proptest::prelude::*;
use serde_json::Value;

use super::verify;
use crate::invoice::tests::wait;
use crate::invoice::tests::world::{Chance, World, at, currencies, month};

/// Issues three months, with late calls, and returns the numbers.
async fn issue(world: &mut World, calls: u64) -> Vec<String> {
    for period in ["2026-10", "2026-11", "2026-12"] {
        world.calls(calls, month(period)).await;
    }
    let mut ids = Vec::new();
    for (nth, period) in ["2026-10", "2026-11", "2026-12"].into_iter().enumerate() {
        for currency in currencies() {
            let now = at("2027-02-01");
            let issued = world.books.issue(&world.tenant, month(period), Some(currency), now).await;
            ids.extend(issued.unwrap().and_then(|issued| issued.invoice.id));
        }
        if nth < 2 {
            world.calls(calls / 4, month("2026-10")).await;
        }
    }
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_line_and_total_is_reproduced_to_the_last_unit(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            for id in issue(&mut world, 120).await {
                let verdict = verify(&world.books, &id).await.unwrap();
                prop_assert!(verdict.agrees, "{id}: {:#?}", verdict.differences);
            }
            Ok(())
        })?;
    }

    #[test]
    fn calls_that_no_invoice_has_yet_are_told_apart_from_mistakes(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            let ids = issue(&mut world, 60).await;
            let late = world.calls(30, month("2026-11")).await;
            for id in ids {
                let invoice = world.books.invoice(&id).await.unwrap().unwrap();
                let verdict = verify(&world.books, &id).await.unwrap();
                prop_assert!(verdict.agrees, "{id}: {:#?}", verdict.differences);
                if invoice.from.to_string() == "2026-11-01" {
                    let of = late.iter().filter(|charge| charge.currency == invoice.currency);
                    prop_assert_eq!(verdict.outstanding, of.count() as u64);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn whatever_is_changed_on_an_invoice_is_found(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            let ids = issue(&mut world, 60).await;
            let mut chance = Chance(seed);
            for id in ids {
                let row = world.shelf.change(|rows| rows.invoices.iter().find(|row| row.id == id).cloned().unwrap());
                let mut body: Value = serde_json::from_str(&row.body).unwrap();
                let lines = body["lines"].as_array().unwrap().len() as u64;
                if lines == 0 {
                    continue;
                }
                let line = usize::try_from(chance.below(lines)).unwrap();
                let field = ["exact", "amount", "total"][usize::try_from(chance.below(3)).unwrap()];
                let spot = if field == "total" { &mut body["total"] } else { &mut body["lines"][line][field] };
                let more = Money::parse(spot.as_str().unwrap()).unwrap() + Money::from_pico(1);
                *spot = more.to_string().into();
                let wrong = body.to_string();
                let put = |body: String| world.shelf.change(|rows| rows.invoices.iter_mut().filter(|row| row.id == id).for_each(|row| row.body.clone_from(&body)));
                put(wrong);
                let verdict = verify(&world.books, &id).await.unwrap();
                prop_assert!(!verdict.agrees, "{id}: {field} of line {}", line + 1);
                put(row.body);
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_charge_that_is_wrong_by_the_last_unit_is_found_by_its_id(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            let ids = issue(&mut world, 30).await;
            let wrong = world.shelf.change(|rows| {
                let at = usize::try_from(Chance(seed).below(rows.charges.len() as u64)).unwrap();
                rows.charges[at].amount += Money::from_pico(1);
                rows.charges[at].clone()
            });
            let mut found = false;
            let mut of = false;
            for id in ids {
                let invoice = world.books.invoice(&id).await.unwrap().unwrap();
                let inside = invoice.from.start() <= wrong.at && wrong.at < invoice.until.start();
                of |= inside && invoice.currency == wrong.currency;
                let verdict = verify(&world.books, &id).await.unwrap();
                found |= verdict.differences.iter().any(|difference| difference.what == "charge" && difference.id == wrong.id.to_string());
            }
            prop_assert_eq!(found, of);
            Ok(())
        })?;
    }
}

#[test]
fn a_number_that_nobody_issued_cannot_be_verified() {
    let world = World::new(1);
    assert!(wait(verify(&world.books, "acme-0009")).is_err());
    let draft = wait(world.books.draft(&world.tenant, month("2026-11"), Some(Currency::USD))).unwrap();
    assert_eq!(draft.id, None);
}
