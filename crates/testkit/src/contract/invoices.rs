//! Invoices, and the transfers they make.

use kernel::store::ledger::{Account, Batch, Cause, InvoiceRow, PostingId, Transfer};
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

pub(super) async fn a_tenant_has_an_invoice_in_each_currency_for_the_same_time(one: Shared, two: Shared) {
    let dollars = invoice("a-1", "acme", 0..30);
    let euros = InvoiceRow { currency: Currency::parse("eur").unwrap(), ..invoice("a-2", "acme", 0..30) };
    one.issue(&dollars, &[]).await.unwrap();
    two.issue(&euros, &[]).await.unwrap();
    let again = InvoiceRow { id: "a-3".into(), ..euros };
    assert!(conflict(&one.issue(&again, &[]).await));
}

pub(super) async fn moves_leave_calls_out_and_a_transfer_is_found_by_its_id(one: Shared, two: Shared) {
    let tenant = || Account::Tenant(TenantId::new("acme"));
    let call = Transfer { cause: Cause::Call, ..transfer(tenant(), Account::Revenue, 0, "1") };
    let paid = Transfer { cause: Cause::TopUp, ..transfer(Account::Cash, tenant(), 1, "5") };
    let given = Transfer { cause: Cause::Grant, ..transfer(Account::Grants, tenant(), 2, "2") };
    let transfers = vec![call.clone(), paid.clone(), given.clone()];
    one.post(&Batch { charges: Vec::new(), transfers }).await.unwrap();
    assert_eq!(two.moves(&tenant(), None, 10).await.unwrap(), [paid.clone(), given.clone()]);
    assert_eq!(two.moves(&tenant(), None, 1).await.unwrap().first(), Some(&paid));
    assert_eq!(two.moves(&tenant(), Some((paid.at, paid.id)), 10).await.unwrap(), [given]);
    assert_eq!(two.moves(&Account::Revenue, None, 10).await.unwrap(), []);
    assert_eq!(two.transfer(call.id).await.unwrap(), Some(call));
    assert_eq!(two.transfer(PostingId::new()).await.unwrap(), None);
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
