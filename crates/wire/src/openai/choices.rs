//! How many answers a request is for: each is generated, and each is paid for.

use kernel::Operation;
use serde_json::value::RawValue;

/// Bound: OpenAI allows 128 answers; what asks for more than this no backend answers.
const CHOICES_MAX: u16 = 4096;

/// How many answers are generated: `n` of them, or `best_of` of which `n` are given, for each prompt of a list. A number
/// in a text counts as well, as lenient backends read it so; what is no number is the backend's to judge.
pub(super) fn of(operation: Operation, [n, best_of]: [Option<&str>; 2], prompt: Option<&str>) -> u16 {
    let number = |raw: Option<&str>| {
        let said = raw.and_then(|raw| raw.trim_matches('"').trim().parse::<f64>().ok());
        // What is out of range ends at its end, and what is no number is none.
        said.map_or(1, |said| said.clamp(1.0, f64::from(CHOICES_MAX)) as u16).max(1)
    };
    match operation {
        Operation::Chat => number(n),
        Operation::Completion => {
            let each = number(n).max(number(best_of));
            each.saturating_mul(prompts(prompt)).min(CHOICES_MAX)
        }
        Operation::Embedding | Operation::Service => 1,
    }
}

/// How many prompts there are: a list of texts, or of lists of tokens, has several; a list of tokens is one.
fn prompts(raw: Option<&str>) -> u16 {
    let inside = raw.and_then(|raw| raw.strip_prefix('[')).map(str::trim_ascii_start);
    let list = raw.filter(|_| inside.is_some_and(|inside| inside.starts_with(['"', '['])));
    let listed = list.and_then(|raw| serde_json::from_str::<Vec<&RawValue>>(raw).ok()).unwrap_or_default();
    let several = listed.iter().filter(|prompt| prompt.get().starts_with(['"', '['])).count();
    u16::try_from(several).unwrap_or(CHOICES_MAX).clamp(1, CHOICES_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::openai::request::{self, Envelope};

    #[test]
    fn the_number_of_answers_is_read_and_bounded() {
        let read = |operation, more: &str| {
            let body = format!(r#"{{"model":"a","messages":[],"input":"x"{more}}}"#);
            let envelope = Envelope { operation, session: None, forward: Arc::new([]) };
            request::read(Bytes::from(body), envelope).unwrap().choices
        };
        let (chat, text) = (Operation::Chat, Operation::Completion);
        let cases = [
            (chat, "", 1),
            (chat, r#","n":5"#, 5),
            (chat, r#","n":5.0,"best_of":9"#, 5),
            (chat, r#","n":"5""#, 5),
            (chat, r#","\u006e":3"#, 3),
            (chat, r#","n":0"#, 1),
            (chat, r#","n":-7"#, 1),
            (chat, r#","n":null"#, 1),
            (chat, r#","n":[2]"#, 1),
            (chat, r#","n":"nan""#, 1),
            (chat, r#","n":1e300"#, CHOICES_MAX),
            (text, r#","n":2,"best_of":8"#, 8),
            (text, r#","prompt":["a","b, [c]"],"n":2"#, 4),
            (text, r#","prompt":[ [1,2], [3], [4] ]"#, 3),
            (text, r#","prompt":[1,2,3]"#, 1),
            (text, r#","prompt":"a""#, 1),
            (text, r#","prompt":["a"],"n":4000,"best_of":4000"#, 4000),
            (text, r#","prompt":["a","b"],"n":4000"#, CHOICES_MAX),
            (Operation::Embedding, r#","n":5"#, 1),
        ];
        for (operation, more, expected) in cases {
            assert_eq!(read(operation, more), expected, "{operation:?} {more}");
        }
    }
}
