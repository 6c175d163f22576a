//! Tenants, their keys and their plans, prices, and what calls cost. HTTP has no place here.

pub mod balance;
pub mod bookkeeper;
pub mod catalogue;
mod csv;
pub mod directory;
pub mod identity;
pub mod invoice;
mod keep;
pub mod key;
pub mod limit;
pub mod meter;
pub mod pepper;
pub mod plan;
pub mod purse;
pub mod rating;
mod refused;
pub mod register;
pub mod report;
pub mod rerate;
pub mod shape;
#[cfg(test)]
mod simulation;
pub mod tokens;
pub mod when;

pub use bookkeeper::Bookkeeper;
pub use catalogue::Catalogue;
pub use directory::{KeySettings, TenantSettings};
pub use identity::{CertificateName, Identities, JwtSettings};
pub use keep::keep;
pub use key::NewKey;
pub use limit::Limiter;
pub use meter::{Meter, Till};
pub use pepper::Pepper;
pub use plan::PlanSettings;
pub use purse::Purse;
pub use refused::Refused;
pub use register::{Declared, Directory, MadeKey, Register, Rejected};
