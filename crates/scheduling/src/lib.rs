//! When and where a call runs: whose turn it is, what it may take, and where it goes.
//!
//! Knows no HTTP and no provider: it asks [`kernel::fleet::Choose`] for a slot and hands on a
//! [`kernel::Placed`]. Queues, quotas and what is out of them outlive configs in [`State`].

mod clock;
mod line;
mod memory;
mod order;
mod queue;
mod quota;
mod refusal;
mod running;
mod scheduler;
mod settings;
mod sight;
#[cfg(test)]
mod simulation;
mod state;
mod turn;
mod workers;

pub use order::{Order, Running};
pub use scheduler::Scheduler;
pub use settings::{Allowance, CohortSettings, Fairness, QuotaSettings, Reserved, Settings, TokenWeights};
pub use state::State;
pub use workers::Pool;
