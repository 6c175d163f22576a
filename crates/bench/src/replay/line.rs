//! The line before the workers: who goes next when a place is free.

use std::collections::{HashMap, VecDeque};

use kernel::{Moment, Priority, TenantId, Tokens, Usage};
use scheduling::{Order, Running, Settings};

use super::trace::{Call, Trace};

/// Calls that wait for a place. They are told apart by their number in the trace.
pub(crate) trait Line {
    /// A call has come.
    fn push(&mut self, call: usize, now: u64);
    /// Who is to be placed now.
    fn pop(&mut self, now: u64) -> Option<usize>;
    /// A call that was placed has ended.
    fn ended(&mut self, _call: usize) {}
}

/// First come, first served.
#[derive(Debug, Default)]
pub(crate) struct Fifo(VecDeque<usize>);

/// The scheduler's: fair shares of tokens among tenants.
pub(crate) struct Fair<'a> {
    trace: &'a Trace,
    order: Order,
    tenants: Vec<TenantId>,
    running: HashMap<usize, Running>,
}

/// Watches a line for how far tenants drift apart who wait all the time.
pub(crate) struct Watched<'a> {
    line: &'a mut dyn Line,
    trace: &'a Trace,
    waiting: Vec<u32>,
    /// For each pair of tenants who both wait: service of the one less that of the other, and its least and greatest.
    pairs: Vec<[i64; 3]>,
    /// The greatest range of any pair.
    pub(crate) gap: i64,
}

impl Line for Fifo {
    fn push(&mut self, call: usize, _: u64) {
        self.0.push_back(call);
    }

    fn pop(&mut self, _: u64) -> Option<usize> {
        self.0.pop_front()
    }
}

/// Tokens, a prompt's once and an answer's twice: what the scheduler shares out by default, caches aside.
pub(crate) fn service(call: &Call) -> i64 {
    (call.input + 2 * call.output) as i64
}

fn tenants(trace: &Trace) -> usize {
    trace.calls.iter().map(|call| call.tenant as usize + 1).max().unwrap_or(0)
}

impl<'a> Fair<'a> {
    pub(crate) fn new(trace: &'a Trace) -> Self {
        let tenants = (0..tenants(trace)).map(|tenant| TenantId::new(format!("t{tenant}"))).collect();
        Self { trace, order: Order::new(&Settings::default()), tenants, running: HashMap::new() }
    }
}

impl Line for Fair<'_> {
    fn push(&mut self, number: usize, now: u64) {
        let Some(call) = self.trace.calls.get(number) else { return };
        if let Some(tenant) = self.tenants.get(call.tenant as usize) {
            self.order.push(number, tenant, Priority::Normal, Tokens(call.input), Moment::from_micros(now));
        }
    }

    fn pop(&mut self, now: u64) -> Option<usize> {
        let running = self.order.pop(Moment::from_micros(now))?;
        let number = running.number;
        self.running.insert(number, running);
        Some(number)
    }

    fn ended(&mut self, number: usize) {
        if let (Some(running), Some(call)) = (self.running.remove(&number), self.trace.calls.get(number)) {
            let usage = Usage { input: Tokens(call.input), output: Tokens(call.output), ..Usage::default() };
            self.order.settle(running, &usage);
        }
    }
}

impl<'a> Watched<'a> {
    pub(crate) fn new(line: &'a mut dyn Line, trace: &'a Trace) -> Self {
        let count = tenants(trace);
        Self { line, trace, waiting: vec![0; count], pairs: vec![[0; 3]; count * count], gap: 0 }
    }

    fn tenant(&self, number: usize) -> usize {
        self.trace.calls.get(number).map_or(0, |call| call.tenant as usize)
    }

    fn waits(&self, tenant: usize) -> bool {
        self.waiting.get(tenant).is_some_and(|count| *count > 0)
    }

    /// Begins to count anew for a tenant and everybody else.
    fn forget(&mut self, tenant: usize) {
        let count = self.waiting.len();
        for (at, pair) in self.pairs.iter_mut().enumerate() {
            if at / count == tenant || at % count == tenant {
                *pair = [0; 3];
            }
        }
    }
}

impl Line for Watched<'_> {
    fn push(&mut self, call: usize, now: u64) {
        let tenant = self.tenant(call);
        if !self.waits(tenant) {
            self.forget(tenant);
        }
        self.waiting.iter_mut().skip(tenant).take(1).for_each(|count| *count += 1);
        self.line.push(call, now);
    }

    fn pop(&mut self, now: u64) -> Option<usize> {
        let number = self.line.pop(now)?;
        let (tenant, count) = (self.tenant(number), self.waiting.len());
        self.waiting.iter_mut().skip(tenant).take(1).for_each(|count| *count -= 1);
        if !self.waits(tenant) {
            self.forget(tenant);
            return Some(number);
        }
        let service = self.trace.calls.get(number).map_or(0, service);
        for other in (0..count).filter(|other| *other != tenant) {
            if !self.waits(other) {
                continue;
            }
            let (one, two, signed) = if tenant < other { (tenant, other, service) } else { (other, tenant, -service) };
            if let Some([now, least, most]) = self.pairs.get_mut(one * count + two) {
                *now += signed;
                (*least, *most) = ((*least).min(*now), (*most).max(*now));
                self.gap = self.gap.max(*most - *least);
            }
        }
        Some(number)
    }

    fn ended(&mut self, call: usize) {
        self.line.ended(call);
    }
}
