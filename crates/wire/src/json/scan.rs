//! Looking at the members of a JSON object without building anything.
//!
//! A body that is passed on is only looked at: of its thousands of bytes the names at the top level and a few short
//! values matter. Everything is checked against the grammar (RFC 8259) on the way, so that nothing passes that a
//! parser would refuse; but *why* something is wrong, and everything unusual (escapes in names, nesting beyond
//! [`DEPTH_MAX`]), is left to a real parser: a scan that gives up says nothing about its text.

use memchr::memchr2;

/// Bound: nesting of arrays and objects; one bit each.
const DEPTH_MAX: u32 = 64;

/// The members of one object, in order, as they stand: names without quotes, values without white space around them.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    text: &'a str,
    /// Just behind what has been read.
    at: usize,
    begun: bool,
    /// Whether something may come behind the object.
    open_end: bool,
}

/// The scan gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GivenUp;

/// The members of the object that a text is, but for white space around it.
pub(crate) fn object(text: &str) -> Result<Members<'_>, GivenUp> {
    begin(text, false)
}

/// The members of the object that a text begins with, but for white space before it; what comes after the object is not
/// looked at.
pub(crate) fn leading_object(text: &str) -> Result<Members<'_>, GivenUp> {
    begin(text, true)
}

fn begin(text: &str, open_end: bool) -> Result<Members<'_>, GivenUp> {
    let begin = skip_space(text.as_bytes(), 0);
    match text.as_bytes().get(begin) {
        Some(b'{') => Ok(Members { text, at: begin + 1, begun: false, open_end }),
        _ => Err(GivenUp),
    }
}

// === impl Members ===

impl<'a> Members<'a> {
    /// The next member; `None` when the object and the text have ended together.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a str, &'a str)>, GivenUp> {
        self.step().ok_or(GivenUp)
    }

    /// `None` is to give up.
    #[expect(clippy::option_option, reason = "the outer one is for `?`")]
    fn step(&mut self) -> Option<Option<(&'a str, &'a str)>> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        let first = !std::mem::replace(&mut self.begun, true);
        match bytes.get(at)? {
            b'}' => return (self.open_end || skip_space(bytes, at + 1) == bytes.len()).then_some(None),
            b',' if !first => at = skip_space(bytes, at + 1),
            b'"' if first => {}
            _ => return None,
        }
        let name_end = skip_string(bytes, at)?;
        let name = self.text.get(at + 1..name_end - 1).filter(|name| !name.contains('\\'))?;
        let colon = skip_space(bytes, name_end);
        let begin = skip_space(bytes, (bytes.get(colon)? == &b':').then_some(colon + 1)?);
        self.at = skip_value(bytes, begin)?;
        Some(Some((name, self.text.get(begin..self.at)?)))
    }
}

/// Where the value that begins at `at` ends.
fn skip_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    // One bit per open array or object, the innermost lowest: set for an object.
    let (mut open, mut depth) = (0u64, 0u32);
    loop {
        // Here a value begins.
        at = skip_space(bytes, at);
        match bytes.get(at)? {
            begin @ (b'{' | b'[') => {
                let is_object = *begin == b'{';
                at = skip_space(bytes, at + 1);
                let closed = bytes.get(at) == Some(if is_object { &b'}' } else { &b']' });
                if closed {
                    at += 1;
                } else {
                    depth = (depth < DEPTH_MAX).then_some(depth + 1)?;
                    open = open << 1 | u64::from(is_object);
                    if is_object {
                        at = skip_name(bytes, at)?;
                    }
                    continue;
                }
            }
            b'"' => at = skip_string(bytes, at)?,
            b'-' | b'0'..=b'9' => at = skip_number(bytes, at)?,
            b't' => at = skip_word(bytes, at, b"true")?,
            b'f' => at = skip_word(bytes, at, b"false")?,
            b'n' => at = skip_word(bytes, at, b"null")?,
            _ => return None,
        }
        // Here one has ended: perhaps the last of those around it, and these too.
        loop {
            if depth == 0 {
                return Some(at);
            }
            at = skip_space(bytes, at);
            let in_object = open & 1 == 1;
            match bytes.get(at)? {
                b',' if in_object => {
                    at = skip_name(bytes, skip_space(bytes, at + 1))?;
                    break;
                }
                b',' => {
                    at += 1;
                    break;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ => return None,
            }
            (at, open, depth) = (at + 1, open >> 1, depth - 1);
        }
    }
}

/// A name and its colon.
fn skip_name(bytes: &[u8], at: usize) -> Option<usize> {
    let end = skip_space(bytes, skip_string(bytes, at)?);
    (bytes.get(end)? == &b':').then_some(end + 1)
}

fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = (bytes.get(at)? == &b'"').then_some(at + 1)?;
    loop {
        let rest = bytes.get(at..)?;
        let stop = plain_bytes(rest);
        at += stop + 1;
        match rest.get(stop)? {
            b'"' => return Some(at),
            b'\\' => {}
            _ => return None,
        }
        at += match bytes.get(at)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' => bytes.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(5)?,
            _ => return None,
        };
    }
}

