//! Where invoices are made, issued and kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use kernel::store::ledger::{Dimension, Filter, InvoiceRow, Sum, SumPage};
use kernel::store::{Fault, Ledger, Registry};
use kernel::{Currency, Money, TenantId, Timestamp};

use super::consumed::consumed;
use super::fee::Subscribed;
use super::item::Items;
use super::late::{late, late_usage};
use super::money::{self, Moves};
use super::period::Period;
use super::tariff::Tariff;
use super::{Consumption, Invoice, Line, Trouble};

/// The ledger and the registry, together: what invoices are made from.
#[derive(Clone)]
pub struct Books {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) registry: Arc<dyn Registry>,
}

/// What issuing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The invoice.
    pub invoice: Invoice,
    /// Whether it was issued just now, or had been before.
    pub new: bool,
}

/// By what the sums are split that invoices are made from.
const BY: [Dimension; 4] = [Dimension::Month, Dimension::Plan, Dimension::Price, Dimension::Model];
/// Bound: daybooks hold hours of calls, at worst days of an outage; what comes later than after this many invoices is
/// looked for by hand.
const LOOK_BACK: usize = 12;
/// Bound: of gateways that issue a tenant's invoices at once, one wins each time; nobody has so many.
const TRIES: u32 = 8;
/// Bound: sums that one invoice is made of: some hundred MiB at most. Months, versions of plans, prices and models there are few
/// of.
const SUMS_MAX: u32 = 100_000;

impl Books {
    /// On top of a store.
    pub fn new(ledger: Arc<dyn Ledger>, registry: Arc<dyn Registry>) -> Self {
        Self { ledger, registry }
    }

    /// Makes an invoice, and leaves everything as it is.
    ///
    /// # Errors
    /// `Missing` where there is no such tenant; `Conflict` where an issued invoice has a part of that time.
    pub async fn draft(
        &self,
        tenant: &TenantId,
        period: Period,
        currency: Option<Currency>,
    ) -> Result<Invoice, Trouble> {
        let earlier = self.issued(tenant).await?;
        let invoice = self.make(tenant, period, currency, &earlier).await?;
        match overlapping(&earlier, &invoice) {
            Some(other) => Err(taken(other)),
            None => Ok(invoice),
        }
    }

