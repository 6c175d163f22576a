//! The commands that are not `serve`.

pub(crate) mod balance;
pub(crate) mod check;
pub(crate) mod completions;
mod control;
pub(crate) mod invoice;
pub(crate) mod key;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod price;
pub(crate) mod schema;
mod settings;
pub(crate) mod sign;
pub(crate) mod sim;
mod table;
pub(crate) mod tenant;
pub(crate) mod usage;
