//! Dialects to and from kernel words. Pure functions over bytes: no sockets, no clock, no async.
//!
//! A body that stays in its dialect is never re-serialised: it is *scanned* for the few fields Sluice needs,
//! and edits are spliced into the original bytes. So unknown fields, key order, white space and escapes
//! survive by construction.

pub mod json;
pub mod openai;
pub mod sse;
pub mod status;