/// How many bytes of a string stand for themselves: up to a quote, a backslash or a control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    // Names and short values are looked at eight bytes at a time, which needs no warming up.
    let (words, _) = bytes.as_chunks::<8>();
    for (nth, word) in words.iter().take(SHORT_WORDS).enumerate() {
        let found = ends(u64::from_le_bytes(*word));
        if found != 0 {
            return nth * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let short = words.len().min(SHORT_WORDS) * 8;
    let rest = bytes.get(short..).unwrap_or_default();
    let stop = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let plain = rest.get(..stop).unwrap_or_default();
    // A fold over the least byte, because that is done sixteen bytes at a time.
    if plain.iter().fold(u8::MAX, |least, byte| least.min(*byte)) >= 0x20 {
        return short + stop;
    }
    short + plain.iter().position(|byte| *byte < 0x20).unwrap_or(stop)
}

/// Bound: what is longer than four words is worth a search with vectors.
const SHORT_WORDS: usize = 4;

/// The top bit of each byte that ends a run of plain ones; above the first one found there may be false ones.
const fn ends(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x8080_8080_8080_8080;
    const fn below(word: u64, limit: u64) -> u64 {
        word.wrapping_sub(EACH * limit) & !word & TOP
    }
    below(word, 0x20) | below(word ^ (EACH * b'"' as u64), 1) | below(word ^ (EACH * b'\\' as u64), 1)
}

fn skip_number(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + usize::from(bytes.get(at) == Some(&b'-'));
    at = match bytes.get(at)? {
        b'0' => at + 1,
        _ => skip_digits(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = skip_digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = skip_digits(bytes, at + 1 + sign)?;
    }
    Some(at)
}

/// At least one digit.
fn skip_digits(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then_some(at + digits)
}

fn skip_word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then_some(at + word.len())
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    use super::*;

    /// All members; `None` where the scan gives up.
    fn scan(text: &str) -> Option<Vec<(&str, &str)>> {
        let (mut members, mut all) = (object(text).ok()?, Vec::new());
        while let Some(member) = members.next().ok()? {
            all.push(member);
        }
        Some(all)
    }

    #[test]
    fn members_come_as_they_stand() {
        let text = " { \"a\" : [1, {\"x\":\"]\"} ] ,\"b\":\"q\\\"\\u00e9\", \"c\":-1.5e+3,\"d\":{},\"e\":null}\n";
        let expected =
            [("a", "[1, {\"x\":\"]\"} ]"), ("b", "\"q\\\"\\u00e9\""), ("c", "-1.5e+3"), ("d", "{}"), ("e", "null")];
        assert_eq!(scan(text).unwrap(), expected);
        assert_eq!(scan("{}").unwrap(), []);
    }

    #[test]
    fn it_gives_up_on_what_is_wrong_or_unusual() {
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(scan(&deep(64)).is_some());
        for text in [
            "",
            "[]",
            "{",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":tru}",
            "{\"a\":[1}",
            "{\"a\":{\"b\"]}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\n\"}",
            "{\"a\\n\":1}",
            "{'a':1}",
            "{\"a\":1 \"b\":2}",
            &deep(66),
        ] {
            assert_eq!(scan(text), None, "{text}");
        }
    }

    #[test]
    fn a_leading_object_ends_where_it_ends() {
        let mut members = leading_object(" {\"a\":[1]},\"b\":2}").unwrap();
        assert_eq!(members.next(), Ok(Some(("a", "[1]"))));
        assert_eq!(members.next(), Ok(None));
        assert_eq!(object("{\"a\":1},").unwrap().next(), Ok(Some(("a", "1"))));
        assert!(scan("{\"a\":1},").is_none());
    }

    proptest! {
        #[test]
        fn plain_bytes_end_at_the_first_byte_that_is_none(bytes in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 60 => 0x20u8..0x7f], 0..120)) {
            let is_end = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
            prop_assert_eq!(plain_bytes(&bytes), bytes.iter().position(is_end).unwrap_or(bytes.len()));
        }
    }

    /// JSON, mostly: text made of the pieces JSON is made of.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"b\\n\""),
            Just("\"\\u00zz\""),
            Just("1"),
            Just("-0.5e2"),
            Just("01"),
            Just("true"),
            Just("null"),
            Just(" "),
            Just("\"é\u{1}\""),
            Just("\"\\\\\""),
        ];
        proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::vec(("[a-z \"\\\\]{0,5}", inner), 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_it_reads_a_parser_reads_too(text in prop_oneof![nearly_json(), nearly_json().prop_map(|inside| format!("{{\"k\":{inside}}}"))]) {
            if let Some(members) = scan(&text) {
                let parsed: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
                for (name, raw) in members.iter().rev() {
                    prop_assert!(parsed.contains_key(*name));
                    serde_json::from_str::<serde_json::Value>(raw).unwrap();
                }
            }
        }

        #[test]
        fn it_reads_every_object_without_escapes_in_its_names(members in proptest::collection::btree_map("[a-z]{0,4}", value(), 0..6), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&members) } else { serde_json::to_string(&members) }.unwrap();
            let parsed: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
            let expected: Vec<_> = parsed.iter().map(|(name, raw)| (name.as_str(), raw.get())).collect();
            prop_assert_eq!(scan(&text), Some(expected));
        }
    }
}
