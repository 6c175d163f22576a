//! The line before the workers: who goes next when a place is free.

use std::collections::VecDeque;

/// Calls that wait for a place. They are told apart by their number in the trace.
pub(crate) trait Line {
    /// A call has come.
    fn push(&mut self, call: usize);
    /// Who is to be placed now.
    fn pop(&mut self) -> Option<usize>;
}

/// First come, first served.
#[derive(Debug, Default)]
pub(crate) struct Fifo(VecDeque<usize>);

impl Line for Fifo {
    fn push(&mut self, call: usize) {
        self.0.push_back(call);
    }

    fn pop(&mut self) -> Option<usize> {
        self.0.pop_front()
    }
}
