//! Where a caller stands, in numbers it can go by.
//!
//! A call passes as long as one request and one token are left. So a caller that sends no more requests than `remaining`
//! says, and none while a remaining is zero, is not refused; and after `reset` it can send as many as `limit` says. With
//! several limits the tightest counts, and `reset` waits for all of them.

use std::time::Duration;

use kernel::Moment;

use super::account::{Levels, Way};
use super::level::{Dimension, Footing};

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

impl View {
    pub(super) fn of(levels: &Levels, way: &Way, footing: Footing, now: Moment) -> Self {
        let gauge = |counts: fn(Dimension) -> bool| {
            let on = || levels.on(way).into_iter().flatten().map(|(level, _)| level);
            let stands =
                || on().flat_map(|level| level.stands(footing, now)).filter(|(dimension, ..)| counts(*dimension));
            let limit = stands().map(|(_, limit, _)| limit).min()?;
            let remaining = stands().map(|(.., stand)| stand.left).min()?.min(limit);
            let all = || Dimension::ALL.into_iter().filter(|dimension| counts(*dimension));
            let waits = on().flat_map(|level| all().map(|dimension| level.until(dimension, limit, footing, now)));
            Some(Gauge { limit, remaining, reset: waits.max().unwrap_or_default() })
        };
        Self {
            requests: gauge(|dimension| matches!(dimension, Dimension::Seconds | Dimension::Minutes)),
            tokens: gauge(|dimension| dimension == Dimension::Tokens),
            concurrency: gauge(|dimension| dimension == Dimension::Places),
        }
    }
}
