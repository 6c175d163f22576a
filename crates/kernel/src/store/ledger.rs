//! Charges, the transfers they cause, and what is asked about them.
//!
//! The ledger is append-only and double-entry: a transfer takes from one account what it gives to another, so debits
//! equal credits whatever happens. Everything has an id made by whoever causes it, and lands once however often it is
//! posted. A mistake is mended by a transfer the other way.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::Stored;
use crate::time::Timestamp;
use crate::{Currency, KeyId, ModelName, Money, RequestId, TenantId, Usage, Version};

/// The id of a charge or transfer: a UUID of version 7, so that later ones sort later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostingId(pub Uuid);

/// How an answer ended: it decides the bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The client got all of it.
    Complete,
    /// The client left before its end.
    ClientGone,
    /// The backend broke off, or sent an error in the middle.
    UpstreamBroke,
    /// It took longer than it may.
    TimedOut,
    /// A hard budget was spent while it flowed.
    CutOff,
    /// Sluice was killed or stopped while it flowed.
    GatewayKilled,
}

/// What one attempt of a call consumed and costs. Holds no prompt and no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// Its id.
    pub id: PostingId,
    /// When it ended, which says in which period it falls.
    pub at: Timestamp,
    /// The request, as its client knows it. Clients may use an id twice.
    pub request: RequestId,
    /// Who pays.
    pub tenant: TenantId,
    /// With which key.
    pub key: Option<KeyId>,
    /// The model really called.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// The kind of work: `chat`, `completion`, `embedding` …
    pub operation: &'static str,
    /// What the client wants it counted under (`x-sluice-tag`).
    pub tag: Option<Arc<str>>,
    /// What it consumed.
    pub usage: Usage,
    /// GPU time in milliseconds: how long the instance worked on it, times its GPUs.
    pub gpu_millis: u64,
    /// How it ended.
    pub ending: Ending,
    /// Which version of which plan it was rated by: its id; `None` without a plan.
    pub plan: Option<Arc<str>>,
    /// Which price it was rated by: its id in the catalogue; `None` where there is none.
    pub price: Option<Arc<str>>,
    /// In which currency.
    pub currency: Currency,
    /// What it costs, exact.
    pub amount: Money,
}

/// An account: a tenant's, or one of the house's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// What a tenant owes (debits) and has paid (credits). In credit: a balance to use up.
    Tenant(TenantId),
    /// What was earned by calls, fees and the like.
    Revenue,
    /// Money that came in or went out.
    Cash,
    /// What was given away: credits, goodwill.
    Grants,
    /// What rounding of invoice lines left over, either way.
    Rounding,
}

/// What a transfer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A charge for a call.
    Call,
    /// A subscription's monthly fee.
    Fee,
    /// Tokens beyond what a fee includes.
    Overage,
    /// The difference between an invoice line and the exact sum.
    Rounding,
    /// Money paid in.
    TopUp,
    /// Credit given.
    Grant,
    /// Another transfer taken back.
    Reversal,
}

/// Money moved from one account to another. Never changed, never deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its id; that of its charge where it has one.
    pub id: PostingId,
    /// When.
    pub at: Timestamp,
    /// What for.
    pub cause: Cause,
    /// Taken from here.
    pub debit: Account,
    /// Given to here.
    pub credit: Account,
    /// How much; more than nothing.
    pub amount: Money,
    /// In which currency.
    pub currency: Currency,
    /// The transfer it takes back. Each is taken back at most once.
    pub reverses: Option<PostingId>,
    /// In which invoice it stands, if it was made by one.
    pub invoice: Option<String>,
    /// Why, in words; for those made by people.
    pub note: Option<String>,
}

/// What is to be posted together or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Charges.
    pub charges: Vec<Charge>,
    /// Transfers.
    pub transfers: Vec<Transfer>,
}

