//! Tenants, their keys and their plans, prices, and what calls cost. HTTP has no place here.

pub mod bookkeeper;
pub mod catalogue;
pub mod directory;
mod keep;
pub mod key;
pub mod meter;
pub mod pepper;
pub mod plan;
pub mod purse;
pub mod rating;
#[cfg(test)]
mod simulation;
pub mod tokens;

pub use bookkeeper::Bookkeeper;
pub use catalogue::Catalogue;
pub use directory::{Directory, TenantSettings};
pub use keep::keep;
pub use key::NewKey;
pub use meter::{Meter, Till};
pub use pepper::Pepper;
pub use plan::PlanSettings;
pub use purse::Purse;
