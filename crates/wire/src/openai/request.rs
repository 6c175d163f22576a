//! Reading a request body: just the fields that decide where it goes, and where they stand.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kernel::call::Edit;
use kernel::random;
use kernel::{Call, Error, ModelName, Operation, Payload, Result, Tokens};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::choices;
use crate::json::scan::GivenUp;
use crate::json::{self, scan};

/// Bound: no provider's model name comes near it, and names are kept in logs and metrics.
pub const MODEL_NAME_MAX: usize = 256;

/// Set right behind the opening brace when a stream does not ask for its usage.
const ASK_USAGE: &str = r#""stream_options":{"include_usage":true},"#;
const ASK_USAGE_ALONE: &str = r#"{"include_usage":true}"#;
const ASK_USAGE_FIRST: &str = r#""include_usage":true,"#;

/// What the door knows of a request beside its body.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Which endpoint it came to.
    pub operation: Operation,
    /// `x-session-id`, hashed.
    pub session: Option<u64>,
    /// Headers on the allow-list.
    pub forward: Arc<[(&'static str, Bytes)]>,
}

/// The fields that decide something, as they stand in the body.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a str>,
    messages: Option<&'a str>,
    prompt: Option<&'a str>,
    input: Option<&'a str>,
    tools: Option<&'a str>,
    max_tokens: Option<&'a str>,
    max_completion_tokens: Option<&'a str>,
    n: Option<&'a str>,
    best_of: Option<&'a str>,
    stream: Option<&'a str>,
    stream_options: Option<&'a str>,
    prompt_cache_key: Option<&'a str>,
    user: Option<&'a str>,
}

/// The same, for a parser: whatever the scan gave up on is read by it, with its words for what is wrong.
#[derive(Deserialize)]
struct Parsed<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    model: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    prompt: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    n: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    best_of: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    prompt_cache_key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    include_usage: Option<&'a RawValue>,
}

/// Reads a field that may be edited: a `null` has a place too, unlike with a plain `Option`.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl<'a> Fields<'a> {
    fn scanned(text: &'a str) -> Result<Self, GivenUp> {
        let (mut members, mut fields) = (scan::object(text)?, Self::default());
        while let Some((name, raw)) = members.next()? {
            let field = match name {
                "model" => &mut fields.model,
                "messages" => &mut fields.messages,
                "prompt" => &mut fields.prompt,
                "input" => &mut fields.input,
                "tools" => &mut fields.tools,
                "max_tokens" => &mut fields.max_tokens,
                "max_completion_tokens" => &mut fields.max_completion_tokens,
                "n" => &mut fields.n,
                "best_of" => &mut fields.best_of,
                "stream" => &mut fields.stream,
                "stream_options" => &mut fields.stream_options,
                "prompt_cache_key" => &mut fields.prompt_cache_key,
                "user" => &mut fields.user,
                _ => continue,
            };
            if field.replace(raw).is_some() {
                return Err(GivenUp);
            }
        }
        Ok(fields)
    }

    fn parsed(text: &'a str) -> serde_json::Result<Self> {
        let parsed: Parsed<'a> = serde_json::from_str(text)?;
        let raw = |value: Option<&'a RawValue>| value.map(RawValue::get);
        Ok(Self {
            model: raw(parsed.model),
            messages: raw(parsed.messages),
            prompt: raw(parsed.prompt),
            input: raw(parsed.input),
            tools: raw(parsed.tools),
            max_tokens: raw(parsed.max_tokens),
            max_completion_tokens: raw(parsed.max_completion_tokens),
            n: raw(parsed.n),
            best_of: raw(parsed.best_of),
            stream: raw(parsed.stream),
            stream_options: raw(parsed.stream_options),
            prompt_cache_key: raw(parsed.prompt_cache_key),
            user: raw(parsed.user),
        })
    }
}

