//! When and where a call runs: it takes a free slot, or waits for one in a bounded queue until its deadline.
//!
//! Knows no HTTP and no provider: it asks [`kernel::fleet::Choose`] for a slot and hands on a
//! [`kernel::Placed`]. Queues outlive configs in [`State`].

mod queue;
mod scheduler;

pub use queue::State;
pub use scheduler::{Scheduler, Settings};
