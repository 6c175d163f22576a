//! What a call says to the model, reduced to what the simulator needs: a digest and a size.
//!
//! The rule for text is ceil(bytes / 4) tokens, about what English needs with real tokenizers; tokens that
//! arrive as numbers are counted.

use serde_json::Value;

use crate::random::Digest;
use crate::refusal::Refusal;
use crate::request::Fields;

/// Bytes of text that count as one token.
const BYTES_PER_TOKEN: u64 = 4;
/// The most prompts or embedding inputs of one call.
// Bound: OpenAI's own limit for embeddings.
const MAX_INPUTS: usize = 2048;

/// One prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prompt {
    /// Equal for equal prompts.
    pub(crate) digest: u64,
    pub(crate) tokens: u64,
}

impl Prompt {
    /// The messages of a chat, as one prompt. Only text counts: images and tool calls are free.
    pub(crate) fn of_messages(fields: &Fields) -> Result<Self, Refusal> {
        fields.required("messages")?;
        let messages = fields.list("messages")?.filter(|messages| !messages.is_empty());
        let messages = messages.ok_or_else(|| Refusal::invalid("messages", "the field messages must not be empty"))?;
        let mut digest = Digest::new();
        let mut bytes = 0;
        for (index, message) in messages.iter().enumerate() {
            let role = message.get("role").and_then(Value::as_str);
            let role = role.ok_or_else(|| bad(index, "role", "must be a string"))?;
            digest.feed(role.as_bytes());
            for text in texts(index, message)? {
                digest.feed(text.as_bytes());
                bytes += text.len() as u64;
            }
        }
        Ok(Self { digest: digest.value(), tokens: bytes.div_ceil(BYTES_PER_TOKEN) })
    }

    /// A field that is a string, an array of strings, an array of tokens, or an array of arrays of tokens.
    pub(crate) fn of_inputs(fields: &Fields, name: &str) -> Result<Vec<Self>, Refusal> {
        let bad = |what: &str| Refusal::invalid(name, format!("the field {name} {what}"));
        let expected = || bad("must be a string, an array of strings, an array of tokens, or an array of those");
        match fields.required(name)? {
            Value::String(text) => Ok(vec![Self::of_text(text)]),
            Value::Array(inputs) if inputs.is_empty() => Err(bad("must not be empty")),
            Value::Array(inputs) if inputs.iter().all(Value::is_u64) => {
                Ok(vec![Self::of_tokens(inputs).ok_or_else(expected)?])
            }
            Value::Array(inputs) if inputs.len() > MAX_INPUTS => {
                Err(bad(&format!("has more than {MAX_INPUTS} entries")))
            }
            Value::Array(inputs) => {
                let read = |input: &Value| match input {
                    Value::String(text) => Some(Self::of_text(text)),
                    Value::Array(tokens) => Self::of_tokens(tokens),
                    _ => None,
                };
                inputs.iter().map(|input| read(input).ok_or_else(expected)).collect()
            }
            _ => Err(expected()),
        }
    }

    fn of_text(text: &str) -> Self {
        let mut digest = Digest::new();
        digest.feed(text.as_bytes());
        Self { digest: digest.value(), tokens: (text.len() as u64).div_ceil(BYTES_PER_TOKEN) }
    }

    /// None unless these are tokens, at least one.
    fn of_tokens(tokens: &[Value]) -> Option<Self> {
        let mut digest = Digest::new();
        for token in tokens {
            digest.feed(&token.as_u64()?.to_le_bytes());
        }
        (!tokens.is_empty()).then(|| Self { digest: digest.value(), tokens: tokens.len() as u64 })
    }
}

/// The texts of one message: its content, or the text parts of its content.
fn texts(index: usize, message: &Value) -> Result<Vec<&str>, Refusal> {
    match message.get("content") {
        // An assistant's message may hold tool calls alone.
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(parts)) => {
            if !parts.iter().all(Value::is_object) {
                return Err(bad(index, "content", "must hold objects"));
            }
            Ok(parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect())
        }
        Some(_) => Err(bad(index, "content", "must be a string or an array")),
    }
}

fn bad(index: usize, field: &str, what: &str) -> Refusal {
    let path = format!("messages[{index}].{field}");
    let message = format!("{path} {what}");
    Refusal::invalid(path, message)
}
