//! Answers of many tokens: what chat and completions have in common, and the writing of their events.

use std::fmt::Write;
use std::iter::once;

use serde_json::{Value, json};

use crate::plan::{Plan, Step};
use crate::terms::Pace;
use crate::words::Words;

/// The `created` of every answer.
// The engine has no clock, and equal calls under one seed shall give equal bytes.
pub(crate) const CREATED: u64 = 1_700_000_000;
/// Tells an answer of the simulator from a real one.
pub(crate) const FINGERPRINT: &str = "sim";
/// The most answers to one call.
pub(crate) const MAX_CHOICES: u64 = 128;

/// What is going to be said, whatever its shape.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) id: String,
    pub(crate) model: String,
    /// One text per choice.
    pub(crate) choices: Vec<Words>,
    /// Tokens of each choice.
    pub(crate) tokens: u64,
    pub(crate) finish: &'static str,
    pub(crate) prompt_tokens: u64,
    pub(crate) pace: Pace,
}

/// The writer of one stream's events: all that is the same in each of them.
#[derive(Debug)]
pub(crate) struct Events {
    front: String,
    back: &'static str,
    with_usage: bool,
}

// === impl Script ===

impl Script {
    pub(crate) fn usage(&self) -> Value {
        let completion_tokens = self.tokens * self.choices.len() as u64;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }

    /// The answer as one JSON body, given once all its tokens would have been.
    pub(crate) fn whole(self, object: &str, choice: impl Fn(u64, Words) -> Value) -> Plan {
        let usage = self.usage();
        let choices: Vec<Value> =
            self.choices.into_iter().enumerate().map(|(index, words)| choice(index as u64, words)).collect();
        let body = json!({
            "id": self.id,
            "object": object,
            "created": CREATED,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            "usage": usage,
        });
        Plan::json(&body).delayed(self.pace.total(self.tokens))
    }

    /// The answer as a stream: `opening` goes out with the first of `pieces`, one piece per token, then each
    /// choice is finished with `last`, then usage if it is wanted.
    pub(crate) fn stream(
        self,
        events: Events,
        opening: String,
        pieces: impl Iterator<Item = String> + Send + Sync + 'static,
        last: &str,
    ) -> Plan {
        let mut closing = String::new();
        for index in 0..self.choices.len() {
            let rest = format!("{last},\"logprobs\":null,\"finish_reason\":\"{}\"", self.finish);
            events.write(&mut closing, index, &rest);
        }
        if events.with_usage {
            events.write_usage(&mut closing, &self.usage());
        }
        closing.push_str("data: [DONE]\n\n");

        let (mut pace, mut opening) = (self.pace, Some(opening));
        let spoken = pieces.map(move |piece| {
            let bytes = match opening.take() {
                Some(opening) => opening + &piece,
                None => piece,
            };
            Step { after: pace.wait(), bytes: bytes.into() }
        });
        let closing = Step { after: std::time::Duration::ZERO, bytes: closing.into() };
        Plan::stream(self.tokens + 1, spoken.chain(once(closing)))
    }
}

// === impl Events ===

impl Events {
    pub(crate) fn of(script: &Script, object: &str, with_usage: bool) -> Self {
        let (id, model) = (json!(script.id), json!(script.model));
        let front = format!(
            r#"data: {{"id":{id},"object":"{object}","created":{CREATED},"model":{model},"system_fingerprint":"{FINGERPRINT}","choices":["#
        );
        // OpenAI: with usage asked for, every chunk but the last has a usage of null.
        let back = if with_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" };
        Self { front, back, with_usage }
    }

    /// Appends an event with one choice; `rest` is the choice's fields after its index.
    pub(crate) fn write(&self, out: &mut String, index: usize, rest: &str) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{{\"index\":{index},{rest}}}{}", self.front, self.back);
    }

    /// Appends the event that has usage and no choice.
    fn write_usage(&self, out: &mut String, usage: &Value) {
        let _ = write!(out, "{}],\"usage\":{usage}}}\n\n", self.front);
    }

    /// One piece per token: the next word of each choice, between `before` and `after`.
    pub(crate) fn words(
        &self,
        script: &Script,
        before: &'static str,
        after: &'static str,
    ) -> impl Iterator<Item = String> + use<> {
        let fronts = (0..script.choices.len()).map(|index| format!("{}{{\"index\":{index},{before}", self.front));
        let mut choices: Vec<(String, Words)> = fronts.zip(script.choices.iter().cloned()).collect();
        let back = self.back;
        (0..script.tokens).map(move |_| {
            let mut out = String::with_capacity(choices.len() * 256);
            for (front, words) in &mut choices {
                out.push_str(front);
                words.write(&mut out);
                out.push_str(after);
                out.push_str(back);
            }
            out
        })
    }
}
