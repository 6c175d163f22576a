//! Making a request what its plan wants it to be: defaults, a ceiling on tokens, a system prompt, a list of fields.
//!
//! The body is edited where it must be and read again; what is not touched stays byte for byte. A body that a scan
//! cannot follow (escapes in names) is written anew first, so that no spelling slips a field past the rules.

use std::ops::Range;

use bytes::Bytes;
use kernel::contract::{OtherFields, Preprocess, ROUTING};
use kernel::{Call, Error, Operation, Result};
use serde_json::{Map, Value, json};

use super::request::{self, Envelope};
use crate::json::scan::GivenUp;
use crate::json::{self, scan};

/// The names of the ceiling on tokens, old and new.
const MAX_TOKENS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// One top-level member: its name, its value, and where the two stand together.
struct Member<'a> {
    name: &'a str,
    raw: &'a str,
}

/// Applies the rules to a call.
///
/// # Errors
/// `Invalid` for a field that may not be there, and for a ceiling on tokens that is no number.
pub fn apply(call: Call, rules: &Preprocess) -> Result<Call> {
    let body = call.payload.bytes.clone();
    let text = std::str::from_utf8(&body).map_err(|_| unreadable())?;
    let edited = match members(text) {
        Ok(members) => edit(text, &members, &call, rules)?,
        Err(GivenUp) => {
            let plain = Bytes::from(rewrite(text)?);
            let text = std::str::from_utf8(&plain).map_err(|_| unreadable())?;
            let members = members(text).map_err(|_| unreadable())?;
            let edited = edit(text, &members, &call, rules)?;
            splice(&plain, edited).or(Some(plain))
        }
        .map_or_else(Vec::new, |body| vec![(0..text.len(), body)]),
    };
    let Some(body) = splice(&body, edited) else { return Ok(call) };
    let envelope = Envelope { operation: call.operation, session: None, forward: call.forward };
    // The session and what it hangs on are the client's: no edit changes them.
    Ok(Call { affinity: call.affinity, ..request::read(body, envelope)? })
}

fn splice(body: &Bytes, edits: Vec<(Range<usize>, Bytes)>) -> Option<Bytes> {
    if edits.is_empty() {
        return None;
    }
    let mut pieces = json::splice(body, edits);
    Some(if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() })
}

fn members(text: &str) -> Result<Vec<Member<'_>>, GivenUp> {
    let (mut scan, mut members) = (scan::object(text)?, Vec::with_capacity(16));
    while let Some((name, raw)) = scan.next()? {
        members.push(Member { name, raw });
    }
    Ok(members)
}

/// The same object in plain spelling.
fn rewrite(text: &str) -> Result<String> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|_| unreadable())?;
    serde_json::to_string(&object).map_err(|_| unreadable())
}

fn edit(text: &str, members: &[Member<'_>], call: &Call, rules: &Preprocess) -> Result<Vec<(Range<usize>, Bytes)>> {
    let mut edits = Vec::new();
    let mut ahead = String::new();
    let kept: Vec<&Member<'_>> = members.iter().filter(|member| may_stay(member.name, rules)).collect();
    if kept.len() < members.len() {
        match rules.other_fields {
            OtherFields::Refuse => return Err(refuse(members, rules)),
            OtherFields::Drop => edits.extend(take_out(text, members, rules)),
        }
    }
    let has = |name: &str| kept.iter().any(|member| member.name == name);
    for (name, value) in rules.defaults.iter().filter(|(name, _)| !has(name)) {
        let over = rules.max_tokens.filter(|max| {
            MAX_TOKENS.contains(&name.as_str()) && value.as_u64().is_none_or(|value| value > u64::from(*max))
        });
        let value = over.map_or_else(|| value.clone(), Value::from);
        ahead.push_str(&format!("{}:{value},", Value::from(name.as_str())));
    }
    if let Some(max) = rules.max_tokens.filter(|_| call.operation != Operation::Embedding) {
        edits.extend(clamp(text, &kept, max)?);
        let said = |name: &&str| has(name) || rules.defaults.contains_key(*name);
        if !MAX_TOKENS.iter().any(said) {
            ahead.push_str(&format!("\"max_tokens\":{max},"));
        }
    }
    if let (Some(prompt), Operation::Chat) = (&rules.system_prompt, call.operation) {
        edits
            .extend(kept.iter().find(|member| member.name == "messages").and_then(|member| lead(text, member, prompt)));
    }
    if let (Some(brace), false) = (text.find('{'), ahead.is_empty()) {
        if kept.is_empty() {
            ahead.pop();
        }
        edits.push((brace + 1..brace + 1, ahead.into()));
    }
    Ok(edits)
}

fn may_stay(name: &str, rules: &Preprocess) -> bool {
    rules.fields.is_empty() || ROUTING.contains(&name) || rules.fields.iter().any(|listed| listed == name)
}

fn refuse(members: &[Member<'_>], rules: &Preprocess) -> Error {
    let strange = members.iter().find(|member| !may_stay(member.name, rules));
    let name: String = strange.map_or("", |member| member.name).chars().take(64).collect();
    let listed = rules.fields.join(", ");
    let mut error = Error::invalid(
        None,
        format!("`{name}` is not a field this tenant's plan allows. Allowed beside the usual ones: {listed}."),
    );
    error.field = Some(name.into());
    error
}

/// Takes out what may not stay, each with one comma beside it.
fn take_out<'a>(
    text: &'a str,
    members: &'a [Member<'a>],
    rules: &'a Preprocess,
) -> impl Iterator<Item = (Range<usize>, Bytes)> + 'a {
    let end = |at: usize| members.get(at).map(|member| json::place(text, member.raw).end);
    let brace = text.find('{').unwrap_or(0) + 1;
    // Members before the first that stays go with the comma behind them, all later ones with the comma before.
    let first = members.iter().position(|member| may_stay(member.name, rules));
    members.iter().enumerate().filter(|(_, member)| !may_stay(member.name, rules)).filter_map(move |(at, member)| {
        let own = json::place(text, member.raw);
        let before = at.checked_sub(1).and_then(end);
        let range = match first {
            None => before.unwrap_or(brace)..own.end,
            Some(first) if at < first => {
                let from = before.map_or(brace, |_| name_start(text, member));
                from..members.get(at + 1).map_or(own.end, |next| name_start(text, next))
            }
            Some(_) => before?..own.end,
        };
        Some((range, Bytes::new()))
    })
}

