//! Tenants, their keys and their plans. Limits, prices and the ledger have their place here; HTTP has not.

pub mod directory;
mod keep;
pub mod key;
pub mod limit;
pub mod pepper;
pub mod plan;

pub use directory::{Directory, TenantSettings};
pub use keep::keep;
pub use key::NewKey;
pub use limit::Limiter;
pub use pepper::Pepper;
pub use plan::PlanSettings;
