//! What this process has of a counter that several share.
//!
//! Calls take from it and never wait. Units drawn are paid for where the counter is kept, so however late they are spent,
//! over time no more pass than the limit lets. What is taken beyond them is taken on trust: only so much of it that all
//! processes together stay within half of what was last seen to be left, and it is paid for at the next exchange. Without
//! anything drawn, left, or to be trusted, calls are refused until more is there.

use std::time::Duration;

use kernel::Moment;
use kernel::share::{Grant, HELD_FOR, Wish};

use super::cell::Rate;

/// Calls between two exchanges of a busy counter. Bound: what an exchange costs is spread over so many.
const CALLS: u32 = 50;
/// Between two exchanges of a counter that fewer calls ask for. Bound: beyond it leases would go stale.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two exchanges where a call was refused although others have some to spare. Bound: it is not refused for longer.
const SOON: Duration = Duration::from_millis(100);
/// How much more than the demand is drawn, so that a small change of it leaves nobody without.
const MORE: f64 = 1.5;
/// Bound: shorter demands are not looked ahead for.
const AHEAD_MIN: Duration = Duration::from_millis(50);
/// After so long without a call, what was drawn is given back.
const IDLE: Duration = Duration::from_millis(500);
/// After so long without an exchange nothing is known any more, and what was drawn must not be spent.
const KNOWN: Duration = Duration::from_secs(1);
/// Places are confirmed this often. Bound: three times before they would be lost.
const CONFIRM: Duration = Duration::from_millis(HELD_FOR.as_millis() as u64 / 3);
/// Added to the time refused calls are told: for the exchange that follows it.
const MARGIN: Duration = Duration::from_millis(50);

/// Units of a rate.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lease {
    /// What is left of those drawn; below zero: taken on trust and not yet paid for.
    units: i64,
    /// How far below zero it may go.
    trust: u64,
    /// When the last exchange ended.
    drawn: Option<Moment>,
    /// Whether a call was refused since.
    starved: bool,
    /// Whether nothing was left after it.
    dry: bool,
    /// How many came with it.
    batch: u64,
    /// Until when there is nothing to be had.
    empty: Moment,
    /// Units per second asked for.
    demand: f64,
    /// Units asked for since the last exchange, and calls.
    asked: (u64, u32),
    touched: Moment,
    /// Charged by the exchange under way; `None`: none is.
    under_way: Option<i64>,
}

/// Places.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hold {
    held: u32,
    trust: u32,
    drawn: Option<Moment>,
    asked: u32,
    touched: Moment,
    under_way: bool,
}

/// Of what is left for all, what one of so many may take on trust: together no more than half.
fn part(left: u64, nodes: u32) -> u64 {
    left / (2 * u64::from(nodes.max(1)))
}

// === impl Lease ===

impl Lease {
    /// Nothing drawn yet, and so many units taken already.
    pub(super) fn owing(units: u64) -> Self {
        Self { units: -i64::try_from(units).unwrap_or(i64::MAX), ..Self::default() }
    }

    /// Until a call may take some; zero: now.
    pub(super) fn wait(&self, rate: Rate, nodes: u32, now: Moment) -> Duration {
        if self.left(rate, nodes, now) > 0 {
            return Duration::ZERO;
        }
        let again = self.drawn.map_or(now, |drawn| drawn + PAUSE);
        again.max(self.empty).since(now) + MARGIN
    }

    /// What calls could take now.
    pub(super) fn left(&self, rate: Rate, nodes: u32, now: Moment) -> u64 {
        let (drawn, trust) = match self.unknown(now) {
            true => (self.units.min(0), part(rate.units(), nodes).max(1)),
            false => (self.units, self.trust),
        };
        let left = drawn.saturating_add(i64::try_from(trust).unwrap_or(i64::MAX));
        u64::try_from(left).unwrap_or(0)
    }

    /// A call asked for so many, and got them or not.
    pub(super) fn ask(&mut self, units: u64, got: bool, now: Moment) {
        self.starved |= !got;
        if got {
            self.add(i64::try_from(units).unwrap_or(i64::MAX));
        }
        self.asked = (self.asked.0.saturating_add(units), self.asked.1.saturating_add(1));
        self.touched = now;
    }

    /// Takes units, or gives them back where there are fewer than none.
    pub(super) fn add(&mut self, units: i64) {
        self.units = self.units.saturating_sub(units);
    }

    /// The most that may be spent here and was not, or not yet, paid for or seen by others.
    pub(super) fn bound(&self) -> u64 {
        self.trust.saturating_add(self.units.unsigned_abs())
    }

    /// Whether nothing is drawn, owed or under way.
    pub(super) fn at_rest(&self) -> bool {
        self.units == 0 && self.under_way.is_none()
    }

