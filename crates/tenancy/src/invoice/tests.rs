//! t
pub(crate) mod shelf;
