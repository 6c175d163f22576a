//! What moved on a tenant's account besides calls: payments, credit, corrections; and how the account stands.
//!
//! A tenant's account goes from invoice to invoice: what stood before, what was paid and given since, what this one comes
//! to, what stands now. Calls after its last day are not in it, though they have taken from the balance already.

use kernel::store::Ledger;
use kernel::store::ledger::{Account, Cause, PostingId, Transfer};
use kernel::{Currency, Money, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::item::{Count, Item, Items, Kind, add};
use super::period::{Day, Period};
use super::{Invoice, Trouble};

/// Money that came in or went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The transfer.
    pub id: String,
    /// On which day.
    pub day: Day,
    /// `top_up`, `grant` or `reversal`.
    pub cause: String,
    /// How much it adds to the account; less than nothing where it was taken back.
    pub amount: Money,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a tenant's account stands. In credit: more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Statement {
    /// What it stood at by the invoice before.
    pub before: Money,
    /// What was paid in since, less what went back.
    pub paid: Money,
    /// What was given since, less what was taken back.
    pub granted: Money,
    /// What this invoice comes to.
    pub billed: Money,
    /// What it stands at with it.
    pub after: Money,
}

/// Bound: more payments and corrections than this between two invoices are no account but an attack.
const MOVES_MAX: usize = 10_000;
/// Read at once.
const PAGE: u32 = 500;

/// What moved since an invoice, and until the end of a period.
pub(crate) struct Moves {
    pub corrections: Items,
    pub payments: Vec<Payment>,
    pub before: Money,
    paid: Money,
    granted: Money,
}

impl Moves {
    /// Reads them.
    pub(crate) async fn read(
        ledger: &dyn Ledger,
        tenant: &TenantId,
        currency: Currency,
        period: Period,
        last: Option<&Invoice>,
    ) -> Result<Self, Trouble> {
        let mut moves = Self {
            corrections: Items::new(),
            payments: Vec::new(),
            before: last.map_or(Money::ZERO, |last| last.statement.after),
            paid: Money::ZERO,
            granted: Money::ZERO,
        };
        let account = Account::Tenant(tenant.clone());
        // No id is before this one, so that what moved in the very first millisecond is read too.
        let mut after = last.map(|last| (last.until.start(), PostingId(Uuid::nil())));
        loop {
            let page = ledger.moves(&account, after, PAGE).await?;
            let Some(latest) = page.last() else { return Ok(moves) };
            after = Some((latest.at, latest.id));
            for transfer in page {
                if transfer.at >= period.end() {
                    return Ok(moves);
                }
                if transfer.currency == currency {
                    moves.take(&account, &transfer)?;
                }
            }
        }
    }

    fn take(&mut self, account: &Account, transfer: &Transfer) -> Result<(), Trouble> {
        let (amount, other) = if transfer.credit == *account {
            (transfer.amount, &transfer.debit)
        } else {
            (-transfer.amount, &transfer.credit)
        };
        match (transfer.cause, other) {
            // Those stand in lines of the invoice that made them.
            (Cause::Call | Cause::Fee | Cause::Overage | Cause::Rounding, _) => return Ok(()),
            (_, Account::Cash) => self.paid += amount,
            (_, Account::Grants) => self.granted += amount,
            // Earnings taken back: the tenant owes that much less.
            (_, Account::Revenue | Account::Rounding | Account::Tenant(_)) => {
                let item = Item::new(Day::of(transfer.at).month(), Kind::Correction);
                let item = Item { transfer: Some(transfer.id.to_string()), ..item };
                add(&mut self.corrections, item, Count::amount(-amount));
                return self.bounded();
            }
        }
        self.payments.push(Payment {
            id: transfer.id.to_string(),
            day: Day::of(transfer.at),
            cause: transfer.cause.as_str().into(),
            amount,
            note: transfer.note.clone(),
        });
        self.bounded()
    }

    fn bounded(&self) -> Result<(), Trouble> {
        if self.payments.len() + self.corrections.len() <= MOVES_MAX {
            return Ok(());
        }
        Err(Trouble::Refused(format!(
            "there are more than {MOVES_MAX} payments and corrections: choose a shorter time"
        )))
    }

    /// How the account stands with an invoice of so much.
    pub(crate) fn statement(&self, billed: Money) -> Statement {
        let Self { before, paid, granted, .. } = *self;
        Statement { before, paid, granted, billed, after: before + paid + granted - billed }
    }
}

/// The transfers that issuing an invoice makes.
pub(crate) fn transfers(invoice: &Invoice, id: &str, at: Timestamp) -> Vec<Transfer> {
    let tenant = Account::Tenant(TenantId::new(invoice.tenant.as_str()));
    let transfer = |name: &str, cause, amount: Money, house: Account| {
        let owed = amount.is_positive();
        let (debit, credit) = if owed { (tenant.clone(), house) } else { (house, tenant.clone()) };
        let amount = if owed { amount } else { -amount };
        (!amount.is_zero()).then(|| Transfer {
            id: posting_id(&["invoice", id, name]),
            at,
            cause,
            debit,
            credit,
            amount,
            currency: invoice.currency,
            reverses: None,
            invoice: Some(id.to_owned()),
            note: None,
        })
    };
    let lines = invoice.lines.iter().filter_map(|line| {
        let cause = match line.item.kind {
            Kind::Fee => Cause::Fee,
            Kind::Overage => Cause::Overage,
            // What calls cost was posted with them.
            Kind::Included | Kind::Usage | Kind::Adjustment | Kind::Correction => return None,
        };
        transfer(&line.line.to_string(), cause, line.count.exact, Account::Revenue)
    });
    let rounding = transfer("rounding", Cause::Rounding, invoice.total - invoice.exact, Account::Rounding);
    lines.chain(rounding).collect()
}

/// An id made from what a posting is for, so that the same is posted once however often it is tried.
pub(crate) fn posting_id(parts: &[&str]) -> PostingId {
    let mut hash = blake3::Hasher::new_derive_key("sluice 2026-11 posting id");
    for part in parts {
        // With its length before it, so that no two lists of parts run together to the same bytes.
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    hash.finalize_xof().fill(&mut bytes);
    PostingId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_from_names_is_the_same_each_time_and_no_other() {
        let id = posting_id(&["invoice", "acme-0001", "1"]);
        assert_eq!(id, posting_id(&["invoice", "acme-0001", "1"]));
        assert_ne!(id, posting_id(&["invoice", "acme-000", "11"]));
        assert_eq!(id.0.get_version_num(), 8);
    }
}