/// Reads a body into a [`Call`].
///
/// # Errors
/// `Invalid` for anything a backend could not make sense of either: not UTF-8, not JSON, not an object, a
/// field Sluice must understand missing, repeated or of the wrong type. What else is in the body is the
/// backend's to judge.
pub fn read(body: Bytes, envelope: Envelope) -> Result<Call> {
    let text = std::str::from_utf8(&body).map_err(|fault| not_utf8(&fault))?;
    let fields = fields(text)?;
    required(envelope.operation, &fields)?;
    let (model, model_at) = model(text, fields.model)?;
    let stream = envelope.operation != Operation::Embedding && flag("stream", fields.stream)?;
    let (wants_usage, force_usage) = if stream { usage(text, fields.stream_options)? } else { (true, None) };
    let affinity = envelope.session.or_else(|| {
        let raw = fields.prompt_cache_key.filter(|text| *text != "null").or(fields.user);
        raw.filter(|text| text.starts_with('"')).map(|text| random::hash(text.as_bytes()))
    });
    let place = |raw: Option<&str>| raw.map_or(0..0, |raw| json::place(text, raw));
    let prompt = match envelope.operation {
        Operation::Chat => fields.messages,
        Operation::Completion => fields.prompt,
        Operation::Embedding | Operation::Service => fields.input,
    };
    let (prompt, tools) = (place(prompt), place(fields.tools));
    Ok(Call {
        model,
        operation: envelope.operation,
        stream,
        wants_usage,
        output_max: output_max(&fields),
        choices: choices::of(envelope.operation, [fields.n, fields.best_of], fields.prompt),
        payload: Arc::new(Payload {
            model: model_at,
            prompt,
            tools,
            force_usage,
            blocks: OnceLock::new(),
            bytes: body,
        }),
        affinity,
        forward: envelope.forward,
        plain: None,
    })
}

/// A model name as it stands in JSON, for [`write`].
pub fn quoted(model: &str) -> Bytes {
    serde_json::Value::from(model).to_string().into()
}

/// The body as a backend shall see it: with the model name it knows ([`quoted`]) and, if asked, a usage report
/// forced into its stream. Every other byte stays.
pub fn write(payload: &Payload, upstream_model: Option<&Bytes>, force_usage: bool) -> Vec<Bytes> {
    if upstream_model.is_none() && !(force_usage && payload.force_usage.is_some()) {
        return vec![payload.bytes.clone()];
    }
    let mut edits = Vec::with_capacity(2);
    if let Some(name) = upstream_model {
        edits.push((payload.model.clone(), name.clone()));
    }
    if let (true, Some((range, text))) = (force_usage, &payload.force_usage) {
        edits.push((range.clone(), Bytes::from_static(text.as_bytes())));
    }
    json::splice(&payload.bytes, edits)
}

fn not_utf8(fault: &std::str::Utf8Error) -> Error {
    Error::invalid(None, format!("The request body is not valid UTF-8: byte {} is out of place.", fault.valid_up_to()))
}

fn fields(text: &str) -> Result<Fields<'_>> {
    if let Ok(fields) = Fields::scanned(text) {
        return Ok(fields);
    }
    // A derived reader would take an array for a struct, field by field.
    let first = text.bytes().find(|byte| !byte.is_ascii_whitespace());
    if let Some(b'[' | b'"' | b'0'..=b'9' | b'-' | b't' | b'f' | b'n') = first
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    {
        return Err(Error::invalid(None, "The request body must be a JSON object, like {\"model\": …}."));
    }
    if first != Some(b'{') {
        let fault = serde_json::from_str::<serde::de::IgnoredAny>(text).err();
        let fault = fault.map_or_else(String::new, |fault| format!(": {fault}"));
        return Err(Error::invalid(None, format!("The request body is not valid JSON{fault}.")));
    }
    Fields::parsed(text).map_err(|fault| {
        let said = fault.to_string();
        let what = if said.starts_with("duplicate field") { "ambiguous" } else { "not valid JSON" };
        Error::invalid(None, format!("The request body is {what}: {said}."))
    })
}

fn required(operation: Operation, fields: &Fields<'_>) -> Result<()> {
    let raw = |value: Option<&str>| value.filter(|text| *text != "null").and_then(|text| text.bytes().next());
    match operation {
        Operation::Chat => match raw(fields.messages) {
            None => Err(Error::invalid(Some("messages"), "`messages` is missing: send an array of messages.")),
            Some(b'[') => Ok(()),
            Some(_) => Err(Error::invalid(Some("messages"), "`messages` must be an array of messages.")),
        },
        Operation::Embedding => match raw(fields.input) {
            None => Err(Error::invalid(Some("input"), "`input` is missing: send a text or an array of texts.")),
            Some(b'"' | b'[') => Ok(()),
            Some(_) => Err(Error::invalid(Some("input"), "`input` must be a text or an array.")),
        },
        Operation::Completion | Operation::Service => Ok(()),
    }
}

