//! A re-rating under way: what an invoice says, held against what its charges come to.

use std::collections::{HashMap, HashSet};

use kernel::store::ledger::{Account, Cause, InvoiceRow, PostingId};
use kernel::{TenantId, Timestamp};
use uuid::Uuid;

use super::paper::{Amount, Group, Key, Paper, PaperLine};
use super::ratio::{FINE, Ratio};
use super::tally::{Tally, month_only};
use super::terms::Terms;
use super::{Difference, Trouble, calendar, too_large, unread};
use crate::invoice::Books;

/// Transfers read at once.
const PAGE: u32 = 500;

/// A re-rating under way.
pub(super) struct Proof<'a> {
    pub books: &'a Books,
    pub terms: &'a Terms,
    pub tenant: &'a TenantId,
    /// All invoices of the tenant in the currency.
    pub all: &'a [(InvoiceRow, Paper)],
    pub charges: u64,
    pub outstanding: u64,
    pub found: Vec<Difference>,
}

impl Proof<'_> {
    /// All lines about the time of an invoice, on whichever invoice they stand, against its charges.
    pub(super) async fn time(&mut self, id: &str, own: bool) -> Result<(), Trouble> {
        let Some((row, _)) = self.all.iter().find(|(row, _)| row.id == id) else {
            return Err(unread(format!("there is no invoice `{id}` that a line could be from")));
        };
        let (window, currency) = ((row.from, row.until), row.currency.as_str().to_owned());
        let tally = Tally::read(&*self.books.ledger, self.terms, self.tenant, window, &currency).await?;
        let days = self.terms.days(row.from.0, row.until.0, &currency);
        self.compare(id, own, &tally, &days).ok_or_else(too_large)?;
        self.charges += tally.charges;
        self.found.extend(tally.differences);
        Ok(())
    }

    fn compare(&mut self, id: &str, own: bool, tally: &Tally, days: &HashMap<(String, String), i64>) -> Option<()> {
        let mut should = tally.lines(self.terms, &self.terms.included(days)?)?;
        if own {
            should.extend(self.fees(days)?);
        }
        let is = self.billed(id)?;
        let waiting = self.waiting(id, tally);
        let keys: Vec<Key> = should.keys().chain(is.keys()).cloned().collect::<HashSet<_>>().into_iter().collect();
        for key in keys {
            // Fees are never late; those of an earlier invoice are its own affair.
            if key.kind == "fee" && !own {
                continue;
            }
            let should = should.get(&key).copied().unwrap_or(Amount::NONE);
            let is = is.get(&key).copied().unwrap_or(Amount::NONE);
            // Charges that came after the last invoice: more of what they are about is right, less is not.
            let of_waiting = waiting.iter().any(|(month, group)| {
                let same = key.group.plan == group.plan && key.group.model == group.model;
                *month == key.group.month && (same || matches!(key.kind.as_str(), "overage" | "included"))
            });
            let more =
                of_waiting && should.quantity >= is.quantity && (should.exact >= is.exact || key.kind == "adjustment");
            // How many of the included tokens are used is not brought up to date by later invoices.
            let counted = should.quantity == is.quantity || (key.kind == "included" && should.quantity > is.quantity);
            let right = more || (counted && should.exact == is.exact);
            if !right {
                let show = |amount: Amount| format!("{} × … = {}", amount.quantity, amount.exact);
                self.found.push(Difference {
                    what: "line",
                    id: self.line(id, &key),
                    about: key.to_string(),
                    billed: show(is),
                    rerated: show(should),
                });
            }
        }
        Some(())
    }

    /// The fee of each month and plan version, by the day.
    fn fees(&self, days: &HashMap<(String, String), i64>) -> Option<HashMap<Key, Amount>> {
        let fee = |((month, version), days): (&(String, String), &i64)| {
            let fee = self.terms.amount(Some(version), "monthly/fee").unwrap_or(Ratio::ZERO);
            let share = Ratio::new((*days).into(), calendar::days_in(month)?.into())?;
            let group = Group { plan: Some(version.clone()), ..month_only(month) };
            let key = Key { earlier: None, group, kind: "fee".into(), class: None };
            let quantity = u128::try_from(*days).ok()?;
            Some((key, Amount { quantity, exact: fee.times(share)?.round(FINE)? }))
        };
        days.iter().map(fee).collect()
    }

    /// What all invoices have charged of the time of one.
    fn billed(&self, id: &str) -> Option<HashMap<Key, Amount>> {
        let mut billed: HashMap<Key, Amount> = HashMap::new();
        for (row, paper) in self.all {
            for line in paper.lines.iter().filter(|line| about(line, row, id)) {
                let key = Key { earlier: None, ..line.key.clone() };
                let amount = Amount { quantity: line.quantity.into(), exact: Ratio::parse(&line.exact)? };
                let so_far = billed.entry(key).or_insert(Amount::NONE);
                *so_far = so_far.plus(amount)?;
            }
        }
        Some(billed)
    }

    /// Groups that have more calls than all invoices together know of.
    fn waiting<'t>(&mut self, id: &str, tally: &'t Tally) -> Vec<(&'t str, &'t Group)> {
        let mut waiting = Vec::new();
        for (group, totals) in &tally.groups {
            let known = self.all.iter().flat_map(|(row, paper)| paper.usage.iter().map(move |usage| (row, usage)));
            let known = known.filter(|(row, usage)| {
                usage.group == *group && usage.earlier.as_deref().unwrap_or(row.id.as_str()) == id
            });
            let known: u64 = known.map(|(_, usage)| usage.calls).sum();
            if totals.calls > known {
                self.outstanding += totals.calls - known;
                waiting.push((group.month.as_str(), group));
            }
        }
        waiting
    }

    /// The number of a line, for a difference.
    fn line(&self, id: &str, key: &Key) -> String {
        let lines = self.all.iter().flat_map(|(row, paper)| paper.lines.iter().map(move |line| (row, line)));
        let mut found =
            lines.filter(|(row, line)| about(line, row, id) && Key { earlier: None, ..line.key.clone() } == *key);
        found.next().map_or_else(|| "none".into(), |(row, line)| format!("{} line {}", row.id, line.line))
    }

    /// Every line by itself, and what they come to together.
    pub(super) fn sums(&mut self, id: &str, paper: &Paper) -> Option<()> {
        let row = self.all.iter().find(|(row, _)| row.id == id)?;
        let decimals = row.0.currency.decimals();
        let (mut total, mut exact) = (Ratio::ZERO, Ratio::ZERO);
        for line in &paper.lines {
            let (billed, amount) = (Ratio::parse(&line.exact)?, Ratio::parse(&line.amount)?);
            (total, exact) = (total.plus(amount)?, exact.plus(billed)?);
            let rounded = billed.round(decimals)?;
            self.expect("line", &format!("{id} line {}", line.line), "rounded", &amount, &rounded);
            let product = Ratio::parse(&line.unit_price)?.times(Ratio::new(line.quantity.into(), line.per.into())?)?;
            let by_itself = matches!(line.key.kind.as_str(), "adjustment" | "correction");
            // What is late is a difference of two lines, each rounded at 10⁻¹² by itself.
            if !by_itself && line.key.earlier.is_none() {
                let about = "quantity × unit price";
                self.expect("line", &format!("{id} line {}", line.line), about, &billed, &product.round(FINE)?);
            }
            if line.of.is_some_and(|of| of < line.quantity) {
                self.expect("line", &format!("{id} line {}", line.line), "more than included", &billed, &Ratio::ZERO);
            }
        }
        self.expect("total", id, "total", &Ratio::parse(&paper.total)?, &total);
        self.expect("total", id, "exact", &Ratio::parse(&paper.exact)?, &exact);
        self.expect("total", id, "of the row", &Ratio::parse(&row.0.total.to_string())?, &total);
        let said = &paper.statement;
        let after = Ratio::parse(&said.before)?.plus(Ratio::parse(&said.paid)?)?.plus(Ratio::parse(&said.granted)?)?;
        self.expect("statement", id, "billed", &Ratio::parse(&said.billed)?, &total);
        self.expect("statement", id, "after", &Ratio::parse(&said.after)?, &after.minus(total)?);
        if paper.currency != row.0.currency.as_str() {
            self.differ("total", id, "currency", paper.currency.clone(), row.0.currency.to_string());
        }
        Some(())
    }

    /// Corrections are transfers that took something back.
    pub(super) async fn corrections(&mut self, paper: &Paper) -> Result<(), Trouble> {
        for line in paper.lines.iter().filter(|line| line.key.kind == "correction") {
            let id = line.transfer.clone().unwrap_or_default();
            let found = match Uuid::parse_str(&id) {
                Ok(id) => self.books.ledger.transfer(PostingId(id)).await?,
                Err(_) => None,
            };
            let account = Account::Tenant(self.tenant.clone());
            let took = found.filter(|transfer| transfer.cause == Cause::Reversal).and_then(|transfer| {
                let amount = Ratio::parse(&transfer.amount.to_string())?;
                if transfer.credit == account { Ratio::ZERO.minus(amount) } else { Some(amount) }
            });
            let billed = Ratio::parse(&line.exact).ok_or_else(too_large)?;
            self.expect("transfer", &id, "correction", &billed, &took.unwrap_or(Ratio::ZERO));
        }
        Ok(())
    }

    /// What issuing posted is what the lines say that no call had posted.
    pub(super) async fn transfers(&mut self, row: &InvoiceRow, paper: &Paper) -> Result<(), Trouble> {
        let account = Account::Tenant(self.tenant.clone());
        let mut posted: HashMap<Cause, Ratio> = HashMap::new();
        let mut after = Some((row.issued, PostingId(Uuid::nil())));
        'pages: loop {
            let page = self.books.ledger.moves(&account, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.at, last.id));
            for transfer in page {
                if transfer.at > Timestamp(row.issued.0) {
                    break 'pages;
                }
                if transfer.invoice.as_deref() == Some(row.id.as_str()) {
                    let amount = Ratio::parse(&transfer.amount.to_string());
                    let signed = if transfer.debit == account {
                        amount
                    } else {
                        amount.and_then(|amount| Ratio::ZERO.minus(amount))
                    };
                    let sum = posted.entry(transfer.cause).or_insert(Ratio::ZERO);
                    *sum = signed.and_then(|signed| sum.plus(signed)).ok_or_else(too_large)?;
                }
            }
        }
        for (cause, kind) in [(Cause::Fee, "fee"), (Cause::Overage, "overage")] {
            let lines = paper.lines.iter().filter(|line| line.key.kind == kind);
            let due =
                lines.map(|line| Ratio::parse(&line.exact)).try_fold(Ratio::ZERO, |sum, amount| sum.plus(amount?));
            let is = posted.get(&cause).copied().unwrap_or(Ratio::ZERO);
            self.expect("transfer", &row.id, cause.as_str(), &is, &due.ok_or_else(too_large)?);
        }
        let rounding =
            Ratio::parse(&paper.total).zip(Ratio::parse(&paper.exact)).and_then(|(total, exact)| total.minus(exact));
        let is = posted.get(&Cause::Rounding).copied().unwrap_or(Ratio::ZERO);
        self.expect("transfer", &row.id, Cause::Rounding.as_str(), &is, &rounding.ok_or_else(too_large)?);
        Ok(())
    }

    fn expect(&mut self, what: &'static str, id: &str, about: &str, billed: &Ratio, rerated: &Ratio) {
        if billed != rerated {
            self.differ(what, id, about, billed.to_string(), rerated.to_string());
        }
    }

    fn differ(&mut self, what: &'static str, id: &str, about: &str, billed: String, rerated: String) {
        self.found.push(Difference { what, id: id.to_owned(), about: about.to_owned(), billed, rerated });
    }
}

/// Whether a line of an invoice is about the time of another, or of its own.
fn about(line: &PaperLine, row: &InvoiceRow, id: &str) -> bool {
    line.key.kind != "correction" && line.key.earlier.as_deref().unwrap_or(row.id.as_str()) == id
}