/// Which part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose; `None`: everybody's.
    pub tenant: Option<TenantId>,
    /// Of these only; empty: of all.
    pub tenants: Vec<TenantId>,
    /// With which key.
    pub key: Option<KeyId>,
    /// Which model.
    pub model: Option<ModelName>,
    /// Under which tag.
    pub tag: Option<String>,
    /// From when, included; whole hours for sums.
    pub from: Option<Timestamp>,
    /// Until when, left out; whole hours for sums.
    pub until: Option<Timestamp>,
}

/// What sums are split by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// By tenant.
    Tenant,
    /// By key.
    Key,
    /// By model.
    Model,
    /// By tag.
    Tag,
    /// By price: its id.
    Price,
    /// By version of a plan: its id.
    Plan,
    /// By hour, in milliseconds since 1970.
    Hour,
    /// By day, in milliseconds since 1970.
    Day,
    /// By month: `2026-11`.
    Month,
}

/// One row of sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// What it is the sum of, in the order asked for; `None` where a charge has none (no key, no tag).
    pub of: Vec<Option<String>>,
    /// Charges.
    pub calls: u64,
    /// Charges whose usage was estimated.
    pub estimated: u64,
    /// Tokens by class, and images; `estimated` says nothing here.
    pub usage: Usage,
    /// GPU time in milliseconds.
    pub gpu_millis: u64,
    /// In which currency.
    pub currency: Currency,
    /// What they cost, exact.
    pub amount: Money,
}

/// Which page of sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumPage {
    /// Over which charges. Where it is split by months both times are needed.
    pub filter: Filter,
    /// Split by what.
    pub by: Vec<Dimension>,
    /// After which sum: its `of` and its currency.
    pub after: Option<(Vec<Option<String>>, Currency)>,
    /// At most so many.
    pub most: u32,
}

/// What moved on an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Taken from it.
    pub debits: Money,
    /// Given to it.
    pub credits: Money,
}

/// An invoice, once issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceRow {
    /// Its number.
    pub id: String,
    /// Whose.
    pub tenant: TenantId,
    /// From when, included.
    pub from: Timestamp,
    /// Until when, left out.
    pub until: Timestamp,
    /// When it was issued.
    pub issued: Timestamp,
    /// In which currency.
    pub currency: Currency,
    /// What is to be paid.
    pub total: Money,
    /// The whole of it, as JSON.
    pub body: String,
}

/// Keeps what is owed.
pub trait Ledger: Send + Sync + 'static {
    /// Posts a batch in one transaction. What is there already is left as it is and counts for nothing. Returns how many
    /// charges and transfers were new.
    fn post<'a>(&'a self, batch: &'a Batch) -> Stored<'a, (u64, u64)>;

    /// Sums over charges, split by dimensions; in no order.
    fn sums<'a>(&'a self, filter: &'a Filter, by: &'a [Dimension]) -> Stored<'a, Vec<Sum>>;

    /// The same for reports, page by page: in order of what they are split by (what is missing first, texts by their bytes,
    /// times as they go by) and of currency. However many sums there are, no more than a page is in memory. Few are made at
    /// once; others wait, and no other question waits for them.
    fn sums_page<'a>(&'a self, page: &'a SumPage) -> Stored<'a, Vec<Sum>>;

    /// Charges in order of time and id, after one, at most so many.
    fn charges<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Charge>>;

    /// Transfers that touch an account, in order of time and id, after one, at most so many.
    fn transfers<'a>(
        &'a self,
        account: &'a Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Transfer>>;

    /// Transfers that touch an account and that no call caused, in order of time and id, after one, at most so many.
    fn moves<'a>(
        &'a self,
        account: &'a Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Transfer>>;

    /// A transfer by its id.
    fn transfer(&self, id: PostingId) -> Stored<'_, Option<Transfer>>;

    /// What moved on an account in a currency.
    fn balance<'a>(&'a self, account: &'a Account, currency: Currency) -> Stored<'a, Balance>;

    /// What moved on these accounts in any currency; nothing of those on which nothing did.
    fn balances_of<'a>(&'a self, accounts: &'a [Account]) -> Stored<'a, Vec<(Account, Currency, Balance)>>;

    /// Every account that something moved on.
    fn balances(&self) -> Stored<'_, Vec<(Account, Currency, Balance)>>;

    /// Issues an invoice with the transfers it makes, in one transaction.
    ///
    /// # Errors
    /// `Conflict` where the number is taken or the tenant has an invoice in that currency for a part of that time.
    fn issue<'a>(&'a self, invoice: &'a InvoiceRow, transfers: &'a [Transfer]) -> Stored<'a, ()>;

    /// Invoices, the latest first; of one tenant or of all.
    fn invoices<'a>(&'a self, tenant: Option<&'a TenantId>) -> Stored<'a, Vec<InvoiceRow>>;

    /// One invoice.
    fn invoice<'a>(&'a self, id: &'a str) -> Stored<'a, Option<InvoiceRow>>;

    /// Compares what is kept twice: account totals with their transfers, sums with their charges. What does not agree, in
    /// words; empty if all does.
    fn audit(&self) -> Stored<'_, Vec<String>>;
}

