//! The text format Prometheus reads, as far as a gauge needs it: `name{label="value",…} number [timestamp]`.
//!
//! Strict about a line that is asked for and blind to all others: servers put all sorts of things beside their gauges.

/// One line of metrics, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Label names and values. Values stand as they were written: none we compare has an escape in it.
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) value: f64,
}

/// The name a line begins with, if it is a sample at all.
pub(super) fn name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let name = line.split(|c: char| c == '{' || c.is_ascii_whitespace()).next()?;
    (!name.is_empty() && !name.starts_with('#')).then_some(name)
}

/// The whole line; `None` when it is malformed.
pub(super) fn line(text: &str) -> Option<Line<'_>> {
    let text = text.trim();
    let name = name(text)?;
    let rest = text.strip_prefix(name)?.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let timed = words.next().is_none_or(|stamp| stamp.parse::<i64>().is_ok());
    (timed && words.next().is_none()).then_some(Line { name, labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(Vec<(&str, &str)>, &str)> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Some((found, rest));
        }
        let (name, rest) = text.split_once('=')?;
        let inside = rest.trim_start().strip_prefix('"')?;
        let (value, rest) = inside.split_at_checked(closing_quote(inside)?)?;
        found.push((name.trim(), value));
        text = rest.strip_prefix('"')?.trim_start();
        text = match text.strip_prefix(',') {
            Some(rest) => rest,
            None if text.starts_with('}') => text,
            None => return None,
        };
    }
}

/// Where the quote is that ends a value: the first one without a backslash before it.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_taken_apart() {
        let read = |text| line(text).map(|line| (line.name, line.labels, line.value));
        assert_eq!(read("a 1"), Some(("a", vec![], 1.0)));
        assert_eq!(read("  a{}  2.5e1 1700000000000 \r"), Some(("a", vec![], 25.0)));
        assert_eq!(read(r#"a:b{x="1",y="}\"\\"} 0.5"#), Some(("a:b", vec![("x", "1"), ("y", r#"}\"\\"#)], 0.5)));
        assert_eq!(read(r#"a { x = "1" , } 3"#), Some(("a", vec![("x", "1")], 3.0)));
    }

    #[test]
    fn what_is_malformed_is_no_line() {
        for text in [
            "",
            "# TYPE a gauge",
            "a",
            "a{",
            "a{x} 1",
            r#"a{x="1} 1"#,
            r#"a{x="1"y="2"} 1"#,
            "a one",
            "a 1 b",
            "a 1 2 3",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            labels in proptest::collection::vec(("[a-z_]{1,8}", r#"([^"\\\n]|\\"|\\\\|\\n){0,12}"#), 0..4),
            value in -1e12f64..1e12,
        ) {
            let inside: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let text = format!("{name}{{{}}} {value}", inside.join(","));
            let read = line(&text);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            prop_assert_eq!(read, Some(Line { name: &name, labels, value }));
        }

        #[test]
        fn no_text_is_too_strange(text in r#"([a-z]{0,3}|[{}",=# \\\n]|\PC){0,40}"#) {
            let _ = (name(&text), line(&text));
        }
    }
}
