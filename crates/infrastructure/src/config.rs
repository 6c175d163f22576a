//! The configuration source: a YAML file becomes a typed value, or a list of every fault in it.
//!
//! The steps, one file each: [`Document::parse`] composes YAML into a tree that remembers where each
//! value was written and puts environment variables in; [`Document::read`] walks that tree beside the
//! JSON Schema of the wanted type, so that all faults are found and not only serde's first, and then
//! deserialises it. [`Watch`] says when the file's content has changed.
//!
//! Nothing here knows what Sluice's sections are: the type is the caller's, and what only the caller can
//! judge (two models of one name, a plan that does not exist) comes back through [`Document::fault`].

mod check;
mod compose;
mod document;
mod fault;
mod node;
mod scalar;
mod source;
mod substitution;
mod suggestion;
#[cfg(test)]
mod tests;
mod trail;
mod types;
mod watch;

pub use document::Document;
pub use fault::{Fault, Faults, Position};
pub use watch::{Sighting, Watch};

/// Finds the value of an environment variable; `None` where it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;
