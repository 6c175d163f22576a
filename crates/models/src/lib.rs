//! Who answers: models, their versions and instances; which of them is alive; which connection and which
//! words a call travels in.
//!
//! Knows no tenant, no queue and no route. [`Fleet`] is rebuilt with every config and takes over from
//! [`State`] what must survive: slots, health and pooled connections of instances that are still there.

pub mod balance;
pub mod detect;
pub mod endpoint;
pub mod fleet;
pub mod health;
pub mod provider;
pub mod settings;

mod adaptive;
mod connection;
mod instance;
mod load;
mod pool;
mod prompt;
mod timing;
mod tls;

pub use fleet::{Fleet, State};
pub use settings::ModelSettings;

/// Request headers that steer the simulator; nobody else looks at them.
pub fn sim_headers() -> impl Iterator<Item = &'static str> {
    sim::HEADERS.iter().map(|(name, _)| *name)
}
