//! The words in bodies, for whoever has to count what nobody else has counted.
//!
//! Found by their keys, without parsing the rest: in JSON a quote inside a text is escaped, so `"content"` followed by a
//! colon can only be a key. A body that is no JSON has no words. Nothing is judged here, and nothing kept.

use std::borrow::Cow;

use memchr::memchr;

/// Keys whose text a model has written: answers, whole and in pieces, thoughts, arguments of tools.
const WRITTEN: [&[u8]; 6] = [b"content", b"reasoning_content", b"reasoning", b"text", b"arguments", b"refusal"];
/// Keys whose text a model reads in a list of messages.
const READ: [&[u8]; 4] = [b"content", b"text", b"arguments", b"name"];

/// Shows each text of an answer, whole or as the events of a stream. Always 0.
pub fn answer(body: &[u8], see: &mut dyn FnMut(&str)) -> u64 {
    values(body, &WRITTEN, see);
    0
}

/// Shows each text of a prompt: the value of `messages`, or a text or list of texts. Gives how many messages there are.
pub fn prompt(value: &[u8], see: &mut dyn FnMut(&str)) -> u64 {
    let value = value.trim_ascii();
    let messages = value.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"));
    if messages {
        let mut count = 0;
        keys(value, |key, _| count += u64::from(key == b"role"));
        values(value, &READ, see);
        return count;
    }
    let mut rest = value;
    while let Some(at) = memchr(b'"', rest) {
        let Some(inside) = rest.get(at + 1..) else { return 0 };
        let Some(end) = end(inside) else { return 0 };
        show(inside.get(..end).unwrap_or_default(), see);
        rest = inside.get(end + 1..).unwrap_or_default();
    }
    0
}

fn values(body: &[u8], wanted: &[&[u8]], see: &mut dyn FnMut(&str)) {
    keys(body, |key, value| {
        if wanted.contains(&key)
            && let Some(inside) = value.strip_prefix(b"\"")
            && let Some(end) = end(inside)
        {
            show(inside.get(..end).unwrap_or_default(), see);
        }
    });
}

/// Shows each key with what follows its colon.
fn keys(body: &[u8], mut see: impl FnMut(&[u8], &[u8])) {
    let mut rest = body;
    while let Some(at) = memchr(b'"', rest) {
        let Some(inside) = rest.get(at + 1..) else { return };
        let Some(end) = end(inside) else { return };
        let after = inside.get(end + 1..).unwrap_or_default();
        let value = after.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        if let Some(value) = value {
            see(inside.get(..end).unwrap_or_default(), value);
        }
        rest = after;
    }
}

/// Where a text ends: at the first quote that is not escaped.
fn end(inside: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = inside.get(at..)?;
        let found = memchr::memchr2(b'"', b'\\', rest)?;
        if rest.get(found) == Some(&b'"') {
            return Some(at + found);
        }
        at += found + 2;
    }
}

/// Shows a text as it is meant, escapes resolved.
fn show(raw: &[u8], see: &mut dyn FnMut(&str)) {
    let Ok(text) = std::str::from_utf8(raw) else { return };
    if text.is_empty() {
        return;
    }
    if memchr(b'\\', raw).is_none() {
        return see(text);
    }
    let quoted = format!("\"{text}\"");
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(&quoted) {
        see(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(read: impl Fn(&[u8], &mut dyn FnMut(&str)) -> u64, body: &str) -> (Vec<String>, u64) {
        let mut texts = Vec::new();
        let count = read(body.as_bytes(), &mut |text| texts.push(text.to_owned()));
        (texts, count)
    }

    #[test]
    fn what_a_model_wrote_is_found_whole_and_in_pieces() {
        let check = |body: &str, expected: &[&str]| assert_eq!(seen(answer, body).0, expected, "{body}");
        check(r#"{"choices":[{"message":{"role":"assistant","content":"Hi \"you\"\n"}}]}"#, &["Hi \"you\"\n"]);
        check(
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"reasoning_content\" : \"b\"}}]}\n\ndata: [DONE]\n\n",
            &["a", "b"],
        );
        check(r#"{"choices":[{"text":"\u4f60好","finish_reason":"stop"}]}"#, &["你好"]);
        check(
            r#"{"content":null,"content":"","tool_calls":[{"function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
            &["{\"x\":1}"],
        );
        check(r#"{"content":"\"content\":\"no\""}"#, &["\"content\":\"no\""]);
        check("data: {\"choices\":[{\"delta\":{\"content\":\"cut", &[]);
    }

    #[test]
    fn a_prompt_is_messages_or_texts() {
        let messages = r#"[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"x"}}]}]"#;
        assert_eq!(seen(prompt, messages), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert_eq!(seen(prompt, r#""one""#), (vec!["one".to_owned()], 0));
        assert_eq!(seen(prompt, r#"["one", "t\two"]"#), (vec!["one".to_owned(), "t\two".to_owned()], 0));
        assert_eq!(seen(prompt, "[[1,2,3]]"), (vec![], 0));
    }

    proptest! {
        #[test]
        fn any_text_is_found_as_it_was_written(text in ".{1,40}", other in ".{0,10}") {
            let body = serde_json::json!({"id": other, "choices": [{"message": {"content": text, "role": other}}]}).to_string();
            prop_assert_eq!(seen(answer, &body).0, [text]);
        }

        #[test]
        fn nothing_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            answer(&bytes, &mut |_| {});
            prompt(&bytes, &mut |_| {});
        }
    }
}
