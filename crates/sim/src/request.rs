//! A request's JSON body, read field by field, with OpenAI-shaped refusals that name the field.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// The fields of a body. A field that is null counts as absent, as it does at OpenAI.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

/// Whether and how the caller wants the answer streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Stream { with_usage: bool },
}

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        // serde_json stops at 128 levels of nesting, so depth needs no limit of ours.
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Refusal::malformed("the body must be a JSON object")),
            Err(error) => Err(Refusal::malformed(format!("the body is not valid JSON: {error}"))),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&Value, Refusal> {
        self.get(name).ok_or_else(|| Refusal::invalid(name, format!("the field {name} is required")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.typed(name, "a boolean", Value::as_bool)?.unwrap_or(false))
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, Refusal> {
        self.typed(name, "an array", Value::as_array)
    }

    /// A whole number from 1 to `most`.
    pub(crate) fn count(&self, name: &str, most: u64) -> Result<Option<u64>, Refusal> {
        let expected = if most == u64::MAX { "1 or more".to_owned() } else { format!("from 1 to {most}") };
        let in_range = |value: &Value| value.as_u64().filter(|count| (1..=most).contains(count));
        self.typed(name, &format!("a whole number, {expected}"), in_range)
    }

    pub(crate) fn delivery(&self) -> Result<Delivery, Refusal> {
        let stream = self.flag("stream")?;
        let options = self.typed("stream_options", "an object", Value::as_object)?;
        if !stream {
            return match options {
                None => Ok(Delivery::Whole),
                Some(_) => Err(Refusal::invalid("stream_options", "stream_options needs stream to be true")),
            };
        }
        match options.and_then(|options| options.get("include_usage")) {
            None | Some(Value::Null) => Ok(Delivery::Stream { with_usage: false }),
            Some(Value::Bool(with_usage)) => Ok(Delivery::Stream { with_usage: *with_usage }),
            Some(_) => Err(Refusal::invalid("stream_options.include_usage", "include_usage must be a boolean")),
        }
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match take(value) {
            Some(taken) => Ok(Some(taken)),
            None => Err(Refusal::invalid(name, format!("the field {name} must be {expected}"))),
        }
    }
}
