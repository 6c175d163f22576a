//! The words everyone in Sluice speaks.
//!
//! A request travels as ever more specific types: a [`Call`] becomes an [`Attempt`], an attempt becomes
//! [`Placed`], and a [`Reply`] comes back. Each stage implements [`Serve`] for what it takes. Nothing here
//! does I/O, knows HTTP or names a driver; a crate that needs only these words needs only this crate.

pub mod call;
pub mod caller;
pub mod contract;
pub mod core;
pub mod ctx;
pub mod error;
pub mod explain;
pub mod fetch;
pub mod fleet;
pub mod health;
pub mod ids;
pub mod journal;
pub mod kind;
pub mod money;
pub mod node;
pub mod random;
pub mod receipt;
pub mod reply;
pub mod serve;
pub mod settings;
pub mod share;
pub mod sight;
pub mod slots;
pub mod store;
pub mod time;
pub mod usage;
pub mod uuids;
pub mod work;

pub use call::{Attempt, Call, Operation, Payload, Placed, Plain};
pub use caller::{Caller, Priority, Terms};
pub use contract::{Allow, Billing, Budget, CredentialKind, Limits, Network, Origins, Price, Scope};
pub use ctx::Ctx;
pub use error::{Error, Origin, Result, Retry};
pub use ids::{InstanceId, KeyId, ModelName, RequestId, TenantId, Version};
pub use journal::{Journal, Note};
pub use kind::Kind;
pub use money::{Currency, Money};
pub use node::{Amount, Node};
pub use receipt::{Outcome, Receipt, Sink};
pub use reply::{Body, Delta, Deltas, Head, Reply};
pub use serve::{Serve, Serving};
pub use slots::{Permit, Room, Slots};
pub use time::{Moment, Timestamp};
pub use usage::{Tokens, Usage};
pub use uuids::Uuids;
