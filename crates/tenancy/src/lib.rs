//! Tenants, their keys and their plans. Limits, prices and the ledger have their place here; HTTP has not.

pub mod balance;
mod csv;
pub mod directory;
pub mod invoice;
mod keep;
pub mod key;
pub mod pepper;
pub mod plan;
pub mod report;
pub mod rerate;

pub use directory::{Directory, TenantSettings};
pub use keep::keep;
pub use key::NewKey;
pub use pepper::Pepper;
pub use plan::PlanSettings;
