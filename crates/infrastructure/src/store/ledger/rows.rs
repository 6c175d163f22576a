//! Charges, transfers and invoices as rows of their tables.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::store::ledger::{Account, Cause, Charge, Ending, InvoiceRow, Transfer};
use kernel::{KeyId, ModelName, Operation, RequestId, TenantId, Tokens, Usage, Version};
use sqlx::any::AnyRow;

use crate::store::bulk::Bulk;
use crate::store::columns::{Columns, Parts, bind_money, clean, counted};
use crate::store::failure::Failure;
use crate::store::session::Statement;

macro_rules! into_charges {
    () => {
        "INSERT INTO charges (id, at, request, tenant, key, model, version, operation, tag, input, cached, cache_write, \
         audio_input, output, reasoning, audio_output, images, estimated, gpu_millis, ending, plan, price, currency, \
         units, pico) VALUES"
    };
}

macro_rules! into_transfers {
    () => {
        "INSERT INTO transfers (id, at, cause, debit, credit, units, pico, currency, reverses, invoice, note) VALUES"
    };
}

/// Inserts charges, and returns the ids of those that were not there.
pub(super) static CHARGES: Bulk = Bulk::new(into_charges!(), 25, " ON CONFLICT DO NOTHING RETURNING id");
/// Inserts charges; how many were not there is how many rows it touches.
pub(super) static NEW_CHARGES: Bulk = Bulk::new(into_charges!(), 25, " ON CONFLICT DO NOTHING");
/// Inserts transfers, and returns the ids of those that were not there.
pub(super) static TRANSFERS: Bulk = Bulk::new(into_transfers!(), 11, " ON CONFLICT DO NOTHING RETURNING id");
/// Inserts transfers; how many were not there is how many rows it touches.
pub(super) static NEW_TRANSFERS: Bulk = Bulk::new(into_transfers!(), 11, " ON CONFLICT DO NOTHING");

pub(super) static INVOICES: Bulk =
    Bulk::new("INSERT INTO invoices (id, tenant, begins, ends, issued, currency, units, pico, body) VALUES", 9, "");

/// Binds the columns of [`CHARGES`].
pub(super) fn bind_charge<'q>(statement: Statement<'q>, charge: &Charge) -> Result<Statement<'q>, Failure> {
    let usage = &charge.usage;
    let statement = statement
        .bind(charge.id.to_string())
        .bind(charge.at.millis())
        .bind(clean(charge.request.as_str()).as_ref())
        .bind(clean(charge.tenant.as_str()).as_ref())
        .bind(charge.key.as_ref().map(|key| clean(key.as_str()).into_owned()))
        .bind(clean(charge.model.as_str()).as_ref())
        .bind(clean(charge.version.as_str()).as_ref())
        .bind(charge.operation)
        .bind(charge.tag.as_deref().map(|tag| clean(tag).into_owned()))
        .bind(counted(usage.input.0))
        .bind(counted(usage.cached.0))
        .bind(counted(usage.cache_write.0))
        .bind(counted(usage.audio_input.0))
        .bind(counted(usage.output.0))
        .bind(counted(usage.reasoning.0))
        .bind(counted(usage.audio_output.0))
        .bind(i64::from(usage.images))
        .bind(i64::from(usage.estimated))
        .bind(counted(charge.gpu_millis))
        .bind(charge.ending.as_str())
        .bind(charge.plan.as_deref().map(|plan| clean(plan).into_owned()))
        .bind(charge.price.as_deref().map(|price| clean(price).into_owned()))
        .bind(charge.currency.as_str());
    Ok(bind_money(statement, Parts::of(charge.amount)?))
}

/// Reads the columns of [`CHARGES`].
pub(super) fn read_charge(row: &AnyRow) -> Result<Charge, Failure> {
    let mut columns = Columns::of(row);
    Ok(Charge {
        id: columns.posting()?,
        at: columns.time()?,
        request: RequestId::new(columns.text()?),
        tenant: TenantId::new(columns.text()?),
        key: columns.maybe_text()?.map(KeyId::new),
        model: ModelName::new(columns.text()?),
        version: Version::new(columns.text()?),
        operation: operation(columns.text()?),
        tag: columns.maybe_text()?.map(Arc::from),
        usage: {
            let usage = read_usage(&mut columns)?;
            Usage { estimated: columns.flag()?, ..usage }
        },
        gpu_millis: columns.count()?,
        ending: ending(columns.text()?)?,
        plan: columns.maybe_text()?.map(Arc::from),
        price: columns.maybe_text()?.map(Arc::from),
        currency: columns.currency()?,
        amount: columns.money()?,
    })
}

