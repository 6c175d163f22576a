//! What the tests break things with.
//!
//! A real model server shows that Sluice works; it cannot be made to show a head that never comes, a
//! reset in the middle of an event or a length that lies. [`Upstream`] can, [`Wire`] sends what no
//! client library would send, and [`Sluice`] is the real binary between the two.
//!
//! Deliberately no HTTP library here: what is tested must not be tested with its own parser. A fault
//! of the kit or of a test's use of it is a panic, never an error value to be passed on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test kit fails by panicking: that is how a test fails"
)]

mod binary;
mod canned;
mod client;
pub mod contract;
mod detour;
mod metrics;
mod ports;
mod postgres;
mod redis;
mod small_disk;
mod upstream;
mod wait;

pub use binary::{Exit, Key, Launch, Sluice, Until};
pub use canned::{completion, delta, openai_error, usage};
pub use client::{Answer, Ended, Event, Head, Wire, get, post, request, request_bytes, sse_events};
pub use detour::Detour;
pub use metrics::Metrics;
pub use ports::free_port;
pub use postgres::Postgres;
pub use redis::Redis;
pub use small_disk::{Hung, SmallDisk};
pub use upstream::{Connection, Gone, Outcome, Plan, Request, Script, Step, Upstream};
pub use wait::eventually;
