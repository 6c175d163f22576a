//! Scalar types that configurations are made of, each with its schema and its own clear refusal.

mod address;
mod secret;
mod size;

use serde_json::Value;

pub use address::Address;
pub use secret::Secret;
pub use size::Size;

/// A `format` of the JSON Schema whose text can be judged before serde sees it, so that all faulty ones
/// of a file are reported at once.
pub(super) struct Format {
    pub name: &'static str,
    /// What is expected, in words.
    pub words: &'static str,
    pub check: fn(&str) -> Result<(), String>,
}

const FORMATS: &[Format] = &[address::FORMAT, size::FORMAT];

/// The row for a schema's `format`, if it is one of ours.
pub(super) fn format(schema: &Value) -> Option<&'static Format> {
    let name = schema.get("format")?.as_str()?;
    FORMATS.iter().find(|format| format.name == name)
}
