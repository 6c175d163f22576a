//! Where a caller stands, in numbers it can go by.
//!
//! A call passes as long as one request and one token are left. So a caller that sends no more requests than `remaining`
//! says, and none while a remaining is zero, is not refused; and after `reset` it can send as many as `limit` says. With
//! several limits the tightest counts, and `reset` waits for all of them.

use std::time::Duration;

use kernel::Moment;
use smallvec::SmallVec;

use super::account::{Levels, Way};
use super::level::{Dimension, Footing, Standing};

/// Where a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// Requests, of the tightest limit per second or minute.
    pub requests: Option<Gauge>,
    /// Tokens, of the tightest limit.
    pub tokens: Option<Gauge>,
    /// Calls at once, of the tightest limit. They come back when calls end; when that is nobody knows.
    pub concurrency: Option<Gauge>,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// The most there can be.
    pub limit: u64,
    /// What is left.
    pub remaining: u64,
    /// Until as many are left as there can be.
    pub reset: Duration,
}

/// More than this many limits apply to no call: four for each of three levels.
const MOST: usize = 12;

impl View {
    pub(super) fn of(levels: &Levels, way: &Way, footing: Footing, now: Moment) -> Self {
        let stood = levels.on(way).into_iter().flatten().flat_map(|(level, _)| level.stands(footing, now));
        let stood: SmallVec<[Standing; MOST]> = stood.collect();
        let gauge = |counts: fn(Dimension) -> bool| {
            let of = || stood.iter().filter(|standing| counts(standing.dimension));
            let limit = of().map(|standing| standing.limit).min()?;
            let remaining = of().map(|standing| standing.left).min()?.min(limit);
            let reset = of().map(|standing| standing.until(limit)).max().unwrap_or_default();
            Some(Gauge { limit, remaining, reset })
        };
        Self {
            requests: gauge(|dimension| matches!(dimension, Dimension::Seconds | Dimension::Minutes)),
            tokens: gauge(|dimension| dimension == Dimension::Tokens),
            concurrency: gauge(|dimension| dimension == Dimension::Places),
        }
    }
}
