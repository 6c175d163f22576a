//! Tenants and their keys. Plans, limits, prices and the ledger have their place here; HTTP has not.

pub mod directory;
pub mod key;
pub mod pepper;

pub use directory::{Directory, TenantSettings};
pub use key::NewKey;
pub use pepper::Pepper;