    /// What to exchange now, if anything.
    pub(super) fn order(&mut self, rate: Rate, nodes: u32, now: Moment) -> Option<Wish> {
        if self.under_way.is_some() {
            return None;
        }
        let (units, period) = (rate.units(), rate.period());
        if now.since(self.touched) > IDLE {
            let owed = -std::mem::take(&mut self.units);
            self.under_way = (owed != 0).then_some(0);
            // What is given back is no longer here; what is owed stays until it is seen to be charged.
            if owed > 0 {
                (self.units, self.under_way) = (-owed, Some(owed));
            }
            return (owed != 0).then_some(Wish::Rate { units, period, want: 0, owed });
        }
        let since = self.drawn.map_or(PAUSE, |drawn| now.since(drawn));
        let low = self.units <= i64::try_from(self.batch / 2).unwrap_or(i64::MAX);
        // Where others have some to spare nobody is kept waiting.
        let soon = since >= PAUSE || self.asked.1 >= CALLS || self.starved && !self.dry && since >= SOON;
        if !(low && soon && (now >= self.empty || self.units < 0)) {
            return None;
        }
        let owed = (-self.units).max(0);
        self.under_way = Some(owed);
        let want = self.want(rate, nodes, since);
        Some(Wish::Rate { units, period, want, owed })
    }

    /// For as long as it takes until the next exchange, and half as long again.
    fn want(&mut self, rate: Rate, nodes: u32, since: Duration) -> u64 {
        let seconds = since.as_secs_f64().max(1e-3);
        let seen = self.asked.0 as f64 / seconds;
        self.demand = if self.drawn.is_none() { seen } else { (self.demand + seen) / 2.0 };
        let calls = f64::from(self.asked.1) / seconds;
        let ahead = (f64::from(CALLS) / calls.max(1.0)).clamp(AHEAD_MIN.as_secs_f64(), PAUSE.as_secs_f64());
        (self.asked, self.starved) = ((0, 0), false);
        let want = (self.demand * ahead * MORE).ceil() as u64;
        let have = u64::try_from(self.units).unwrap_or(0);
        // Where all is spoken for, each takes its part of what has come back since, so that none lies with one while
        // another is out of it.
        let back = rate.back(since) / u64::from(nodes.max(1));
        let most = part(rate.units(), nodes).min(if self.dry { back } else { u64::MAX });
        want.saturating_sub(have).clamp(1, most.max(1))
    }

    /// What came of it; `None`: no answer.
    pub(super) fn granted(&mut self, grant: Option<Grant>, nodes: u32, now: Moment) {
        let Some(owed) = self.under_way.take() else { return };
        let Some(grant) = grant else { return };
        self.units = self.units.saturating_add(owed).saturating_add(i64::try_from(grant.units).unwrap_or(i64::MAX));
        (self.trust, self.batch, self.drawn) = (part(grant.left, nodes), grant.units, Some(now));
        self.dry = grant.left == 0;
        self.empty = if grant.left == 0 && self.units <= 0 { now + grant.next } else { Moment::default() };
    }

    fn unknown(&self, now: Moment) -> bool {
        now >= self.empty && self.drawn.is_none_or(|drawn| now.since(drawn) > KNOWN)
    }
}

// === impl Hold ===

impl Hold {
    /// Places calls could take now.
    pub(super) fn free(&self, limit: u32, busy: u32, nodes: u32, now: Moment) -> u32 {
        let unknown = self.drawn.is_none_or(|drawn| now.since(drawn) > HELD_FOR);
        let cold = || u32::try_from(part(u64::from(limit), nodes)).unwrap_or(limit).max(1);
        let (held, trust) = if unknown { (0, cold()) } else { (self.held, self.trust) };
        held.saturating_add(trust).min(limit).saturating_sub(busy)
    }

    /// A call asked for one.
    pub(super) fn ask(&mut self, now: Moment) {
        self.asked = self.asked.saturating_add(1);
        self.touched = now;
    }

    /// Places taken beyond those held, or held beyond those taken, or on trust.
    pub(super) fn bound(&self, busy: u32) -> u64 {
        u64::from(self.trust.max(busy.saturating_sub(self.held)))
    }

    pub(super) fn at_rest(&self) -> bool {
        self.held == 0 && !self.under_way
    }

    /// What to exchange now, if anything.
    pub(super) fn order(&mut self, limit: u32, busy: u32, now: Moment) -> Option<Wish> {
        if self.under_way {
            return None;
        }
        let idle = now.since(self.touched) > IDLE;
        let spare = if idle { 0 } else { busy / 4 + 1 };
        let want = busy.saturating_add(spare).min(limit);
        let since = self.drawn.map_or(CONFIRM, |drawn| now.since(drawn));
        let soon = since >= PAUSE || self.asked >= CALLS;
        let short = self.asked > 0 && busy + spare.div_ceil(2) > self.held && self.held < limit;
        let much = self.held > want + if idle { 0 } else { spare + 1 };
        let due = (since >= CONFIRM && (self.held, want) != (0, 0)) || (soon && (short || much));
        if !due {
            return None;
        }
        (self.asked, self.under_way) = (0, true);
        Some(Wish::Places { limit, want, busy })
    }

    /// What came of it; `None`: no answer.
    pub(super) fn granted(&mut self, grant: Option<Grant>, nodes: u32, now: Moment) {
        self.under_way = false;
        let Some(grant) = grant else { return };
        self.held = u32::try_from(grant.units).unwrap_or(u32::MAX);
        // All of what is left, in equal parts: places are few, and half of few is often none.
        self.trust = u32::try_from(grant.left / u64::from(nodes.max(1))).unwrap_or(u32::MAX);
        self.drawn = Some(now);
    }
}