// === impl PostingId ===

impl PostingId {
    /// A new one.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for PostingId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for PostingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

// === impl Ending ===

impl Ending {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Complete, Self::ClientGone, Self::UpstreamBroke, Self::TimedOut, Self::CutOff, Self::GatewayKilled];

    /// The word kept in the store and shown in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroke => "upstream_broke",
            Self::TimedOut => "timed_out",
            Self::CutOff => "cut_off",
            Self::GatewayKilled => "gateway_killed",
        }
    }
}

// === impl Account ===

impl Account {
    /// As kept in the store: `tenant/acme`, `revenue`.
    pub fn name(&self) -> String {
        match self {
            Self::Tenant(id) => format!("tenant/{id}"),
            Self::Revenue => "revenue".into(),
            Self::Cash => "cash".into(),
            Self::Grants => "grants".into(),
            Self::Rounding => "rounding".into(),
        }
    }

    /// Reads what [`name`](Self::name) writes.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "revenue" => Self::Revenue,
            "cash" => Self::Cash,
            "grants" => Self::Grants,
            "rounding" => Self::Rounding,
            _ => Self::Tenant(TenantId::new(text.strip_prefix("tenant/").filter(|id| !id.is_empty())?)),
        })
    }
}

// === impl Cause ===

impl Cause {
    /// All there are.
    pub const ALL: [Self; 7] =
        [Self::Call, Self::Fee, Self::Overage, Self::Rounding, Self::TopUp, Self::Grant, Self::Reversal];

    /// The word kept in the store and shown in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Fee => "fee",
            Self::Overage => "overage",
            Self::Rounding => "rounding",
            Self::TopUp => "top_up",
            Self::Grant => "grant",
            Self::Reversal => "reversal",
        }
    }
}

// === impl Charge ===

impl Charge {
    /// The transfer it causes: what the tenant owes is earned. `None` where it costs nothing.
    pub fn transfer(&self) -> Option<Transfer> {
        self.amount.is_positive().then(|| Transfer {
            id: self.id,
            at: self.at,
            cause: Cause::Call,
            debit: Account::Tenant(self.tenant.clone()),
            credit: Account::Revenue,
            amount: self.amount,
            currency: self.currency,
            reverses: None,
            invoice: None,
            note: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_name_can_be_read_back() {
        for account in
            [Account::Tenant(TenantId::new("a/b")), Account::Revenue, Account::Cash, Account::Grants, Account::Rounding]
        {
            assert_eq!(Account::parse(&account.name()), Some(account));
        }
        assert_eq!((Account::parse(""), Account::parse("tenant/"), Account::parse("x")), (None, None, None));
    }
}
