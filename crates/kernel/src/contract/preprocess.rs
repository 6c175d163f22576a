//! What is made of requests before they are passed on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Findings;

/// What is made of requests before they are passed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Fields that are set where a request does not have them, with their values.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub defaults: serde_json::Map<String, serde_json::Value>,
    /// The most tokens an answer may have: a request that asks for more, or does not say, asks for this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Put before the messages of every chat, as one of the role `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// The fields a request may have, beside those every one needs (`model`, `messages`, `prompt`, `input`, `stream`,
    /// `stream_options`). Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What becomes of other fields.
    #[serde(skip_serializing_if = "OtherFields::is_default")]
    pub other_fields: OtherFields,
}

/// What becomes of fields a request may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherFields {
    /// The request is refused with 400, naming the field.
    #[default]
    Refuse,
    /// They are taken out.
    Drop,
}

/// Fields every request may have: they say where it goes and what it is about.
pub const ROUTING: [&str; 6] = ["model", "messages", "prompt", "input", "stream", "stream_options"];

impl Preprocess {
    /// Whether it does anything.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let fits = self.max_tokens != Some(0);
        findings.require(fits, format!("{path}.max_tokens"), "must be at least 1");
        for name in self.defaults.keys().filter(|name| ROUTING.contains(&name.as_str())) {
            let message = "cannot have a default: it says where a request goes, or what it is about";
            findings.add(format!("{path}.defaults.{name}"), message);
        }
    }
}

impl OtherFields {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
