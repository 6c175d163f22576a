//! The nearest right word to a wrong one.

// Bound: below this two words are merely both words (`node` and `name` score 0.70, `timeout` and `timeout_ms` 0.94).
const NEAR: f64 = 0.82;

/// The candidate most like `word`, if one is like it at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|c| (likeness(word, c), c));
    let near = scored.filter(|(score, _)| *score >= NEAR);
    let best = near.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, candidate)| candidate)
}

fn likeness(word: &str, candidate: &str) -> f64 {
    let (word, candidate) = (letters(word), letters(candidate));
    if word == candidate {
        return 1.0;
    }
    let mut score = strsim::jaro_winkler(&word, &candidate);
    let shorter = word.len().min(candidate.len());
    // Half of a compound name is the commonest slip of all: `concurrency` for `max_concurrency`.
    if shorter >= 4 && (candidate.contains(&word) || word.contains(&candidate)) {
        score = score.max(0.9);
    }
    // In a short word one slip is a large part of it: `ulr`.
    if shorter >= 3 && strsim::osa_distance(&word, &candidate) == 1 {
        score = score.max(0.85);
    }
    score
}

/// `maxConcurrency`, `max-concurrency` and `max_concurrency` are one word in three spellings.
fn letters(word: &str) -> String {
    let kept = word.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    // Bound: no key or value worth a suggestion is longer, and the comparison is quadratic.
    kept.flat_map(char::to_lowercase).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_the_word_that_was_meant() {
        let known = ["endpoint", "timeout_ms", "max_concurrency", "weight", "node", "least_load", "name"];
        let cases = [
            ("endpont", Some("endpoint")),
            ("Endpoint", Some("endpoint")),
            ("timeout", Some("timeout_ms")),
            ("maxConcurrency", Some("max_concurrency")),
            ("concurrency", Some("max_concurrency")),
            ("wieght", Some("weight")),
            ("leastload", Some("least_load")),
            ("nodes", Some("node")),
            ("nod", Some("node")),
            ("gpu", None),
            ("", None),
            ("x", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
