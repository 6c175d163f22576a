//! Tenants, their keys and their plans. Limits, prices and the ledger have their place here; HTTP has not.

pub mod balance;
mod csv;
pub mod directory;
pub mod identity;
pub mod invoice;
mod keep;
pub mod key;
pub mod pepper;
pub mod plan;
mod refused;
pub mod register;
pub mod report;
pub mod rerate;
pub mod shape;
pub mod when;

pub use directory::{KeySettings, TenantSettings};
pub use identity::{CertificateName, Identities, JwtSettings};
pub use keep::keep;
pub use key::NewKey;
pub use pepper::Pepper;
pub use plan::PlanSettings;
pub use refused::Refused;
pub use register::{Declared, Directory, MadeKey, Register, Rejected};