fn model(text: &str, raw: Option<&str>) -> Result<(ModelName, std::ops::Range<usize>)> {
    let invalid = |message: &'static str| Error::invalid(Some("model"), message);
    let raw = raw
        .filter(|raw| *raw != "null")
        .ok_or_else(|| invalid("`model` is missing: name the model to use; GET /v1/models lists them."))?;
    let plain = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).filter(|name| !name.contains('\\'));
    let name = match plain {
        Some(name) => Cow::Borrowed(name),
        None => serde_json::from_str::<String>(raw).map_err(|_| invalid("`model` must be a text."))?.into(),
    };
    match name.len() {
        0 => Err(invalid("`model` is empty: name the model to use; GET /v1/models lists them.")),
        1..=MODEL_NAME_MAX => Ok((ModelName::new(&*name), json::place(text, raw))),
        _ => Err(invalid("`model` is longer than 256 bytes.")),
    }
}

/// The most tokens the answer may have. What is no number is the backend's to judge.
fn output_max(fields: &Fields<'_>) -> Option<Tokens> {
    let number = |raw: Option<&str>| raw?.parse().ok().map(Tokens);
    number(fields.max_completion_tokens).or_else(|| number(fields.max_tokens))
}

fn flag(field: &'static str, raw: Option<&str>) -> Result<bool> {
    match raw {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Error::invalid(Some(field), format!("`{field}` must be true or false."))),
    }
}