    /// Makes an invoice and issues it. One for the same time is issued once, however often it is tried. `None` where
    /// nothing happened in that time.
    ///
    /// # Errors
    /// `Refused` where the time is not over; `Conflict` where another invoice has a part of it.
    pub async fn issue(
        &self,
        tenant: &TenantId,
        period: Period,
        currency: Option<Currency>,
        now: Timestamp,
    ) -> Result<Option<Issued>, Trouble> {
        if period.end() > now {
            return Err(Trouble::Refused(format!(
                "The time until {} is not over yet: ask for a draft, or wait.",
                period.until
            )));
        }
        for _ in 0..TRIES {
            let earlier = self.issued(tenant).await?;
            let mut invoice = self.make(tenant, period, currency, &earlier).await?;
            if let Some(other) = overlapping(&earlier, &invoice) {
                if other.period() == period {
                    return Ok(Some(Issued { invoice: other.clone(), new: false }));
                }
                return Err(taken(other));
            }
            if invoice.lines.is_empty() && invoice.payments.is_empty() {
                return Ok(None);
            }
            // Numbers count a tenant's invoices, without gaps. Whoever makes one has seen all before it: had another been
            // issued meanwhile, the number would be taken.
            let id = format!("{tenant}-{:04}", earlier.len() + 1);
            invoice.id = Some(id.clone());
            invoice.issued = Some(now.millis());
            let row = row(&invoice, &id, tenant, now);
            match self.ledger.issue(&row, &money::transfers(&invoice, &id, now)).await {
                Ok(()) => return Ok(Some(Issued { invoice, new: true })),
                Err(Fault::Conflict(_)) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Err(Trouble::Conflict("Others are issuing this tenant's invoices at the same time: try again.".into()))
    }

    /// One issued invoice.
    ///
    /// # Errors
    /// What the store says.
    pub async fn invoice(&self, id: &str) -> Result<Option<Invoice>, Trouble> {
        self.ledger.invoice(id).await?.map(|row| Invoice::parse(&row.body)).transpose()
    }

    /// In which currency a tenant is billed: that of its plan.
    ///
    /// # Errors
    /// `Missing` where there is no such tenant.
    pub async fn currency(&self, tenant: &TenantId, now: Timestamp) -> Result<Currency, Trouble> {
        let Some(row) = self.registry.tenant(tenant).await? else { return Err(Trouble::Missing("tenant")) };
        let tariff = Tariff::new(&self.registry.plans().await?, &[])?;
        let version = row.plan.as_deref().and_then(|plan| tariff.version(plan, now));
        Ok(tariff.billing(version).currency())
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// A tenant's issued invoices, in the order of issuing.
    ///
    /// # Errors
    /// What the store says.
    pub async fn issued(&self, tenant: &TenantId) -> Result<Vec<Invoice>, Trouble> {
        let rows = self.ledger.invoices(Some(tenant)).await?;
        let mut invoices = rows.iter().map(|row| Invoice::parse(&row.body)).collect::<Result<Vec<_>, _>>()?;
        invoices.sort_by_key(|invoice| number(invoice.id.as_deref()));
        Ok(invoices)
    }

    async fn make(
        &self,
        tenant: &TenantId,
        period: Period,
        currency: Option<Currency>,
        earlier: &[Invoice],
    ) -> Result<Invoice, Trouble> {
        let Some(row) = self.registry.tenant(tenant).await? else {
            return Err(Trouble::Missing("tenant"));
        };
        let tariff = Tariff::new(&self.registry.plans().await?, &self.registry.prices().await?)?;
        let subscriptions = self.registry.subscriptions(tenant).await?;
        let sums = self.sums(tenant, period).await?;
        let subscribed = Subscribed::new(&tariff, &subscriptions, period);
        let version = row.plan.as_deref().and_then(|plan| tariff.version(plan, period.end()));
        let mut found = subscribed.currencies(&tariff);
        found.extend(sums.iter().map(|sum| sum.currency));
        let currency = currency.unwrap_or_else(|| first(tariff.billing(version).currency(), &found));
        let subscribed = subscribed.of(&tariff, currency);
        let mut items = subscribed.fees(&tariff)?;
        items.extend(consumed(&tariff, &subscribed, &sums, currency)?);
        let mut usage = consumption(&sums, currency);

        let earlier: Vec<Invoice> = earlier.iter().filter(|invoice| invoice.currency == currency).cloned().collect();
        for invoice in earlier.iter().rev().take(LOOK_BACK) {
            let subscribed = Subscribed::new(&tariff, &subscriptions, invoice.period()).of(&tariff, currency);
            let sums = self.sums(tenant, invoice.period()).await?;
            let now = consumed(&tariff, &subscribed, &sums, currency)?;
            let id = invoice.id.as_deref().unwrap_or_default();
            items.extend(late(id, &now, &earlier));
            usage.extend(late_usage(id, consumption(&sums, currency), &earlier));
        }
        let last = earlier.iter().max_by_key(|invoice| invoice.until);
        let moves = Moves::read(&*self.ledger, tenant, currency, period, last).await?;
        items.extend(moves.corrections.clone());

        let lines = lines(items, currency);
        let total: Money = lines.iter().map(|line| line.amount).sum();
        found.remove(&currency);
        Ok(Invoice {
            id: None,
            tenant: tenant.to_string(),
            from: period.from,
            until: period.until,
            issued: None,
            currency,
            total,
            exact: lines.iter().map(|line| line.count.exact).sum(),
            lines,
            usage,
            statement: moves.statement(total),
            payments: moves.payments,
            other_currencies: found.into_iter().collect(),
        })
    }

    async fn sums(&self, tenant: &TenantId, period: Period) -> Result<Vec<Sum>, Trouble> {
        let filter = Filter {
            tenant: Some(tenant.clone()),
            from: Some(period.start()),
            until: Some(period.end()),
            ..Filter::default()
        };
        // One more tells that there are too many.
        let page = SumPage { filter, by: BY.to_vec(), after: None, most: SUMS_MAX + 1 };
        let sums = self.ledger.sums_page(&page).await?;
        if sums.len() > SUMS_MAX as usize {
            let why = format!("The invoice would have more than {SUMS_MAX} lines: ask for a shorter time.");
            return Err(Trouble::Refused(why));
        }
        Ok(sums)
    }
}

/// In which currency an invoice is made where none is asked for: the plan's, unless everything is in others.
fn first(own: Currency, found: &BTreeSet<Currency>) -> Currency {
    if found.contains(&own) { own } else { found.first().copied().unwrap_or(own) }
}

/// What calls consumed, in order.
fn consumption(sums: &[Sum], currency: Currency) -> Vec<Consumption> {
    let mut usage: Vec<_> = sums.iter().filter(|sum| sum.currency == currency).filter_map(Consumption::of).collect();
    usage.sort_by(|a, b| (a.month, &a.plan, &a.model, &a.price).cmp(&(b.month, &b.plan, &b.model, &b.price)));
    usage
}

/// An invoice in the same currency that has a day of this one.
fn overlapping<'a>(earlier: &'a [Invoice], invoice: &Invoice) -> Option<&'a Invoice> {
    earlier.iter().find(|other| other.currency == invoice.currency && other.period().overlaps(invoice.period()))
}

fn taken(other: &Invoice) -> Trouble {
    let (id, from, until) = (other.id.as_deref().unwrap_or_default(), other.from, other.until);
    Trouble::Conflict(format!("Invoice {id} is for {from} to {until} already."))
}

/// The count at the end of an invoice's number.
fn number(id: Option<&str>) -> u64 {
    id.and_then(|id| id.rsplit_once('-')).and_then(|(_, count)| count.parse().ok()).unwrap_or(0)
}

fn row(invoice: &Invoice, id: &str, tenant: &TenantId, now: Timestamp) -> InvoiceRow {
    InvoiceRow {
        id: id.to_owned(),
        tenant: tenant.clone(),
        from: invoice.from.start(),
        until: invoice.until.start(),
        issued: now,
        currency: invoice.currency,
        total: invoice.total,
        body: invoice.to_json(),
    }
}

/// Numbers items as lines, and rounds each once.
fn lines(items: Items, currency: Currency) -> Vec<Line> {
    let numbered = items.into_iter().zip(1..);
    numbered.map(|((item, count), line)| Line { line, item, amount: count.rounded(currency), count }).collect()
}
