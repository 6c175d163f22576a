//! Invoices: issued once, with the transfers they make.

use kernel::TenantId;
use kernel::store::Fault;
use kernel::store::ledger::{InvoiceRow, Transfer};

use super::post::{distinct, post_transfers};
use super::rows::{INVOICES, bind_invoice, read_invoice};
use crate::store::Store;
use crate::store::failure::Failure;

/// Invoices are issued one by one: what is looked at before cannot change meanwhile.
const LOCK: &str = "UPDATE meta SET value = value + 1 WHERE name = 'invoices'";
const NUMBER: &str = "SELECT id FROM invoices WHERE id = $1";
const OVERLAP: &str =
    "SELECT id FROM invoices WHERE tenant = $1 AND begins < $3 AND ends > $2 AND currency = $4 LIMIT 1";
const INVOICE: &str =
    "SELECT id, tenant, begins, ends, issued, currency, units, pico, body FROM invoices WHERE id = $1";
const ALL: &str = "SELECT id, tenant, begins, ends, issued, currency, units, pico, body FROM invoices \
                   ORDER BY issued DESC, id DESC";
const OF_TENANT: &str = "SELECT id, tenant, begins, ends, issued, currency, units, pico, body FROM invoices \
                         WHERE tenant = $1 ORDER BY issued DESC, id DESC";

impl Store {
    pub(super) async fn issue_invoice(&self, invoice: &InvoiceRow, transfers: &[Transfer]) -> Result<(), Failure> {
        let mut session = self.writing(self.short("issue invoice")).await?;
        session.run(sqlx::query(LOCK)).await?;
        if session.row(sqlx::query(NUMBER).bind(invoice.id.as_str())).await?.is_some() {
            return Err(Fault::Conflict("there is an invoice of that number already").into());
        }
        let overlap = sqlx::query(OVERLAP)
            .bind(invoice.tenant.as_str())
            .bind(invoice.from.millis())
            .bind(invoice.until.millis())
            .bind(invoice.currency.as_str());
        if session.row(overlap).await?.is_some() {
            return Err(Fault::Conflict("the tenant has an invoice for a part of that time already").into());
        }
        for (statement, group) in INVOICES.over(session.engine(), std::slice::from_ref(invoice)) {
            let statement = group.iter().try_fold(statement, bind_invoice)?;
            session.run(statement).await?;
        }
        let posted = post_transfers(&mut session, distinct(transfers, |transfer| transfer.id)).await?;
        if posted != transfers.len() as u64 {
            return Err(Fault::Conflict("a transfer of the invoice is in the ledger already").into());
        }
        session.commit().await
    }

    pub(super) async fn list_invoices(&self, tenant: Option<&TenantId>) -> Result<Vec<InvoiceRow>, Failure> {
        let list = match tenant {
            Some(tenant) => sqlx::query(OF_TENANT).bind(tenant.as_str()),
            None => sqlx::query(ALL),
        };
        let mut session = self.reading(self.long("list invoices")).await?;
        let rows = session.rows(list).await?;
        session.done();
        rows.iter().map(read_invoice).collect()
    }

    pub(super) async fn find_invoice(&self, id: &str) -> Result<Option<InvoiceRow>, Failure> {
        let mut session = self.reading(self.short("find invoice")).await?;
        let row = session.row(sqlx::query(INVOICE).bind(id)).await?;
        session.done();
        row.as_ref().map(read_invoice).transpose()
    }
}
