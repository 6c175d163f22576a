//! Money that people move: paid in, given, taken back.
//!
//! Whoever moves money gives the move a key of its own, and the transfer's id is made from it: a request that is sent
//! twice, or again after a time-out, moves it once. Taking a transfer back needs no key, as it can be done only once.
//! Nothing is ever changed or deleted.

use kernel::store::Fault;
use kernel::store::ledger::{Account, Balance, Batch, Cause, PostingId, Transfer};
use kernel::{Currency, Money, TenantId, Timestamp};

use crate::invoice::money::posting_id;
use crate::invoice::{Books, Trouble};

/// Money to be moved onto a tenant's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// Whose account.
    pub tenant: TenantId,
    /// How much; as it can be paid in the currency.
    pub amount: Money,
    /// In which currency.
    pub currency: Currency,
    /// Made by whoever asks, and different for each move that is meant.
    pub key: String,
    /// Why, in words.
    pub note: Option<String>,
}

/// Where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funds {
    /// The tenant paid it.
    Cash,
    /// It is given: credit, goodwill.
    Grant,
}

/// What a move came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The transfer.
    pub transfer: Transfer,
    /// Whether it moved just now, or had before.
    pub new: bool,
}

/// Bound: nobody pays in more than a thousand million at once; a slip of the finger does.
const DEPOSIT_MAX: Money = Money::from_units(1_000_000_000);
/// Bound: as long as keys of this kind are elsewhere.
const KEY_MAX: usize = 255;
/// Bound: a note is a sentence or two.
const NOTE_MAX: usize = 500;

/// Moves money onto a tenant's account.
///
/// # Errors
/// `Refused` where it makes no sense; `Conflict` where the key was used for another move.
pub async fn deposit(books: &Books, from: Funds, deposit: &Deposit, at: Timestamp) -> Result<Moved, Trouble> {
    check(deposit)?;
    if books.registry.tenant(&deposit.tenant).await?.is_none() {
        return Err(Trouble::Missing("tenant"));
    }
    let (cause, house) = match from {
        Funds::Cash => (Cause::TopUp, Account::Cash),
        Funds::Grant => (Cause::Grant, Account::Grants),
    };
    let transfer = Transfer {
        id: posting_id(&[cause.as_str(), deposit.tenant.as_str(), &deposit.key]),
        at,
        cause,
        debit: house,
        credit: Account::Tenant(deposit.tenant.clone()),
        amount: deposit.amount,
        currency: deposit.currency,
        reverses: None,
        invoice: None,
        note: deposit.note.clone(),
    };
    post(books, transfer).await
}

/// Takes a transfer of a tenant back.
///
/// # Errors
/// `Missing` where the tenant has no such transfer; `Refused` where it takes another back itself.
pub async fn reverse(
    books: &Books,
    tenant: &TenantId,
    id: PostingId,
    note: Option<String>,
    at: Timestamp,
) -> Result<Moved, Trouble> {
    check_note(note.as_deref())?;
    let account = Account::Tenant(tenant.clone());
    let found = books.ledger.transfer(id).await?;
    let of = found.filter(|transfer| transfer.debit == account || transfer.credit == account);
    let Some(of) = of else {
        return Err(Trouble::Missing("transfer"));
    };
    if of.cause == Cause::Reversal {
        return Err(Trouble::Refused(format!(
            "Transfer {id} takes another one back: to undo that, move the money anew."
        )));
    }
    let reversal = Transfer {
        id: posting_id(&["reversal", &id.to_string()]),
        at,
        cause: Cause::Reversal,
        debit: of.credit,
        credit: of.debit,
        amount: of.amount,
        currency: of.currency,
        reverses: Some(id),
        invoice: None,
        note,
    };
    post(books, reversal).await
}

/// What a tenant has to spend, or owes where it is less than nothing.
///
/// # Errors
/// What the store says.
pub async fn balance(books: &Books, tenant: &TenantId, currency: Currency) -> Result<(Money, Balance), Trouble> {
    let moved = books.ledger.balance(&Account::Tenant(tenant.clone()), currency).await?;
    Ok((moved.credits - moved.debits, moved))
}

async fn post(books: &Books, transfer: Transfer) -> Result<Moved, Trouble> {
    let batch = Batch { charges: Vec::new(), transfers: vec![transfer.clone()] };
    match books.ledger.post(&batch).await {
        Ok((_, 1)) => return Ok(Moved { transfer, new: true }),
        Ok(_) | Err(Fault::Conflict(_)) => {}
        Err(fault) => return Err(fault.into()),
    }
    let Some(there) = books.ledger.transfer(transfer.id).await? else {
        let what = transfer.reverses.map_or_else(String::new, |id| format!(": transfer {id} was taken back before"));
        return Err(Trouble::Conflict(format!("The store did not take the transfer{what}.")));
    };
    let same = (there.amount, there.currency, &there.debit, &there.credit)
        == (transfer.amount, transfer.currency, &transfer.debit, &transfer.credit);
    if same {
        return Ok(Moved { transfer: there, new: false });
    }
    Err(Trouble::Conflict(format!(
        "This key moved {} {} before: give every move a key of its own.",
        there.amount, there.currency
    )))
}

