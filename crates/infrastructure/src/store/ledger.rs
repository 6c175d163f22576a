//! The port `Ledger`: charges, transfers, what they sum up to, and invoices.
//!
//! Totals are kept beside what they are totals of, and raised in the same transaction by what the insert says was new:
//! whatever is posted twice, in another order or by two processes at once counts once. [`Ledger::audit`] adds everything
//! up again and compares.

mod audit;
mod invoices;
mod page;
mod post;
mod read;
mod rows;
mod sums;
mod totals;

use kernel::Currency;
use kernel::TenantId;
use kernel::store::Stored;
use kernel::store::ledger::{
    Account, Balance, Batch, Charge, Dimension, Filter, InvoiceRow, Ledger, PostingId, Sum, SumPage, Transfer,
};
use kernel::time::Timestamp;

pub(super) use self::read::Condition;
use super::Store;

impl Ledger for Store {
    fn post<'a>(&'a self, batch: &'a Batch) -> Stored<'a, (u64, u64)> {
        Box::pin(self.persist(move || self.post_batch(batch)))
    }

    fn sums<'a>(&'a self, filter: &'a Filter, by: &'a [Dimension]) -> Stored<'a, Vec<Sum>> {
        Box::pin(self.persist(move || self.sum_up(filter, by)))
    }

    fn sums_page<'a>(&'a self, page: &'a SumPage) -> Stored<'a, Vec<Sum>> {
        Box::pin(self.persist(move || self.page_sums(page)))
    }

    fn charges<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Charge>> {
        Box::pin(self.persist(move || self.list_charges(filter, after, most)))
    }

    fn transfers<'a>(
        &'a self,
        account: &'a Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Transfer>> {
        Box::pin(self.persist(move || self.list_transfers(read::TRANSFERS, account, after, most)))
    }

    fn moves<'a>(
        &'a self,
        account: &'a Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Transfer>> {
        Box::pin(self.persist(move || self.list_transfers(read::MOVES, account, after, most)))
    }

    fn transfer(&self, id: PostingId) -> Stored<'_, Option<Transfer>> {
        Box::pin(self.persist(move || self.find_transfer(id)))
    }

    fn balance<'a>(&'a self, account: &'a Account, currency: Currency) -> Stored<'a, Balance> {
        Box::pin(self.persist(move || self.find_balance(account, currency)))
    }

    fn balances_of<'a>(&'a self, accounts: &'a [Account]) -> Stored<'a, Vec<(Account, Currency, Balance)>> {
        Box::pin(self.persist(move || self.find_balances(accounts)))
    }

    fn balances(&self) -> Stored<'_, Vec<(Account, Currency, Balance)>> {
        Box::pin(self.persist(move || self.list_balances()))
    }

    fn issue<'a>(&'a self, invoice: &'a InvoiceRow, transfers: &'a [Transfer]) -> Stored<'a, ()> {
        Box::pin(self.persist(move || self.issue_invoice(invoice, transfers)))
    }

    fn invoices<'a>(&'a self, tenant: Option<&'a TenantId>) -> Stored<'a, Vec<InvoiceRow>> {
        Box::pin(self.persist(move || self.list_invoices(tenant)))
    }

    fn invoice<'a>(&'a self, id: &'a str) -> Stored<'a, Option<InvoiceRow>> {
        Box::pin(self.persist(move || self.find_invoice(id)))
    }

    fn audit(&self) -> Stored<'_, Vec<String>> {
        Box::pin(self.persist(move || self.audit_books()))
    }
}
