//! Invoices as people and programs read them: CSV, and HTML for paper.

mod html;
#[cfg(test)]
mod tests;
mod words;

pub use self::html::html;
pub use self::words::Language;

use super::Invoice;
use crate::csv::{Cell, Table};

/// An invoice as CSV: one row for each line, with all that the line is about. The rounded amounts come to the total.
pub fn csv(invoice: &Invoice) -> String {
    let mut table = Table::new(&[
        "invoice",
        "tenant",
        "from",
        "until",
        "line",
        "earlier_invoice",
        "month",
        "kind",
        "plan",
        "model",
        "price",
        "class",
        "transfer",
        "quantity",
        "of",
        "unit",
        "unit_price",
        "per",
        "exact",
        "amount",
        "currency",
    ]);
    for line in &invoice.lines {
        let (item, count) = (&line.item, &line.count);
        table.row([
            Cell::text(invoice.id.as_deref().unwrap_or("draft")),
            Cell::text(invoice.tenant.as_str()),
            Cell::number(invoice.from),
            Cell::number(invoice.until),
            Cell::number(line.line),
            Cell::maybe(item.earlier.as_deref()),
            Cell::number(item.month),
            Cell::text(item.kind.as_str()),
            Cell::maybe(item.plan.as_deref()),
            Cell::maybe(item.model.as_deref()),
            Cell::maybe(item.price.as_deref()),
            Cell::maybe(item.class.map(super::Class::as_str)),
            Cell::maybe(item.transfer.as_deref()),
            Cell::number(count.quantity),
            count.of.map_or(Cell::Empty, Cell::number),
            Cell::text(count.unit.as_str()),
            Cell::Amount(count.unit_price),
            Cell::number(count.per),
            Cell::Amount(count.exact),
            Cell::Amount(line.amount),
            Cell::text(invoice.currency.as_str()),
        ]);
    }
    table.finish()
}
