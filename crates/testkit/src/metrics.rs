//! What `/metrics` said at one moment.
//!
//! Reads the Prometheus and OpenMetrics text formats as far as samples go; types, help texts,
//! exemplars and time stamps are passed over.

use std::collections::BTreeMap;
use std::fmt;

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

// === impl Metrics ===

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    /// On a line that is no comment and no sample: then the page itself is broken.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(|line| parse_sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect())
    }

    /// The sum of the samples of that name carrying all those labels; `None` when there is none.
    #[must_use]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let carries = |sample: &Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        let mut found = self.0.iter().filter(|sample| sample.name == name && carries(sample)).peekable();
        found.peek()?;
        Some(found.map(|sample| sample.value).sum())
    }

    /// As [`get`](Self::get), with 0 for a series that does not exist (yet).
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or(0.0)
    }

    /// Every sample as `name{label="value"}` and its value.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        self.0.iter().map(|sample| (sample.to_string(), sample.value)).collect()
    }
}

// === impl Sample ===

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        let labels: Vec<String> = self.labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        write!(f, "{{{}}}", labels.join(","))
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = parse_quoted(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_not_asked_for() {
        let page = "# HELP a b\na_total{m=\"x\",s=\"2\"} 3\na_total{m=\"x\",s=\"5\"} 4 1700\nb 1.5e1\nc{l=\"q\\\"},{\"} +Inf\n# EOF\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.get("a_total", &[("m", "x")]), Some(7.0));
        assert_eq!(metrics.get("a_total", &[("s", "5")]), Some(4.0));
        assert_eq!(metrics.get("a_total", &[("s", "9")]), None);
        assert_eq!(metrics.value("b", &[]), 15.0);
        assert_eq!(metrics.get("c", &[("l", "q\"},{")]), Some(f64::INFINITY));
        assert_eq!(metrics.to_map()["a_total{m=\"x\",s=\"2\"}"], 3.0);
    }
}