fn check(deposit: &Deposit) -> Result<(), Trouble> {
    let refuse = |why: String| Err(Trouble::Refused(why));
    if !deposit.amount.is_positive() || deposit.amount > DEPOSIT_MAX {
        return refuse(format!("`amount` must be more than 0 and at most {DEPOSIT_MAX}"));
    }
    if deposit.amount.round(deposit.currency) != deposit.amount {
        let (currency, decimals) = (deposit.currency, deposit.currency.decimals());
        return refuse(format!("`amount` has more decimals than can be paid: {currency} has {decimals}"));
    }
    let plain = deposit.key.bytes().all(|byte| byte.is_ascii_graphic());
    if deposit.key.is_empty() || deposit.key.len() > KEY_MAX || !plain {
        return refuse(format!("`idempotency_key` must be 1 to {KEY_MAX} visible ASCII characters"));
    }
    check_note(deposit.note.as_deref())
}

fn check_note(note: Option<&str>) -> Result<(), Trouble> {
    let fits = note.is_none_or(|note| note.chars().count() <= NOTE_MAX && !note.chars().any(char::is_control));
    let why = || Trouble::Refused(format!("`note` must be one line of at most {NOTE_MAX} characters"));
    fits.then_some(()).ok_or_else(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::tests::wait;
    use crate::invoice::tests::world::{World, at, month};

    fn paid(amount: &str, key: &str) -> Deposit {
        Deposit {
            tenant: TenantId::new("acme"),
            amount: Money::parse(amount).unwrap(),
            currency: Currency::USD,
            key: key.into(),
            note: None,
        }
    }

    #[test]
    fn the_same_key_moves_money_once_and_another_amount_is_refused() {
        let world = World::new(1);
        let move_ = |from, deposit: &Deposit| wait(super::deposit(&world.books, from, deposit, at("2026-11-25")));
        let first = move_(Funds::Cash, &paid("10", "k")).unwrap();
        let again = move_(Funds::Cash, &paid("10", "k")).unwrap();
        assert_eq!((first.new, again.new, first.transfer), (true, false, again.transfer));
        assert!(matches!(move_(Funds::Cash, &paid("11", "k")), Err(Trouble::Conflict(_))));
        assert!(move_(Funds::Grant, &paid("10", "k")).unwrap().new, "keys of payments and of grants are apart");
        assert!(move_(Funds::Cash, &paid("10", "k2")).unwrap().new);
        let (balance, _) = wait(balance(&world.books, &TenantId::new("acme"), Currency::USD)).unwrap();
        assert_eq!(balance, Money::from_units(30));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let world = World::new(1);
        let refused = |deposit: Deposit| {
            let outcome = wait(super::deposit(&world.books, Funds::Cash, &deposit, at("2026-11-25")));
            assert!(matches!(outcome, Err(Trouble::Refused(_))), "{deposit:?}: {outcome:?}");
        };
        for amount in ["0", "-1", "0.001", "1000000001"] {
            refused(paid(amount, "k"));
        }
        for key in ["", "two words", "é", &"k".repeat(256)] {
            refused(paid("1", key));
        }
        refused(Deposit { note: Some("two\nlines".into()), ..paid("1", "k") });
        refused(Deposit { currency: Currency::parse("jpy").unwrap(), ..paid("1.5", "k") });
        let nobody = Deposit { tenant: TenantId::new("nobody"), ..paid("1", "k") };
        let outcome = wait(super::deposit(&world.books, Funds::Cash, &nobody, at("2026-11-25")));
        assert_eq!(outcome, Err(Trouble::Missing("tenant")));
    }

    #[test]
    fn a_transfer_is_taken_back_once_by_its_owner_and_the_account_is_as_before() {
        let mut world = World::new(9);
        let acme = world.tenant.clone();
        wait(world.calls(20, month("2026-11")));
        let before = wait(balance(&world.books, &acme, Currency::USD)).unwrap().0;
        let moved = wait(deposit(&world.books, Funds::Cash, &paid("10", "k"), at("2026-11-25"))).unwrap();
        let back = |tenant: &TenantId, id| wait(reverse(&world.books, tenant, id, None, at("2026-11-26")));
        let id = moved.transfer.id;
        assert_eq!(back(&TenantId::new("lab"), id), Err(Trouble::Missing("transfer")));
        let (first, again) = (back(&acme, id).unwrap(), back(&acme, id).unwrap());
        assert_eq!((first.new, again.new), (true, false));
        assert!(matches!(back(&acme, first.transfer.id), Err(Trouble::Refused(_))), "not back and forth");
        assert_eq!(wait(balance(&world.books, &acme, Currency::USD)).unwrap().0, before);
        assert_eq!(back(&acme, PostingId::new()), Err(Trouble::Missing("transfer")));
    }
}
