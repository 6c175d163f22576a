//! What this process may spend of money that several have in common.
//!
//! Spending is told where the shared counter is kept, and what is set aside is held there: so nothing is spent twice,
//! whichever process spends it. A call is let in on what is held; where that is not enough it waits some milliseconds until
//! more is, or nothing is left. Pure: knows no server and no clock.

use kernel::Money;
use kernel::share::{Grant, Wish};

/// How this process stands to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Footing {
    /// There are none.
    #[default]
    Alone,
    /// It is not known yet.
    Joining,
    /// So many share.
    Together {
        /// This one included.
        nodes: u32,
    },
    /// So many did; what they have in common is out of reach.
    Apart {
        /// This one included.
        nodes: u32,
    },
}

/// What is held of one counter.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// What may be spent beyond what the others have been told of.
    held: Money,
    /// What they have been told of what this process has spent, and what it had when they were last asked.
    told: Money,
    asked: Money,
    /// What was left for all, when something was last granted.
    left: Money,
    /// What calls that wait need beyond what is held.
    short: Money,
    /// What the last call was thought to cost.
    typical: Money,
    /// Exchanges since anything was last set aside or spent.
    idle: u32,
    /// Whether anything was granted and is still held.
    known: bool,
}

/// What there is of a counter, as this process knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stock {
    /// The most that may be spent.
    pub(super) limit: Money,
    /// What the ledger knows of what is spent, whoever spent it.
    pub(super) known: Money,
    /// What this process has spent that the ledger does not know of.
    pub(super) unposted: Money,
    /// What it has spent since it started.
    pub(super) mine: Money,
    /// What it has set aside.
    pub(super) pending: Money,
}

/// What may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) money: Money,
    /// What all together have left, as far as is known.
    pub(super) all: Money,
    /// Whether there may be more for the asking.
    pub(super) more: bool,
}

/// Parts of a unit of money that a shared counter counts in, and parts of those that money is exact to.
const MICRO: i128 = 1_000_000;
/// Bound: what Redis can count exactly: nine thousand million units.
const MICROS_MAX: u64 = 9_000_000_000_000_000;
/// How many calls like the last, or times what was spent since the last exchange, are held ahead.
const AHEAD: u64 = 2;
/// Exchanges without need after which nothing is held ahead: some seconds.
const IDLE_MAX: u32 = 12;

impl Footing {
    /// The same; who cannot wait until the others are known does as if there were none.
    pub(super) fn known(self, anyway: bool) -> Self {
        if anyway && self == Self::Joining { Self::Alone } else { self }
    }
}

impl Lease {
    /// What may be spent, and whether there may be more.
    pub(super) fn room(&self, stock: &Stock, footing: Footing) -> Room {
        let local = stock.limit - stock.known - stock.unposted - stock.pending;
        match footing {
            Footing::Alone => Room { money: local, all: local, more: false },
            // Each keeps to its part of what the ledger last said.
            Footing::Apart { nodes } => {
                let part = per(stock.limit - stock.known, nodes) - stock.unposted - stock.pending;
                Room { money: part, all: local, more: false }
            }
            Footing::Joining => Room { money: Money::ZERO, all: local, more: local.is_positive() },
            Footing::Together { .. } => {
                let money = self.free(stock).min(local);
                let more = !self.known || self.left.is_positive();
                Room { money, all: self.left + money.max(Money::ZERO), more: more && local.is_positive() }
            }
        }
    }

    /// What an answer that flows may take beyond what is held: all together at most half of what was left.
    pub(super) fn trusted(&self, footing: Footing) -> Money {
        match footing {
            Footing::Together { nodes } if self.known => per(self.left, nodes.saturating_mul(2)),
            _ => Money::ZERO,
        }
    }

    fn free(&self, stock: &Stock) -> Money {
        self.held - (stock.mine - self.told) - stock.pending
    }

    /// A call of this cost has come; it waits for so much.
    pub(super) fn need(&mut self, cost: Money, short: Money) {
        self.typical = cost;
        self.short += short.max(Money::ZERO);
        self.idle = 0;
    }

    /// What is to be exchanged now.
    pub(super) fn order(&mut self, stock: &Stock, nodes: u32) -> Wish {
        let recent = stock.mine - self.asked;
        let needed = recent.is_positive() || self.short.is_positive() || stock.pending.is_positive();
        self.idle = if needed { 0 } else { self.idle.saturating_add(1) };
        let demand = recent.max(self.typical).times(AHEAD).min(per(self.left, nodes.saturating_mul(2)));
        // Whole calls: a part of one is of use to nobody, and near the end nothing is held ahead at all.
        let demand = self.typical.times(demand.holds(self.typical));
        let ahead = if self.idle > IDLE_MAX { Money::ZERO } else { demand.max(self.short) };
        let want = stock.pending + ahead;
        self.asked = stock.mine;
        self.short = Money::ZERO;
        // Until the answer comes no more may be spent than is asked to be held.
        self.held = self.held.min(stock.mine - self.told + want);
        Wish::Funds {
            limit: micros(stock.limit, false),
            mine: micros(stock.mine, true),
            known: micros(stock.known, false),
            want: micros(want, true),
            busy: micros(stock.pending, true),
        }
    }

    /// What came of it; `None`: no answer.
    pub(super) fn granted(&mut self, grant: Option<Grant>, stock: &Stock) {
        let Some(grant) = grant else {
            self.held = self.held.min(stock.mine - self.told + stock.pending);
            return;
        };
        self.told = self.asked;
        (self.held, self.left) = (money(grant.units), money(grant.left));
        self.known = true;
    }

    /// Nothing is held any more.
    pub(super) fn part(&mut self) {
        (self.held, self.left, self.known) = (Money::ZERO, Money::ZERO, false);
    }

    /// Whether it needs no looking after.
    pub(super) fn rests(&self, stock: &Stock) -> bool {
        let told = self.told == stock.mine && stock.pending.is_zero() && self.held.is_zero();
        told && self.short.is_zero() && (self.idle > IDLE_MAX || !self.known)
    }
}

/// A part of several, rounded down.
fn per(money: Money, parts: u32) -> Money {
    Money::from_pico(money.pico().div_euclid(i128::from(parts.max(1))))
}

fn micros(money: Money, up: bool) -> u64 {
    let pico = money.pico().max(0).saturating_add(if up { MICRO - 1 } else { 0 });
    u64::try_from(pico / MICRO).unwrap_or(MICROS_MAX).min(MICROS_MAX)
}

fn money(micros: u64) -> Money {
    Money::from_pico(i128::from(micros) * MICRO)
}