/// Reads counts by class, from `input` to `images`.
pub(super) fn read_usage(columns: &mut Columns<'_>) -> Result<Usage, Failure> {
    Ok(Usage {
        input: Tokens(columns.count()?),
        cached: Tokens(columns.count()?),
        cache_write: Tokens(columns.count()?),
        audio_input: Tokens(columns.count()?),
        output: Tokens(columns.count()?),
        reasoning: Tokens(columns.count()?),
        audio_output: Tokens(columns.count()?),
        images: u32::try_from(columns.count()?).unwrap_or(u32::MAX),
        estimated: false,
    })
}

/// Binds the columns of [`TRANSFERS`].
pub(super) fn bind_transfer<'q>(statement: Statement<'q>, transfer: &Transfer) -> Result<Statement<'q>, Failure> {
    if !transfer.amount.is_positive() {
        return Err(Failure::broken(format!(
            "transfer {} moves {}: it must be more than nothing",
            transfer.id, transfer.amount
        )));
    }
    let statement = statement
        .bind(transfer.id.to_string())
        .bind(transfer.at.millis())
        .bind(transfer.cause.as_str())
        .bind(clean(&transfer.debit.name()).as_ref())
        .bind(clean(&transfer.credit.name()).as_ref());
    let statement = bind_money(statement, Parts::of(transfer.amount)?)
        .bind(transfer.currency.as_str())
        .bind(transfer.reverses.map(|id| id.to_string()))
        .bind(transfer.invoice.as_deref().map(|invoice| clean(invoice).into_owned()))
        .bind(transfer.note.as_deref().map(|note| clean(note).into_owned()));
    Ok(statement)
}

/// Reads the columns of [`TRANSFERS`].
pub(super) fn read_transfer(row: &AnyRow) -> Result<Transfer, Failure> {
    let mut columns = Columns::of(row);
    Ok(Transfer {
        id: columns.posting()?,
        at: columns.time()?,
        cause: cause(columns.text()?)?,
        debit: account(columns.text()?)?,
        credit: account(columns.text()?)?,
        amount: columns.money()?,
        currency: columns.currency()?,
        reverses: columns.maybe_text()?.map(crate::store::columns::posting).transpose()?,
        invoice: columns.maybe_text()?.map(str::to_owned),
        note: columns.maybe_text()?.map(str::to_owned),
    })
}

/// Binds the columns of [`INVOICES`].
pub(super) fn bind_invoice<'q>(statement: Statement<'q>, invoice: &InvoiceRow) -> Result<Statement<'q>, Failure> {
    let statement = statement
        .bind(invoice.id.as_str())
        .bind(invoice.tenant.as_str())
        .bind(invoice.from.millis())
        .bind(invoice.until.millis())
        .bind(invoice.issued.millis())
        .bind(invoice.currency.as_str());
    Ok(bind_money(statement, Parts::of(invoice.total)?).bind(invoice.body.as_str()))
}

/// Reads the columns of [`INVOICES`].
pub(super) fn read_invoice(row: &AnyRow) -> Result<InvoiceRow, Failure> {
    let mut columns = Columns::of(row);
    Ok(InvoiceRow {
        id: columns.text()?.to_owned(),
        tenant: TenantId::new(columns.text()?),
        from: columns.time()?,
        until: columns.time()?,
        issued: columns.time()?,
        currency: columns.currency()?,
        total: columns.money()?,
        body: columns.text()?.to_owned(),
    })
}

/// Reads an account's name.
pub(super) fn account(text: &str) -> Result<Account, Failure> {
    Account::parse(text).ok_or_else(|| Failure::broken(format!("`{text}` is no account")))
}

fn ending(text: &str) -> Result<Ending, Failure> {
    let known = Ending::ALL.into_iter().find(|ending| ending.as_str() == text);
    known.ok_or_else(|| Failure::broken(format!("`{text}` is no ending of a call")))
}

fn cause(text: &str) -> Result<Cause, Failure> {
    let known = Cause::ALL.into_iter().find(|cause| cause.as_str() == text);
    known.ok_or_else(|| Failure::broken(format!("`{text}` is no cause of a transfer")))
}

/// The word of a kind of work. One a newer version wrote is remembered for good, so there is a bound to how many.
fn operation(text: &str) -> &'static str {
    const OTHERS_MAX: usize = 64;
    static OTHERS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let known = [Operation::Chat, Operation::Completion, Operation::Embedding].map(Operation::as_str);
    if let Some(word) = known.into_iter().find(|word| *word == text) {
        return word;
    }
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = others.get(text) {
        return word;
    }
    if others.len() >= OTHERS_MAX {
        return "other";
    }
    let word: &'static str = Box::leak(text.to_owned().into_boxed_str());
    others.insert(word);
    word
}