/// Where a member's name begins, quote included.
fn name_start(text: &str, member: &Member<'_>) -> usize {
    json::place(text, member.name).start.saturating_sub(1)
}

/// Brings ceilings down to the rule's.
fn clamp(text: &str, kept: &[&Member<'_>], max: u32) -> Result<Vec<(Range<usize>, Bytes)>> {
    let mut edits = Vec::new();
    for member in kept.iter().filter(|member| MAX_TOKENS.contains(&member.name)) {
        let over = match serde_json::from_str::<Value>(member.raw).unwrap_or_default() {
            Value::Null => true,
            Value::Number(number) => number.as_u64().is_none_or(|number| number > u64::from(max)),
            _ => {
                let mut error = Error::invalid(None, format!("`{}` must be a whole number.", member.name));
                error.field = Some(member.name.to_owned().into());
                return Err(error);
            }
        };
        if over {
            edits.push((json::place(text, member.raw), max.to_string().into()));
        }
    }
    Ok(edits)
}

/// Puts a system prompt before the messages.
fn lead(text: &str, messages: &Member<'_>, prompt: &str) -> Option<(Range<usize>, Bytes)> {
    let place = json::place(text, messages.raw);
    let inside = messages.raw.strip_prefix('[')?;
    let comma = if inside.trim_start().starts_with(']') { "" } else { "," };
    let first = format!("{}{comma}", json!({ "role": "system", "content": prompt }));
    Some((place.start + 1..place.start + 1, first.into()))
}

fn unreadable() -> Error {
    Error::invalid(None, "The request body cannot be read: it is nested too deeply, or not valid JSON.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(body: &str, operation: Operation) -> Call {
        let envelope = Envelope { operation, session: Some(7), forward: std::sync::Arc::new([]) };
        request::read(Bytes::copy_from_slice(body.as_bytes()), envelope).unwrap()
    }

    fn rules(text: &str) -> Preprocess {
        serde_json::from_str(text).unwrap()
    }

    fn check(rule: &str, body: &str, expected: &str) {
        let made = apply(call(body, Operation::Chat), &rules(rule)).unwrap();
        assert_eq!(std::str::from_utf8(&made.payload.bytes).unwrap(), expected);
        assert_eq!(made.affinity, Some(7), "the session is the client's");
    }

    #[test]
    fn what_needs_no_change_is_not_touched() {
        check(
            r#"{"max_tokens":10}"#,
            r#"{ "model":"m", "messages":[], "max_tokens" : 10 }"#,
            r#"{ "model":"m", "messages":[], "max_tokens" : 10 }"#,
        );
        check(
            r#"{"defaults":{"top_p":1}}"#,
            r#"{"model":"m","messages":[],"top_p":null}"#,
            r#"{"model":"m","messages":[],"top_p":null}"#,
        );
    }

    #[test]
    fn defaults_are_set_where_nothing_is_said() {
        check(
            r#"{"defaults":{"temperature":0.5,"stop":["x"]}}"#,
            r#"{"model":"m","messages":[],"temperature":1}"#,
            r#"{"stop":["x"],"model":"m","messages":[],"temperature":1}"#,
        );
    }

    #[test]
    fn a_default_is_under_the_ceiling_too() {
        check(
            r#"{"defaults":{"max_completion_tokens":99},"max_tokens":10}"#,
            r#"{"model":"m","messages":[]}"#,
            r#"{"max_completion_tokens":10,"model":"m","messages":[]}"#,
        );
    }

    #[test]
    fn the_ceiling_on_tokens_holds_however_it_is_written() {
        let rule = r#"{"max_tokens":10}"#;
        check(rule, r#"{"model":"m","messages":[]}"#, r#"{"max_tokens":10,"model":"m","messages":[]}"#);
        check(rule, r#"{"model":"m","messages":[],"max_tokens":99}"#, r#"{"model":"m","messages":[],"max_tokens":10}"#);
        check(
            rule,
            r#"{"model":"m","messages":[],"max_tokens":null}"#,
            r#"{"model":"m","messages":[],"max_tokens":10}"#,
        );
        check(
            rule,
            r#"{"model":"m","messages":[],"max_tokens":1e9}"#,
            r#"{"model":"m","messages":[],"max_tokens":10}"#,
        );
        check(rule, r#"{"model":"m","messages":[],"max_tokens":-1}"#, r#"{"model":"m","messages":[],"max_tokens":10}"#);
        check(
            rule,
            r#"{"model":"m","messages":[],"max_tokens":5,"max_completion_tokens":50}"#,
            r#"{"model":"m","messages":[],"max_tokens":5,"max_completion_tokens":10}"#,
        );
        check(
            rule,
            r#"{"model":"m","messages":[],"m\u0061x_tokens":99}"#,
            r#"{"model":"m","messages":[],"max_tokens":10}"#,
        );
        let error = apply(call(r#"{"model":"m","messages":[],"max_tokens":"99"}"#, Operation::Chat), &rules(rule));
        assert_eq!(error.unwrap_err().field.as_deref(), Some("max_tokens"));
    }

    #[test]
    fn a_system_prompt_goes_before_all_messages_of_a_chat() {
        let rule = r#"{"system_prompt":"Be \"kind\"."}"#;
        check(
            rule,
            r#"{"model":"m","messages":[ {"role":"user","content":"x"}]}"#,
            r#"{"model":"m","messages":[{"role":"system","content":"Be \"kind\"."}, {"role":"user","content":"x"}]}"#,
        );
        check(
            rule,
            r#"{"model":"m","messages":[ ]}"#,
            r#"{"model":"m","messages":[{"role":"system","content":"Be \"kind\"."} ]}"#,
        );
        let plain = r#"{"model":"m","prompt":"x"}"#;
        assert_eq!(apply(call(plain, Operation::Completion), &rules(rule)).unwrap().payload.bytes, plain);
    }

    #[test]
    fn fields_off_the_list_are_refused_by_name_or_taken_out() {
        let body = r#"{"logprobs":true,"model":"m","messages":[],"seed":3}"#;
        let refused = apply(call(body, Operation::Chat), &rules(r#"{"fields":["seed"]}"#)).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("logprobs"));
        check(r#"{"fields":["seed"],"other_fields":"drop"}"#, body, r#"{"model":"m","messages":[],"seed":3}"#);
        check(
            r#"{"fields":["logprobs"],"other_fields":"drop"}"#,
            body,
            r#"{"logprobs":true,"model":"m","messages":[]}"#,
        );
        let odd = r#"{"model":"m","messages":[],"se\u0065d":3,"x":1}"#;
        check(r#"{"fields":["x"],"other_fields":"drop"}"#, odd, r#"{"model":"m","messages":[],"x":1}"#);
    }

    proptest! {
        /// Whatever is taken out and put in, the result is an object with just the members it should have.
        #[test]
        fn an_edited_body_is_the_object_that_was_meant(
            extra in proptest::collection::vec(("[a-f]{1,2}", -5i64..5, "[ \t\n]{0,2}"), 0..8),
            at in 0usize..8,
            listed in proptest::collection::vec("[a-f]{1,2}", 1..5),
            max in proptest::option::of(1u32..9),
        ) {
            let mut seen = std::collections::HashSet::new();
            let extra: Vec<_> = extra.into_iter().filter(|(name, _, _)| seen.insert(name.clone())).collect();
            let mut parts: Vec<String> =
                extra.iter().map(|(name, value, space)| format!("{space}\"{name}\"{space}:{value}{space}")).collect();
            parts.insert(at.min(parts.len()), r#""model":"m""#.into());
            parts.insert(at.min(parts.len()), r#" "messages" :[]"#.into());
            let body = format!(" {{{}}} ", parts.join(","));
            let rules = Preprocess { fields: listed.clone(), other_fields: OtherFields::Drop, max_tokens: max, ..Preprocess::default() };
            let made = apply(call(&body, Operation::Chat), &rules).unwrap();
            let value: Map<String, Value> = serde_json::from_slice(&made.payload.bytes).unwrap();
            let mut expected: Map<String, Value> = serde_json::from_str(&body).unwrap();
            expected.retain(|name, _| ROUTING.contains(&name.as_str()) || listed.contains(name));
            if let Some(max) = max {
                expected.insert("max_tokens".into(), max.into());
            }
            prop_assert_eq!(value.len(), expected.len());
            prop_assert!(expected.iter().all(|(name, member)| value.get(name) == Some(member)));
        }
    }
}
