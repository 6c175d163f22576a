//! What is counted: under a budget, of a balance, of a month's included tokens.
//!
//! Everything is kept in parts that others can tell of: what the ledger knows, what it will know once it is posted, what is
//! set aside. Pure: knows no store and no clock.

use kernel::contract::{Budget, Period};
use kernel::{Money, Timestamp};

use super::dated::Dated;
use super::lease::{Lease, Stock};
use super::period;

/// What is spent under one budget, or under several that count the same.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) per: Period,
    pub(super) models: Box<[String]>,
    pub(super) spending: Dated<Tally>,
    /// What is reserved, whenever it will be spent.
    pub(super) pending: Money,
    /// The tightest hard budget that is counted here, as the last call had it.
    pub(super) hard: Option<Money>,
}

/// What is spent in one period.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What the ledger knows.
    pub(super) posted: Money,
    /// What is settled here and not posted yet.
    pub(super) unposted: Money,
    /// Tokens beyond a month's included ones, of what is posted: they are charged by its invoice, but spent now.
    pub(super) overage: Money,
    /// The same of what is not posted yet.
    pub(super) fresh: Money,
    /// All that was settled here, posted or not.
    pub(super) mine: Money,
    pub(super) lease: Lease,
    /// Whether the ledger has been asked.
    pub(super) loaded: bool,
}

/// What was paid in, where calls are paid from that.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// What the ledger knows; and what of that was paid in.
    pub(super) posted: Money,
    pub(super) credits: Money,
    pub(super) unposted: Money,
    pub(super) mine: Money,
    pub(super) lease: Lease,
    pub(super) pending: Money,
    /// Whether anybody asked for it.
    pub(super) wanted: bool,
    pub(super) loaded: bool,
}

/// Tokens of this month, where a fee includes some.
#[derive(Debug, Default)]
pub(super) struct Included {
    pub(super) months: Dated<Month>,
    pub(super) pending: u64,
    /// How many the plan as it is includes in a whole month.
    pub(super) promised: u64,
    pub(super) wanted: bool,
}

/// Tokens of one month.
#[derive(Debug, Default)]
pub(super) struct Month {
    pub(super) posted: u64,
    pub(super) unposted: u64,
    /// How many the fee includes, where that is known better than from the plan as it is.
    pub(super) included: Option<u64>,
    pub(super) loaded: bool,
}

// === impl Counter ===

impl Counter {
    pub(super) fn new(budget: &Budget, now: Timestamp) -> Self {
        Self {
            per: budget.per,
            models: budget.models.clone().into(),
            spending: Dated::begun(period::number(budget.per, now)),
            pending: Money::ZERO,
            hard: None,
        }
    }

    /// Whether a budget is counted here. How much it allows is no part of it: a new limit keeps what was spent.
    pub(super) fn is(&self, budget: &Budget) -> bool {
        self.per == budget.per && *self.models == *budget.models
    }

    /// What is spent in the period that is, posted or not.
    pub(super) fn spent(&self) -> Money {
        self.spending.now().spent()
    }

    /// Goes on to the period of this time. What is reserved goes along: it will be spent there.
    pub(super) fn roll(&mut self, now: Timestamp) {
        // In one that only begins nothing is spent yet; of an earlier one the ledger must tell.
        let begin = |before: &Tally| Tally { loaded: before.loaded, ..Tally::default() };
        self.spending.turn(period::number(self.per, now), begin);
    }
}

// === impl Tally ===

impl Tally {
    /// What is spent, posted or not.
    pub(super) fn spent(&self) -> Money {
        self.posted + self.unposted + self.overage + self.fresh
    }

    /// The same, beside a limit and what is set aside.
    pub(super) fn stock(&self, limit: Money, pending: Money) -> Stock {
        let (known, unposted) = (self.posted + self.overage, self.unposted + self.fresh);
        Stock { limit, known, unposted, mine: self.mine, pending }
    }
}

// === impl Balance ===

impl Balance {
    /// What is left of it.
    pub(super) fn left(&self) -> Money {
        self.posted - self.unposted - self.pending
    }

    pub(super) fn stock(&self) -> Stock {
        let Self { posted, credits, unposted, mine, pending, .. } = *self;
        Stock { limit: credits, known: credits - posted, unposted, mine, pending }
    }
}

// === impl Included ===

impl Included {
    /// Tokens used this month, those of calls under way included.
    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        let pending = self.pending;
        let month = self.turn(now);
        month.posted.saturating_add(month.unposted).saturating_add(pending)
    }

    /// Goes on to the month of this time.
    pub(super) fn turn(&mut self, now: Timestamp) -> &Month {
        let begin = |before: &Month| Month { loaded: before.loaded, ..Month::default() };
        self.months.turn(period::number(Period::Month, now), begin);
        self.months.now()
    }

    /// More was used, at this time.
    pub(super) fn add(&mut self, tokens: u64, at: Timestamp) {
        let month = self.months.made_at(period::number(Period::Month, at));
        month.unposted = month.unposted.saturating_add(tokens);
    }
}
