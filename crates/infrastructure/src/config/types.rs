//! Formats of the schema whose text can be judged before serde sees it, so that all faulty ones of a file are
//! reported at once. A further one is a row.

use std::net::SocketAddr;

use kernel::settings::{Size, size};
use serde_json::Value;

/// A `format` of the JSON Schema.
pub(super) struct Format {
    pub name: &'static str,
    /// What is expected, in words.
    pub words: &'static str,
    pub check: fn(&str) -> Result<(), String>,
}

const ADDRESS: &str = "an address and a port such as 127.0.0.1:8080 or [::1]:8080";

const FORMATS: &[Format] = &[
    Format { name: "size", words: size::WORDS, check: |text| text.parse::<Size>().map(|_| ()) },
    Format {
        name: "socket-address",
        words: ADDRESS,
        check: |text| text.parse::<SocketAddr>().map(|_| ()).map_err(|_| format!("expected {ADDRESS}")),
    },
];

/// The row for a schema's `format`, if it is one of ours.
pub(super) fn format(schema: &Value) -> Option<&'static Format> {
    let name = schema.get("format")?.as_str()?;
    FORMATS.iter().find(|format| format.name == name)
}
