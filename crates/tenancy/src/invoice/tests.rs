//! Invoices of made-up tenants: what they come to, what issuing posts, what is late.

pub(crate) mod shelf;
pub(crate) mod world;

use kernel::store::Ledger;
use kernel::store::ledger::{Account, Cause};
use kernel::{Currency, Money, TenantId};
use proptest::prelude::*;

use self::world::{World, at, currencies, month};
use super::{Invoice, Issued, Kind, Trouble};
use crate::balance::{self, Deposit, Funds};

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

async fn issue(world: &World, period: &str, currency: Currency) -> Option<Invoice> {
    let now = at("2027-02-01");
    let issued = world.books.issue(&world.tenant, month(period), Some(currency), now).await;
    issued.unwrap().map(|issued| issued.invoice)
}

/// What the lines about calls come to, and what the tenant owes for calls by its account.
fn calls_of(invoices: &[Invoice]) -> Money {
    let lines = invoices.iter().flat_map(|invoice| &invoice.lines);
    lines.filter(|line| matches!(line.item.kind, Kind::Usage | Kind::Adjustment)).map(|line| line.count.exact).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn invoices_come_to_what_charges_do_and_the_account_to_what_invoices_do(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            for period in ["2026-10", "2026-11", "2026-12"] {
                world.calls(150, month(period)).await;
            }
            for currency in currencies() {
                let mut invoices = Vec::new();
                invoices.extend(issue(&world, "2026-10", currency).await);
                let known = calls_of(&invoices);
                let charged = world.shelf.change(|rows| rows.charges.clone()).into_iter();
                let charged = charged.filter(|charge| charge.currency == currency && charge.at < at("2026-11-01"));
                prop_assert_eq!(known, charged.map(|charge| charge.amount).sum::<Money>());
                // Some calls of October are posted only after its invoice was issued.
                world.calls(40, month("2026-10")).await;
                invoices.extend(issue(&world, "2026-11", currency).await);
                world.calls(40, month("2026-10")).await;
                invoices.extend(issue(&world, "2026-12", currency).await);
                let charged = world.shelf.change(|rows| rows.charges.clone()).into_iter();
                let charged: Money = charged.filter(|charge| charge.currency == currency).map(|charge| charge.amount).sum();
                let months = world.shelf.change(|rows| rows.charges.iter().any(|charge| charge.currency == currency));
                if months && invoices.len() == 3 {
                    prop_assert_eq!(calls_of(&invoices), charged);
                    let account = Account::Tenant(world.tenant.clone());
                    let balance = world.shelf.balance(&account, currency).await.unwrap();
                    let total: Money = invoices.iter().map(|invoice| invoice.total).sum();
                    prop_assert_eq!(balance.debits - balance.credits, total, "to the last unit");
                    prop_assert_eq!(invoices[2].statement.after, -total);
                }
                for invoice in &invoices {
                    let lines: Money = invoice.lines.iter().map(|line| line.count.exact.round(currency)).sum();
                    prop_assert_eq!(lines, invoice.total);
                    prop_assert_eq!(&Invoice::parse(&invoice.to_json()).unwrap(), invoice);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn overage_does_not_depend_on_when_calls_become_known(seed: u64) {
        let mut world = World::new(seed);
        wait(async {
            let charges = world.calls(200, month("2026-11")).await;
            let whole = world.books.draft(&world.tenant, month("2026-11"), Some(Currency::USD)).await.unwrap();
            // The same calls, the last of them posted only after the invoice.
            world.shelf.change(|rows| {
                rows.charges.truncate(charges.len() / 2);
                rows.transfers.clear();
            });
            let mut parts = Vec::new();
            parts.extend(issue(&world, "2026-11", Currency::USD).await);
            world.shelf.change(|rows| rows.charges = charges);
            let subscriptions = world.shelf.change(|rows| std::mem::take(&mut rows.subscriptions));
            world.shelf.change(|rows| rows.subscriptions = subscriptions.into_iter().filter(|on| on.from < at("2026-12-01")).collect());
            parts.extend(issue(&world, "2026-12", Currency::USD).await);
            let overage = |invoices: &[Invoice]| -> (u64, Money) {
                let lines = invoices.iter().flat_map(|invoice| &invoice.lines);
                let lines = lines.filter(|line| line.item.kind == Kind::Overage);
                lines.fold((0, Money::ZERO), |(tokens, sum), line| (tokens + line.count.quantity, sum + line.count.exact))
            };
            if parts.len() == 2 {
                prop_assert_eq!(overage(&parts), overage(&[whole]));
            }
            Ok(())
        })?;
    }
}

#[test]
fn issuing_twice_is_issuing_once_and_no_day_is_on_two_invoices() {
    let mut world = World::new(7);
    wait(async {
        world.calls(50, month("2026-11")).await;
        let (books, tenant, now) = (&world.books, &world.tenant, at("2026-12-01"));
        let early = books.issue(tenant, month("2026-12"), None, now).await;
        assert!(matches!(early, Err(Trouble::Refused(_))), "December is not over: {early:?}");
        let Issued { invoice, new } = books.issue(tenant, month("2026-11"), None, now).await.unwrap().unwrap();
        assert_eq!((new, invoice.id.as_deref()), (true, Some("acme-0001")));
        let posted = world.shelf.change(|rows| rows.transfers.len());
        let again = books.issue(tenant, month("2026-11"), None, at("2026-12-09")).await.unwrap().unwrap();
        assert_eq!((again.new, &again.invoice), (false, &invoice));
        assert_eq!(world.shelf.change(|rows| rows.transfers.len()), posted);
        let part =
            super::Period::new(super::Day::parse("2026-11-20").unwrap(), super::Day::parse("2026-11-25").unwrap());
        let overlapping = books.issue(tenant, part.unwrap(), None, now).await;
        assert!(matches!(overlapping, Err(Trouble::Conflict(_))), "{overlapping:?}");
        let draft = books.draft(tenant, month("2026-11"), None).await;
        assert!(matches!(draft, Err(Trouble::Conflict(_))), "{draft:?}");
        let nobody = books.draft(&TenantId::new("nobody"), month("2026-11"), None).await;
        assert_eq!(nobody, Err(Trouble::Missing("tenant")));
        assert_eq!(books.invoice("acme-0001").await.unwrap(), Some(invoice));
        assert_eq!(books.invoice("acme-0002").await.unwrap(), None);
    });
}

#[test]
fn payments_go_through_the_statement_and_corrections_through_the_lines() {
    let mut world = World::new(11);
    wait(async {
        world.calls(50, month("2026-11")).await;
        let deposit = |amount: &str, key: &str| Deposit {
            tenant: world.tenant.clone(),
            amount: Money::parse(amount).unwrap(),
            currency: Currency::USD,
            key: key.into(),
            note: None,
        };
        let books = &world.books;
        let paid = balance::deposit(books, Funds::Cash, &deposit("100", "p1"), at("2026-10-15")).await.unwrap();
        balance::deposit(books, Funds::Grant, &deposit("7.5", "p1"), at("2026-11-02")).await.unwrap();
        balance::reverse(books, &world.tenant, paid.transfer.id, None, at("2026-11-03")).await.unwrap();
        balance::deposit(books, Funds::Cash, &deposit("60", "p2"), at("2026-11-04")).await.unwrap();
        let call = world.shelf.change(|rows| {
            rows.transfers
                .iter()
                .find(|transfer| transfer.cause == Cause::Call && transfer.currency == Currency::USD)
                .cloned()
                .unwrap()
        });
        balance::reverse(books, &world.tenant, call.id, None, at("2026-11-30")).await.unwrap();
        balance::deposit(books, Funds::Cash, &deposit("5", "p3"), at("2026-12-04")).await.unwrap();

        let november = issue(&world, "2026-11", Currency::USD).await.unwrap();
        let statement = november.statement;
        assert_eq!((statement.paid, statement.granted), (Money::from_units(60), Money::parse("7.5").unwrap()));
        assert_eq!(statement.after, Money::parse("67.5").unwrap() - november.total);
        assert_eq!(november.payments.len(), 4);
        let correction = november.lines.iter().find(|line| line.item.kind == Kind::Correction).unwrap();
        assert_eq!(correction.count.exact, -call.amount);
        let december = issue(&world, "2026-12", Currency::USD).await.unwrap();
        assert_eq!((december.statement.before, december.statement.paid), (statement.after, Money::from_units(5)));
        assert!(december.lines.iter().all(|line| line.item.kind != Kind::Correction), "once");
    });
}
