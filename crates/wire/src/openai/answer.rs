//! Reading a backend's whole answer: what it consumed, and whether it is an error in disguise.

use std::sync::LazyLock;

use kernel::Usage;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::usage;

/// What an answer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer, with its usage where it gives one.
    Good(Option<Usage>),
    /// A 200 that is an error: the backend's own status code, if it gives one in 400..600, and its message.
    Disguised(Option<u16>, String),
    /// Not JSON, or not an object.
    Nonsense,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

const USAGE_KEY: &[u8] = b"\"usage\"";

/// Bound: how much of a backend's error message is repeated to the client.
const MESSAGE_MAX: usize = 1000;

/// Reads a whole answer.
///
/// The usual one, with a usage report and no error anywhere, is searched and not parsed: a thousandth of its bytes
/// matter. Whatever looks otherwise is parsed.
pub fn read(body: &[u8]) -> Answer {
    let object = body.trim_ascii();
    if !object.starts_with(b"{") || !object.ends_with(b"}") {
        return Answer::Nonsense;
    }
    // In JSON a quote inside a text is escaped, so these can only be keys or whole texts.
    static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
    match ERROR.find(object) {
        None => last_usage(object).map_or_else(|| parse(object), |usage| Answer::Good(Some(usage))),
        Some(_) => parse(object),
    }
}

/// Bound: how far from the end a usage report is looked for first. All servers write it last or nearly so.
const TAIL: usize = 512;

/// The last usage report in an object, if what follows the key is one.
fn last_usage(object: &[u8]) -> Option<Usage> {
    static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(USAGE_KEY));
    let tail = object.len().saturating_sub(TAIL);
    let last = |from: usize| USAGE.find_iter(object.get(from..)?).last().map(|at| from + at);
    let behind = object.get(last(tail).or_else(|| last(0))? + USAGE_KEY.len()..)?;
    let value = behind.trim_ascii_start().strip_prefix(b":")?;
    let value = std::str::from_utf8(value).ok()?;
    usage::leading(value)
}

fn parse(body: &[u8]) -> Answer {
    match serde_json::from_slice::<Fields<'_>>(body) {
        Ok(fields) => match fields.error.map(RawValue::get).filter(|raw| *raw != "null") {
            Some(raw) => disguised(raw),
            None => Answer::Good(fields.usage.and_then(|raw| usage::read(raw.get()))),
        },
        Err(_) => Answer::Nonsense,
    }
}

/// Reads an `error` value: an object with `code` and `message`, or a bare text.
pub(crate) fn disguised(raw: &str) -> Answer {
    let value: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
    let code = value.get("code").and_then(serde_json::Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let message = value.get("message").unwrap_or(&value).as_str().unwrap_or("no reason given");
    let message = message.chars().take(MESSAGE_MAX).collect();
    Answer::Disguised(code.filter(|code| (400..600).contains(code)), message)
}

#[cfg(test)]
mod tests {
    use kernel::Tokens;

    use super::*;

    #[test]
    fn usage_is_read_by_class() {
        let body = br#"{"id":"x","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
            "prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#;
        let expected =
            Usage { input: Tokens(10), cached: Tokens(4), output: Tokens(5), reasoning: Tokens(2), ..Usage::default() };
        assert_eq!(read(body), Answer::Good(Some(expected)));
        assert_eq!(read(br#"{"usage":null}"#), Answer::Good(None));
    }

    #[test]
    fn sound_and_writes_to_a_cache_are_classes_of_their_own() {
        let body = br#"{"usage":{"prompt_tokens":100,"completion_tokens":50,"cache_creation_input_tokens":30,
            "cache_read_input_tokens":20,"prompt_tokens_details":{"audio_tokens":7},
            "completion_tokens_details":{"audio_tokens":9,"reasoning_tokens":0}}}"#;
        let expected = Usage {
            input: Tokens(100),
            cached: Tokens(20),
            cache_write: Tokens(30),
            audio_input: Tokens(7),
            output: Tokens(50),
            audio_output: Tokens(9),
            ..Usage::default()
        };
        assert_eq!(read(body), Answer::Good(Some(expected)));
    }

    #[test]
    fn a_key_called_usage_elsewhere_is_not_taken_for_the_report() {
        let body = br#"{"usage":{"prompt_tokens":7,"completion_tokens":1},"logprobs":{"top":[{"usage":-0.5}]}}"#;
        let Answer::Good(Some(usage)) = read(body) else { panic!() };
        assert_eq!(usage.input, Tokens(7));
    }

    #[test]
    fn the_last_report_counts_wherever_it_stands() {
        let far = format!(
            r#"{{"usage":{{"prompt_tokens":1}},"a":"{}","usage" : {{"prompt_tokens":8,"completion_tokens":2}},"b":"{}"}}"#,
            "x".repeat(600),
            "y".repeat(600)
        );
        let Answer::Good(Some(usage)) = read(far.as_bytes()) else { panic!() };
        assert_eq!((usage.input, usage.output), (Tokens(8), Tokens(2)));
    }

    #[test]
    fn an_error_in_a_200_is_an_error() {
        let read = |body: &str| read(body.as_bytes());
        assert_eq!(read(r#"{"error":{"message":"no","code":400}}"#), Answer::Disguised(Some(400), "no".into()));
        assert_eq!(read(r#"{"error":{"message":"no","code":"x"}}"#), Answer::Disguised(None, "no".into()));
        assert_eq!(read(r#"{"error":"no"}"#), Answer::Disguised(None, "no".into()));
        assert_eq!(read(r#"{"error":null,"choices":[]}"#), Answer::Good(None));
    }

    #[test]
    fn what_is_no_json_object_is_nonsense() {
        for body in ["", "<html>", "[]", "{", "null", "{]}"] {
            assert_eq!(read(body.as_bytes()), Answer::Nonsense, "{body}");
        }
    }
}
