//! Invoices, and the transfers they make.

use kernel::store::ledger::{Account, Cause, InvoiceRow, Transfer};
use kernel::{Currency, Money, TenantId};

use super::Shared;
use super::posting::transfer;
use super::tenants::{at, conflict};

fn invoice(id: &str, tenant: &str, days: std::ops::Range<i64>) -> InvoiceRow {
    let day = |number: i64| at(number * 86_400_000);
    InvoiceRow {
        id: id.into(),
        tenant: TenantId::new(tenant),
        from: day(days.start),
        until: day(days.end),
        issued: day(days.end),
        currency: Currency::USD,
        total: Money::parse("-12.000000000001").unwrap(),
        body: "{\"lines\":[]}".into(),
    }
}

fn fee(invoice: &InvoiceRow) -> Transfer {
    let fee = transfer(Account::Tenant(invoice.tenant.clone()), Account::Revenue, 0, "500");
    Transfer { cause: Cause::Fee, invoice: Some(invoice.id.clone()), ..fee }
}

pub(super) async fn an_invoice_is_issued_once_with_its_transfers(one: Shared, two: Shared) {
    let first = invoice("a-1", "acme", 0..30);
    let charged = fee(&first);
    one.issue(&first, std::slice::from_ref(&charged)).await.unwrap();
    assert_eq!(two.invoice("a-1").await.unwrap(), Some(first.clone()));
    assert_eq!(two.invoice("a-2").await.unwrap(), None);
    let refused = [
        invoice("a-1", "lab", 0..30),
        invoice("a-2", "acme", 0..30),
        invoice("a-2", "acme", 29..60),
        invoice("a-2", "acme", 10..11),
        invoice("a-2", "acme", -5..1),
    ];
    for refused in refused {
        let outcome = two.issue(&refused, &[fee(&refused)]).await;
        assert!(conflict(&outcome), "{refused:?}: {outcome:?}");
    }
    let next = invoice("a-2", "acme", 30..60);
    let outcome = two.issue(&next, std::slice::from_ref(&charged)).await;
    assert!(conflict(&outcome), "a transfer of another invoice: {outcome:?}");
    assert_eq!(one.balance(&Account::Revenue, Currency::USD).await.unwrap().credits, Money::from_units(500));
    two.issue(&next, &[]).await.unwrap();
    let other = invoice("b-1", "lab", 0..30);
    two.issue(&other, &[fee(&other)]).await.unwrap();
    assert_eq!(one.invoices(Some(&TenantId::new("acme"))).await.unwrap(), [next.clone(), first.clone()]);
    assert_eq!(one.invoices(None).await.unwrap(), [next, other, first]);
    assert_eq!(one.transfers(&Account::Tenant(TenantId::new("acme")), None, 10).await.unwrap(), [charged]);
}

pub(super) async fn of_two_invoices_for_the_same_time_one_is_issued(one: Shared, two: Shared) {
    let issuing: Vec<_> = (0..6)
        .map(|who| {
            let books = if who % 2 == 0 { one.clone() } else { two.clone() };
            let invoice = invoice(&format!("n-{who}"), "acme", 0..30);
            tokio::spawn(async move { books.issue(&invoice, &[fee(&invoice)]).await })
        })
        .collect();
    let mut issued = 0;
    for outcome in issuing {
        match outcome.await.unwrap() {
            Ok(()) => issued += 1,
            outcome => assert!(conflict(&outcome), "{outcome:?}"),
        }
    }
    assert_eq!(issued, 1);
    assert_eq!(two.balance(&Account::Revenue, Currency::USD).await.unwrap().credits, Money::from_units(500));
}
