//! What several processes have in common: counters, and what may happen once.
//!
//! Nothing on the way of a call asks for counters: each process draws some units ahead (a lease), spends them by itself, and
//! comes back for more, many counters in one exchange. What it took beyond its lease it charges at the next exchange; what
//! it does not need it gives back the same way.

use crate::TenantId;
use crate::store::Stored;
use std::time::Duration;

/// One counter, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whose. A tenant's counters are kept in one place, and exchanged in one step.
    pub tenant: TenantId,
    /// Which of the tenant's; unique within it.
    pub counter: String,
    /// What kind, and how much of it.
    pub wish: Wish,
}

/// What is wanted of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Units of a rate. It comes back with time, by the counter's own clock.
    Rate {
        /// So many per period, and as many at once.
        units: u64,
        /// In microseconds.
        period: u64,
        /// How many to take, as far as there are as many.
        want: u64,
        /// How many to charge that were taken already, however many are left; below zero: to give back.
        owed: i64,
    },
    /// Places that are held until they are given back, or for [`HELD_FOR`] after the last exchange.
    Places {
        /// So many in all.
        limit: u32,
        /// How many to hold from now on, as far as there are as many.
        want: u32,
        /// How many are taken already, and held whether there are as many or not.
        busy: u32,
    },
    /// Money, in millionths: what is spent is gone, what may be spent next is held like places.
    Funds {
        /// So much in all.
        limit: u64,
        /// What this process has spent of it since it started. An order that is carried out twice counts it once.
        mine: u64,
        /// What is spent at least, whoever spent it.
        known: u64,
        /// How much to hold from now on, as far as there is as much.
        want: u64,
        /// How much is set aside already, and held whether there is as much or not.
        busy: u64,
    },
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// Units of a rate taken; places held; money held.
    pub units: u64,
    /// What is left for all.
    pub left: u64,
    /// Until one more is there; zero for places and money.
    pub next: Duration,
}

/// Bound: places of a process that is gone, or cut off, are free again after so long.
pub const HELD_FOR: Duration = Duration::from_secs(3);
/// Bound: a process not heard of for so long is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(3);

/// Where it is kept what has happened and must not happen again, at whatever process.
pub trait Once: Send + Sync + 'static {
    /// Makes it happen; gives whether it is the first time. It is remembered for as long as `keep`.
    ///
    /// # Errors
    /// When the answer does not come within the driver's time-out. It may have been remembered all the same.
    fn first<'a>(&'a self, name: &'a str, keep: Duration) -> Stored<'a, bool>;
}

/// Where shared counters are kept.
pub trait Share: Send + Sync + 'static {
    /// Carries out orders, each tenant's in one step; gives one grant for each order, in their order.
    ///
    /// # Errors
    /// When the answer does not come within the driver's time-out. Orders may have been carried out all the same.
    fn exchange<'a>(&'a self, orders: &'a [Order]) -> Stored<'a, Vec<Grant>>;

    /// Says that this process lives; gives how many do. To be repeated well within [`GONE_AFTER`].
    ///
    /// # Errors
    /// As above.
    fn beat(&self) -> Stored<'_, u32>;
}
