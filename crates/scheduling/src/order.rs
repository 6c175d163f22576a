//! The order of a line, alone: for replays of traces, which have their own clock and their own machines.

use std::sync::Arc;

use kernel::{Caller, Moment, Priority, TenantId, Terms, Tokens, Usage};

use crate::line::{Charge, Line, Ticket};
use crate::queue::{Estimator, Rules, cost};
use crate::settings::Settings;

/// Calls in the order in which the scheduler lets them go on, told apart by numbers.
#[derive(Debug)]
pub struct Order {
    line: Line<usize>,
    estimator: Estimator,
    settings: Settings,
    terms: Arc<Terms>,
}

/// A call that was let go on: to be [settled](Order::settle) once.
#[derive(Debug)]
pub struct Running {
    /// Its number.
    pub number: usize,
    tenant: TenantId,
    charge: Charge,
}

/// Bytes of a token where only tokens are known: what the estimator believes at first.
const BYTES_PER_TOKEN: u64 = 4;

impl Order {
    /// An empty line under these settings.
    pub fn new(settings: &Settings) -> Self {
        let line = Rules::new(settings).line();
        Self { line, estimator: Estimator::default(), settings: settings.clone(), terms: Arc::default() }
    }

    /// A call joins.
    pub fn push(&mut self, number: usize, tenant: &TenantId, class: Priority, input: Tokens, now: Moment) {
        let bytes = usize::try_from(input.0 * BYTES_PER_TOKEN).unwrap_or(usize::MAX);
        let estimate = self.estimator.of(tenant, bytes, None, true);
        let cost = estimate.cost(&self.settings.token_weights);
        let owner = Caller { tenant: tenant.clone(), key: None, terms: Arc::clone(&self.terms) };
        let age = self.line.age(now);
        self.line.push(Ticket { class, owner, age, cost, bytes: 0, waiter: number });
    }

    /// Whose turn it is.
    pub fn pop(&mut self, now: Moment) -> Option<Running> {
        let at = self.line.next(now)?;
        let (ticket, charge) = self.line.admit(at, now)?;
        Some(Running { number: ticket.waiter, tenant: ticket.owner.tenant, charge })
    }

    /// A call has ended.
    pub fn settle(&mut self, running: Running, usage: &Usage) {
        let bytes = usize::try_from(usage.input.0 * BYTES_PER_TOKEN).unwrap_or(usize::MAX);
        self.estimator.learn(&running.tenant, bytes, usage);
        self.line.settle(running.charge, Some(cost(usage, &self.settings.token_weights)));
    }

    /// What these tokens count.
    pub fn cost(&self, usage: &Usage) -> u64 {
        cost(usage, &self.settings.token_weights)
    }
}
