//! Which data-plane thread is running: the index of its own pools, counters and buffers.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Says, once per data-plane thread, which core it is.
pub fn enter(index: usize) {
    CURRENT.with(|c| c.set(index));
}

/// The index of the running data-plane thread; 0 on any other thread.
pub fn current() -> usize {
    CURRENT.with(Cell::get)
}
