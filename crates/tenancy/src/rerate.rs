//! Re-rating: an issued invoice reckoned once more from its charges, by other code.
//!
//! It shares no arithmetic with rating and invoices: it reads every charge, plan and price by itself, in fractions instead
//! of fixed point, with a calendar of its own, and must come to the same lines and totals to the last unit. Where it does
//! not, one of the two is wrong, and it says where, down to the charge. It mends nothing.

mod calendar;
mod paper;
mod proof;
mod ratio;
mod tally;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use kernel::store::ledger::InvoiceRow;
use serde::Serialize;

use self::paper::Paper;
use self::proof::Proof;
use self::terms::Terms;
use crate::invoice::{Books, Trouble};

/// What re-rating an invoice came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its number.
    pub invoice: String,
    /// Whether every line and total is as it should be.
    pub agrees: bool,
    /// Charges read.
    pub charges: u64,
    /// Lines compared.
    pub lines: usize,
    /// What does not agree, at most a hundred.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub more: usize,
    /// Charges of the invoice's time that no invoice has yet: the next one will.
    pub outstanding: u64,
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `charge`, `line`, `total`, `statement` or `transfer`.
    pub what: &'static str,
    /// Which: a charge's or transfer's id, a line's number.
    pub id: String,
    /// What it is about, in words.
    pub about: String,
    /// What the ledger or the invoice says.
    pub billed: String,
    /// What re-rating comes to.
    pub rerated: String,
}

/// Bound: whoever has a hundred differences needs no more of them.
const DIFFERENCES_MAX: usize = 100;

/// Numbers that fractions of 128 bits cannot hold.
fn too_large() -> Trouble {
    Trouble::TooLarge
}

fn unread(why: impl std::fmt::Display) -> Trouble {
    Trouble::Broken(format!("what is stored cannot be read: {why}"))
}

/// Reckons an issued invoice once more.
///
/// # Errors
/// `Missing` where there is none of that number.
pub async fn verify(books: &Books, id: &str) -> Result<Verdict, Trouble> {
    let Some(row) = books.ledger.invoice(id).await? else {
        return Err(Trouble::Missing("invoice"));
    };
    let tenant = row.tenant.clone();
    let subscriptions = books.registry.subscriptions(&tenant).await?;
    let terms = Terms::new(&books.registry.plans().await?, &books.registry.prices().await?, subscriptions);
    let terms = terms.ok_or_else(|| unread("a plan or a price is no JSON"))?;
    let rows = books.ledger.invoices(Some(&tenant)).await?;
    let all = rows.into_iter().filter(|other| other.currency == row.currency);
    let all: Vec<(InvoiceRow, Paper)> = all
        .map(|row| serde_json::from_str(&row.body).map(|paper| (row, paper)).map_err(unread))
        .collect::<Result<_, _>>()?;
    let Some((_, paper)) = all.iter().find(|(other, _)| other.id == id) else {
        return Err(unread("the invoice is not among its tenant's"));
    };

    let mut proof =
        Proof { books, terms: &terms, tenant: &tenant, all: &all, charges: 0, outstanding: 0, found: Vec::new() };
    let mut times: BTreeSet<&str> = paper.lines.iter().filter_map(|line| line.key.earlier.as_deref()).collect();
    times.insert(id);
    for time in times {
        proof.time(time, time == id).await?;
    }
    proof.sums(id, paper).ok_or_else(too_large)?;
    proof.corrections(paper).await?;
    proof.transfers(&row, paper).await?;

    let more = proof.found.len().saturating_sub(DIFFERENCES_MAX);
    let agrees = proof.found.is_empty();
    proof.found.truncate(DIFFERENCES_MAX);
    Ok(Verdict {
        invoice: id.to_owned(),
        agrees,
        charges: proof.charges,
        lines: paper.lines.len(),
        differences: proof.found,
        more,
        outstanding: proof.outstanding,
    })
}
