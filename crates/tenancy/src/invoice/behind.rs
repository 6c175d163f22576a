//! What stands behind a line of an invoice: its charges.

use kernel::store::ledger::{Charge, Ending, Filter, PostingId};
use kernel::{ModelName, TenantId, Timestamp};

use super::item::{Class, Item, Kind};
use super::{Books, Invoice, Line, Trouble};

/// Where a list of charges goes on: after this one.
pub type Cursor = (Timestamp, PostingId);

/// Read at once.
const READ: u32 = 1000;
/// Bound: charges looked at for one page; where few of many are meant, pages have few rows.
const LOOKED_AT: usize = 20_000;

/// The charges that a line is made of, after one, at most so many, and where the list goes on. A line about an earlier
/// invoice's time is made of some of those that are shown: the ledger does not know which were late. Lines about fees have
/// none.
///
/// # Errors
/// `Missing` where the earlier invoice of a line is not there.
pub async fn behind(
    books: &Books,
    invoice: &Invoice,
    line: &Line,
    after: Option<Cursor>,
    most: usize,
) -> Result<(Vec<Charge>, Option<Cursor>), Trouble> {
    if matches!(line.item.kind, Kind::Fee | Kind::Correction) {
        return Ok((Vec::new(), None));
    }
    let earlier = match &line.item.earlier {
        Some(id) => Some(books.invoice(id).await?.ok_or(Trouble::Missing("invoice"))?),
        None => None,
    };
    let period = earlier.as_ref().unwrap_or(invoice).period();
    let month = line.item.month.period();
    let filter = Filter {
        tenant: Some(TenantId::new(invoice.tenant.as_str())),
        model: line.item.model.as_deref().map(ModelName::new),
        from: Some(period.start().max(month.start())),
        until: Some(period.end().min(month.end())),
        ..Filter::default()
    };
    let (mut found, mut after, mut looked_at) = (Vec::new(), after, 0);
    loop {
        let page = books.ledger.charges(&filter, after, READ).await?;
        looked_at += page.len();
        let last = page.len() < READ as usize;
        for charge in page {
            if found.len() == most {
                return Ok((found, after));
            }
            after = Some((charge.at, charge.id));
            if charge.currency == invoice.currency && is_of(&charge, &line.item) {
                found.push(charge);
            }
        }
        if last {
            return Ok((found, None));
        }
        if looked_at >= LOOKED_AT {
            return Ok((found, after));
        }
    }
}

fn is_of(charge: &Charge, item: &Item) -> bool {
    let plan = item.kind == Kind::Included || charge.plan.as_deref() == item.plan.as_deref();
    // What a plan charges by itself has no price of the catalogue.
    let price = item.price.is_none() || charge.price.as_deref() == item.price.as_deref();
    let class = match item.class {
        None => true,
        Some(Class::Gpu) => charge.gpu_millis > 0,
        Some(Class::Calls) => charge.ending == Ending::Complete || charge.usage.output.0 > 0 || charge.usage.images > 0,
        Some(class) => class.of(&charge.usage) > 0,
    };
    plan && price && class
}
