//! The commands that are not `serve`.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod key;
pub(crate) mod schema;
pub(crate) mod sign;
pub(crate) mod sim;
