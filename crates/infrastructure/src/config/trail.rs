//! The way from the root of a document to one of its values.
//!
//! Built on the stack while walking and written out only where a fault needs it:
//! `models[0].instances[1].endpoint`, with keys that are not plain words quoted: `headers["x.y"]`.

use std::fmt;

/// The steps so far, innermost last.
#[derive(Clone, Copy)]
pub(super) enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

/// One step of a written path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

// === impl Trail ===

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Index(before, index) => write!(f, "{before}[{index}]"),
            Trail::Key(before, key) if !is_word(key) => write!(f, "{before}[{key:?}]"),
            Trail::Key(Trail::Root, key) => f.write_str(key),
            Trail::Key(before, key) => write!(f, "{before}.{key}"),
        }
    }
}

// === impl Step ===

impl Step {
    /// The path as people write it.
    pub(super) fn write(steps: &[Step]) -> String {
        fn from(trail: &Trail<'_>, steps: &[Step]) -> String {
            match steps.split_first() {
                None => trail.to_string(),
                Some((Step::Key(key), rest)) => from(&Trail::Key(trail, key), rest),
                Some((Step::Index(index), rest)) => from(&Trail::Index(trail, *index), rest),
            }
        }
        from(&Trail::Root, steps)
    }

    /// Reads a written path back; `None` if it is not one.
    pub(super) fn parse(path: &str) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        let mut rest = path;
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) if inside.starts_with('"') => quoted(inside)?,
                Some(inside) => {
                    let (number, after) = inside.split_once(']')?;
                    (Step::Index(number.parse().ok()?), after)
                }
                None => {
                    let word = rest.strip_prefix('.').unwrap_or(rest);
                    let end = word.find(['.', '[']).unwrap_or(word.len());
                    let (key, after) = word.split_at(end);
                    if key.is_empty() {
                        return None;
                    }
                    (Step::Key(key.to_owned()), after)
                }
            };
            steps.push(step);
            rest = after;
        }
        Some(steps)
    }
}

/// `"key"]` and what follows. Rust's `Debug` form is undone by hand: it is what `Display` above writes.
fn quoted(text: &str) -> Option<(Step, &str)> {
    let mut key = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                let after = text.get(at + 1..)?.strip_prefix(']')?;
                return Some((Step::Key(key), after));
            }
            '\\' => match letters.next()?.1 {
                'n' => key.push('\n'),
                'r' => key.push('\r'),
                't' => key.push('\t'),
                '0' => key.push('\0'),
                'u' => {
                    let digits: String = letters.by_ref().map(|(_, c)| c).skip(1).take_while(|c| *c != '}').collect();
                    key.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                other => key.push(other),
            },
            other => key.push(other),
        }
    }
    None
}

fn is_word(key: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':' | '$');
    !key.is_empty() && key.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let models = Trail::Key(&Trail::Root, "models");
        let first = Trail::Index(&models, 0);
        let headers = Trail::Key(&first, "headers");
        let odd = Trail::Key(&headers, "x.y \"z\"");
        assert_eq!(odd.to_string(), r#"models[0].headers["x.y \"z\""]"#);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["a..b", "a[", "a[x]", "a[\"x", "."] {
            assert_eq!(Step::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_written_path_can_be_read_back(parts in prop::collection::vec((any::<bool>(), any::<String>()), 0..5)) {
            let step = |(is_key, key): (bool, String)| if is_key { Step::Key(key) } else { Step::Index(key.len()) };
            let steps: Vec<Step> = parts.into_iter().map(step).collect();
            prop_assert_eq!(Step::parse(&Step::write(&steps)), Some(steps));
        }
    }
}
