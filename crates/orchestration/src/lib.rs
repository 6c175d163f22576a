//! What to try: which version of a model answers, and who is asked next when an instance fails.
//!
//! Has no queue and no socket. It turns a [`kernel::Call`] into one [`kernel::Attempt`] after another until one is
//! answered, within the model's retry budget.

mod budget;
mod orchestrator;
mod split;

pub use orchestrator::Orchestrator;
