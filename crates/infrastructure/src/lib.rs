//! What lies outside the process, behind types the rest of Sluice can use.
//!
//! Each module is one driver: the configuration file, the store, the telemetry. Drivers move bytes and report faults with
//! their place; they hold no business rules and know no section of the configuration by name.

pub mod config;
pub mod fetch;
pub mod store;
pub mod telemetry;
