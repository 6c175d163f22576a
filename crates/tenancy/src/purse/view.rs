//! What the purse's tests look at: its books, loaded or not. Operators are shown [`budgets`](super::budgets).

use kernel::contract::Period;
use kernel::{KeyId, Money, TenantId, Timestamp};

use super::Purse;
use super::counter::Counter;

/// One budget's books as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Whose: the tenant's, or a key's by the id of the first of its line.
    pub(super) key: Option<String>,
    /// Per what.
    pub(super) per: Period,
    /// Which models; empty: all.
    pub(super) models: Vec<String>,
    /// What is spent in this period.
    pub(super) spent: Money,
    /// What is reserved.
    pub(super) pending: Money,
    /// Whether the ledger has been asked.
    pub(super) loaded: bool,
}

impl Purse {
    /// What a tenant has spent under each of its budgets, and what is left of its balance where calls are paid from one.
    pub(super) fn view(&self, tenant: &TenantId, now: Timestamp) -> (Vec<View>, Option<Money>) {
        let Some(account) = self.known(tenant) else { return (Vec::new(), None) };
        let mut books = account.lock();
        let balance = books.balance.wanted.then(|| books.balance.left());
        let view = |(keys, counter): (Option<&[KeyId]>, &mut Counter)| {
            counter.roll(now);
            View {
                key: keys.and_then(<[KeyId]>::first).map(|key| key.as_str().to_owned()),
                per: counter.per,
                models: counter.models.to_vec(),
                spent: counter.spent(),
                pending: counter.pending,
                loaded: counter.spending.now().loaded,
            }
        };
        (books.counters().map(view).collect(), balance)
    }
}