/// Whether the client asked for usage in its stream, and if not, the edit that does.
fn usage(text: &str, raw: Option<&str>) -> Result<(bool, Option<Edit>)> {
    let Some(raw) = raw else {
        let brace = text.find('{').map_or(0, |at| at + 1);
        return Ok((false, Some((brace..brace, ASK_USAGE))));
    };
    let at = json::place(text, raw);
    if raw == "null" {
        return Ok((false, Some((at, ASK_USAGE_ALONE))));
    }
    let wrong = || {
        Error::invalid(Some("stream_options"), "`stream_options` must be an object, like {\"include_usage\": true}.")
    };
    if !raw.starts_with('{') {
        return Err(wrong());
    }
    let options: StreamOptions<'_> = serde_json::from_str(raw).map_err(|_| wrong())?;
    match options.include_usage.map(|value| (json::place(text, value.get()), value.get())) {
        Some((_, value)) if flag("stream_options.include_usage", Some(value))? => Ok((true, None)),
        Some((place, _)) => Ok((false, Some((place, "true")))),
        None if raw.trim_matches(['{', '}']).trim().is_empty() => Ok((false, Some((at, ASK_USAGE_ALONE)))),
        None => Ok((false, Some((at.start + 1..at.start + 1, ASK_USAGE_FIRST)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(operation: Operation) -> Envelope {
        Envelope { operation, session: None, forward: Arc::new([]) }
    }

    fn chat(body: &str) -> Result<Call> {
        read(Bytes::copy_from_slice(body.as_bytes()), envelope(Operation::Chat))
    }

    fn rewritten(body: &str, expected: &str) {
        let call = chat(body).unwrap();
        let written = write(&call.payload, Some(&quoted("up/stream \"m\"")), true).concat();
        assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
        serde_json::from_slice::<serde_json::Value>(&written).unwrap();
    }

    #[test]
    fn only_the_model_name_and_the_usage_request_are_edited() {
        rewritten(
            r#"{ "x": [1, 2.50, "\u00e9"], "model" : "a" , "messages":[] }"#,
            r#"{ "x": [1, 2.50, "\u00e9"], "model" : "up/stream \"m\"" , "messages":[] }"#,
        );
        rewritten(
            r#"{"model":"a","messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up/stream \"m\"","messages":[],"stream":true}"#,
        );
        rewritten(
            r#"{"model":"a","messages":[],"stream":true,"stream_options":null}"#,
            r#"{"model":"up/stream \"m\"","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        );
        rewritten(
            r#"{"stream_options":{ },"model":"a","messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up/stream \"m\"","messages":[],"stream":true}"#,
        );
        rewritten(
            r#"{"stream_options":{"z":1},"model":"a","messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"z":1},"model":"up/stream \"m\"","messages":[],"stream":true}"#,
        );
        rewritten(
            r#"{"stream_options":{"include_usage": false},"model":"a","messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage": true},"model":"up/stream \"m\"","messages":[],"stream":true}"#,
        );
        rewritten(
            r#"{"stream_options":{"include_usage":true},"model":"a","messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up/stream \"m\"","messages":[],"stream":true}"#,
        );
    }

    #[test]
    fn an_unedited_body_is_the_same_buffer() {
        let body = Bytes::from_static(br#"{"model":"a","messages":[]}"#);
        let call = read(body.clone(), envelope(Operation::Chat)).unwrap();
        assert_eq!(write(&call.payload, None, true)[0].as_ptr(), body.as_ptr());
    }

    #[test]
    fn escapes_in_the_model_name_are_read() {
        assert_eq!(chat(r#"{"mod\u0065l":"\u0061/b","messages":[]}"#).unwrap().model.as_str(), "a/b");
    }

    #[test]
    fn the_size_of_a_call_is_read() {
        let body = r#"{"model":"a","tools":[1],"messages":[ 2 ],"max_tokens":9,"max_completion_tokens":7}"#;
        let call = chat(body).unwrap();
        let at = |range: &std::ops::Range<usize>| &body[range.clone()];
        assert_eq!((at(&call.payload.prompt), at(&call.payload.tools)), ("[ 2 ]", "[1]"));
        assert_eq!(call.output_max, Some(Tokens(7)));
        assert_eq!(chat(r#"{"model":"a","messages":[],"max_tokens":"x"}"#).unwrap().output_max, None);
    }

    #[test]
    fn deep_nesting_passes() {
        let deep = format!(r#"{{"model":"a","messages":[{}{}]}}"#, "[".repeat(200), "]".repeat(200));
        assert!(chat(&deep).is_ok());
    }

    #[test]
    fn a_session_outranks_the_user_for_affinity() {
        let body = Bytes::from_static(br#"{"model":"a","messages":[],"user":"u"}"#);
        let by_user = read(body.clone(), envelope(Operation::Chat)).unwrap().affinity;
        let by_session = read(body, Envelope { session: Some(7), ..envelope(Operation::Chat) }).unwrap().affinity;
        assert!(by_user.is_some() && by_session == Some(7));
    }

    fn refused(body: &str, field: Option<&str>, message: &str) {
        let error = chat(body).expect_err(body);
        assert_eq!((error.field.as_deref(), &*error.message), (field, message), "{body}");
    }

    #[test]
    fn bad_bodies_are_refused_with_the_field_and_the_fix() {
        refused("hello", None, "The request body is not valid JSON: expected value at line 1 column 1.");
        refused("", None, "The request body is not valid JSON: EOF while parsing a value at line 1 column 0.");
        refused("[1]", None, "The request body must be a JSON object, like {\"model\": …}.");
        refused(
            "{\"model\":\"a\",",
            None,
            "The request body is not valid JSON: EOF while parsing a value at line 1 column 13.",
        );
        refused(
            r#"{"messages":[]}"#,
            Some("model"),
            "`model` is missing: name the model to use; GET /v1/models lists them.",
        );
        refused(
            r#"{"model":"","messages":[]}"#,
            Some("model"),
            "`model` is empty: name the model to use; GET /v1/models lists them.",
        );
        refused(r#"{"model":5,"messages":[]}"#, Some("model"), "`model` must be a text.");
        refused(r#"{"model":"a"}"#, Some("messages"), "`messages` is missing: send an array of messages.");
        refused(r#"{"model":"a","messages":"x"}"#, Some("messages"), "`messages` must be an array of messages.");
        refused(r#"{"model":"a","messages":[],"stream":"yes"}"#, Some("stream"), "`stream` must be true or false.");
        refused(
            r#"{"model":"a","messages":[],"stream":true,"stream_options":1}"#,
            Some("stream_options"),
            "`stream_options` must be an object, like {\"include_usage\": true}.",
        );
        refused(
            r#"{"model":"a","model":"b","messages":[]}"#,
            None,
            "The request body is ambiguous: duplicate field `model` at line 1 column 20.",
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_their_place() {
        let error = read(Bytes::from_static(b"{\"model\":\"a\xff\"}"), envelope(Operation::Chat)).unwrap_err();
        assert_eq!(error.message, "The request body is not valid UTF-8: byte 11 is out of place.");
    }
}
