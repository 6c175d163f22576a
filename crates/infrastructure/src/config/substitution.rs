//! Environment variables in values: `${VAR}`, `${VAR:-default}`, and `$${` for a literal `${`.
//!
//! Works on one value after YAML has been parsed, so what a variable holds can never become structure.
//! As in a shell, `:-` also replaces an empty value. What a variable brings in is not looked at again.

use super::Lookup;
use super::compose::TEXT_MAX;
use super::fault::{FAULTS_MAX, shorten};

/// A reference that cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Which `${` of the text this is, from 0, escaped ones counted.
    pub ordinal: usize,
    pub message: String,
    pub suggestion: Option<String>,
}

/// The text with its references replaced; `None` if it has none, so that nothing need be copied.
///
/// # Errors
/// All references that cannot be replaced.
pub(super) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<Option<Replaced>, Vec<Trouble>> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut troubles = Vec::new();
    let mut from_environment = false;
    let mut rest = text;
    let mut ordinal = 0;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
        } else {
            out.push_str(before);
            from_environment = true;
            match reference(after, lookup) {
                Ok((value, after)) => {
                    out.push_str(&value);
                    rest = after;
                }
                Err((message, suggestion)) => {
                    troubles.push(Trouble { ordinal, message, suggestion });
                    rest = after;
                }
            }
        }
        ordinal += 1;
        if out.len() > TEXT_MAX {
            let message = format!("more than {} MiB of text with its variables", TEXT_MAX >> 20);
            troubles.push(Trouble { ordinal: 0, message, suggestion: None });
        }
        if out.len() > TEXT_MAX || troubles.len() > FAULTS_MAX {
            break;
        }
    }
    out.push_str(rest);
    if troubles.is_empty() { Ok(Some(Replaced { text: out, from_environment })) } else { Err(troubles) }
}

/// A text after substitution.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    pub text: String,
    /// Whether a variable was asked for, or only `$${` unescaped.
    pub from_environment: bool,
}

/// Reads `VAR}` or `VAR:-default}`: its value, and what follows.
fn reference<'a>(text: &'a str, lookup: Lookup<'_>) -> Result<(String, &'a str), (String, Option<String>)> {
    // The next `${` ends the search: defaults do not nest, and a text full of them is read once.
    let end = text.char_indices().find(|(at, c)| match c {
        '}' => true,
        '$' => text.get(at + 1..).is_some_and(|rest| rest.starts_with('{')),
        _ => false,
    });
    let closed = end.filter(|(_, c)| *c == '}').and_then(|(at, _)| Some((text.get(..at)?, text.get(at + 1..)?)));
    let Some((inside, after)) = closed else {
        let message = "a `${` without its `}`, or with another `${` before it; write `$${` for the two characters";
        return Err((message.to_owned(), None));
    };
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        let shown = shorten(inside);
        let message = format!("`${{{}}}` is neither `${{VAR}}` nor `${{VAR:-default}}`", shown.escape_debug());
        return Err((message, Some(format!("$${{{}}}", shown.escape_debug()))));
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok((value, after)),
        (Some(value), Some(_)) if !value.is_empty() => Ok((value, after)),
        (_, Some(default)) => Ok((default.to_owned(), after)),
        (None, None) => {
            let name = shorten(name);
            let message = format!("the environment variable `{name}` is not set");
            Err((message, Some(format!("${{{name}:-default}}"))))
        }
    }
}

fn is_name(name: &str) -> bool {
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    word && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("h".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".into()),
            _ => None,
        }
    }

    fn text(of: &str) -> Option<String> {
        let replaced = substitute(of, &lookup).expect("every reference resolves");
        replaced.map(|replaced| replaced.text)
    }

    #[test]
    fn references_are_replaced_and_escapes_undone() {
        let cases = [
            ("http://${HOST}:80", "http://h:80"),
            ("${HOST}${HOST}", "hh"),
            ("${MISSING:-d}", "d"),
            ("${MISSING:-}", ""),
            ("${MISSING:-a:-b}", "a:-b"),
            ("${HOST:-d}", "h"),
            ("${EMPTY:-d}", "d"),
            ("<${EMPTY}>", "<>"),
            ("${NESTED}", "${HOST}"),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("$${HOST} ${HOST}", "${HOST} h"),
        ];
        for (of, expected) in cases {
            assert_eq!(text(of).as_deref(), Some(expected), "{of}");
        }
        for untouched in ["", "$HOST", "a $ b", "{HOST}", "$(HOST)"] {
            assert_eq!(text(untouched), None, "{untouched}");
        }
    }

    #[test]
    fn every_bad_reference_of_a_text_is_reported() {
        // A default cannot hold a variable: its `}` would be taken for the end of both.
        assert!(substitute("${A:-${HOST}}", &lookup).is_err());
        let troubles = substitute("${A} $${B} ${1} ${HOST} ${", &lookup).unwrap_err();
        let told: Vec<_> = troubles.iter().map(|t| (t.ordinal, t.message.as_str(), t.suggestion.as_deref())).collect();
        assert_eq!(
            told,
            [
                (0, "the environment variable `A` is not set", Some("${A:-default}")),
                (2, "`${1}` is neither `${VAR}` nor `${VAR:-default}`", Some("$${1}")),
                (4, "a `${` without its `}`, or with another `${` before it; write `$${` for the two characters", None),
            ]
        );
    }
}
