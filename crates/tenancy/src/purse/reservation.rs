//! Money set aside for one attempt: topped up while its answer flows, settled by what it cost, freed where it cost nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::store::ledger::PostingId;
use kernel::{Caller, Error, KeyId, ModelName, Money, Timestamp, Tokens, Usage};

use super::books::{Limits, Spent};
use super::lease::Room;
use super::{Account, Purse, refusal};
use crate::catalogue::Listed;
use crate::rating;

/// How much more is reserved at once while an answer flows: an eighth of what there is of it, and at least so many tokens.
const MORE: u64 = 64;
const MORE_SHARE: u64 = 8;
/// The same of GPU time, in milliseconds.
const MORE_GPU_MILLIS: u64 = 50;

/// Money set aside for one attempt. Dropped before it is settled, it is free again.
#[must_use = "a dropped reservation is free again"]
pub struct Reservation {
    pub(super) id: PostingId,
    pub(super) purse: Arc<Purse>,
    pub(super) account: Arc<Account>,
    pub(super) caller: Caller,
    /// The name that its key's spending is counted under.
    pub(super) line: Option<KeyId>,
    pub(super) model: ModelName,
    pub(super) listed: Option<Arc<Listed>>,
    pub(super) limits: Limits,
    pub(super) prepaid: bool,
    pub(super) held: bool,
    /// What is set aside.
    pub(super) amount: Money,
    /// Tokens used this month before it, and those set aside of the included ones.
    pub(super) before: u64,
    pub(super) included: u64,
    pub(super) tokens: u64,
    pub(super) bytes: usize,
    pub(super) choices: u16,
    /// What it was thought to consume.
    pub estimate: Usage,
    pub(super) settled: bool,
}

// === impl Reservation ===

impl Reservation {
    /// What a usage counts towards budgets beyond what is charged for it.
    pub fn overage(&self, usage: &Usage) -> Money {
        let rates = self.listed.as_deref().map(|listed| &listed.rates);
        rating::overage(&self.caller.terms.billing, rates, (self.before, self.included), usage)
    }

    /// The same usage, with the images and the part of sound that are expected: only the end of an answer tells of them.
    fn with_rest(&self, usage: &Usage) -> Usage {
        let Usage { output, audio_output, images, .. } = self.estimate;
        let spoken = u128::from(usage.output.0) * u128::from(audio_output.0) / u128::from(output.0.max(1));
        Usage { images, audio_output: Tokens(u64::try_from(spoken).unwrap_or(u64::MAX)), ..*usage }
    }

    /// What is set aside.
    pub fn amount(&self) -> Money {
        self.amount
    }

    /// Sees to it that a usage can be paid for, before it is handed on, with the GPU time taken so far and what is thought
    /// to come of images and sound; `rate` says what that costs. Where more must be set aside, it is somewhat more, so that not
    /// every piece asks again.
    ///
    /// # Errors
    /// `OverBudget` where there is not enough left: nothing more must be handed on.
    pub fn cover(
        &mut self,
        usage: &Usage,
        gpu_millis: u64,
        rate: impl Fn(&Usage, u64) -> Money,
        now: Timestamp,
    ) -> Result<(), Error> {
        let usage = &self.with_rest(usage);
        let needed = rate(usage, gpu_millis) + self.overage(usage);
        if needed <= self.amount {
            return Ok(());
        }
        let more = (usage.output.0 / MORE_SHARE).max(MORE);
        let ahead = self.with_rest(&Usage { output: Tokens(usage.output.0.saturating_add(more)), ..*usage });
        let later = gpu_millis.saturating_add((gpu_millis / MORE_SHARE).max(MORE_GPU_MILLIS).min(gpu_millis));
        let wanted = rate(&ahead, later) + self.overage(&ahead) - self.amount;
        let key = self.line.as_ref();
        let mut books = self.account.lock();
        // Whoever was let in blind goes on blind.
        let footing = self.purse.standing.footing().known(true);
        let left = || books.left(&self.limits, key, self.prepaid, true, footing).ok().flatten();
        let left = self.held.then(left).flatten();
        let trusted = books.trusted(&self.limits, key, self.prepaid, footing);
        let room = |(left, _): (Room, Spent)| wanted.min((left.money + trusted).min(left.all).max(Money::ZERO));
        let granted = left.map_or(wanted, room);
        if left.is_some_and(|(left, _)| left.more && left.money < wanted.times(2)) {
            books.need(&self.limits, key, self.prepaid, (wanted, footing));
            self.purse.standing.list(&self.account, true);
        }
        if self.amount + granted < needed {
            drop(books);
            self.purse.cut_off.fetch_add(1, Ordering::Relaxed);
            let spent = left.map_or(Spent::Unknown, |(_, spent)| spent);
            return Err(refusal::error(spent, needed, &self.caller.tenant, self.caller.terms.billing.currency(), now));
        }
        books.set_aside(&self.limits, key, self.prepaid, granted);
        self.amount += granted;
        Ok(())
    }

    /// Spends what the attempt turned out to cost and frees the rest. `learn`: with how much
    /// GPU time, where the usage says how large calls are.
    pub fn settle(mut self, usage: &Usage, amount: Money, at: Timestamp, learn: Option<u64>) {
        self.settled = true;
        let overage = self.overage(usage);
        let key = self.line.as_ref();
        let mut books = self.account.lock();
        books.set_aside(&self.limits, key, self.prepaid, -self.amount);
        let crossed = books.spend(&self.limits, key, self.prepaid, (amount, overage), (self.id, at));
        books.month.pending = books.month.pending.saturating_sub(self.tokens);
        if self.caller.terms.billing.monthly.is_some() && !self.caller.terms.billing.by_token() {
            books.month.add(usage.total().0, at);
        }
        if let Some(gpu_millis) = learn {
            books.learn(&self.model, self.bytes, (usage, gpu_millis), self.choices);
        }
        drop(books);
        self.purse.tell(&self.caller.tenant, &crossed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut books = self.account.lock();
        books.set_aside(&self.limits, self.line.as_ref(), self.prepaid, -self.amount);
        books.month.pending = books.month.pending.saturating_sub(self.tokens);
    }
}
