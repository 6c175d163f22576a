//! How many tokens a call will take, before it is known.
//!
//! What it reads goes by its size; what it will be answered by what the tenant's calls to the model were answered before.
//! Never by the most it may be answered: clients ask for far more than they get, and a limit full of what nobody uses
//! locks its tenant out. The difference is made up for when the call ends.

use kernel::{Tokens, Usage};

/// Bytes of a request's text per token.
const BYTES_PER_TOKEN: u64 = 4;
/// What an answer is thought to have before there was one.
const FIRST: u64 = 256;
/// How much the last answer counts.
const LEAN: f64 = 8.0;

/// What a call asks for, as far as its size tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// What it is to read, in bytes.
    pub bytes: u64,
    /// The most it may be answered; `None` where it does not say.
    pub output_max: Option<Tokens>,
    /// Whether it is answered in tokens at all.
    pub answered: bool,
    /// How many answers are generated for it, each as long; none counts as one.
    pub choices: u16,
}

/// How long answers were.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learned {
    output: f64,
}

impl Ask {
    /// Tokens it will take, by what was learned: never more than a quarter of its bytes and `output_max` per
    /// answer.
    pub(super) fn tokens(&self, learned: Option<&Learned>) -> u64 {
        let output = learned.map_or(FIRST, |learned| learned.output.ceil() as u64);
        let output = self.output_max.map_or(output, |most| output.min(most.0));
        let output = output.saturating_mul(u64::from(self.choices.max(1)));
        (self.bytes.div_ceil(BYTES_PER_TOKEN)).saturating_add(if self.answered { output } else { 0 }).max(1)
    }
}

impl Learned {
    /// Learns from so many answers of one call.
    pub(super) fn learn(before: Option<&Self>, usage: &Usage, choices: u16) -> Self {
        let seen = usage.output.0 as f64 / f64::from(choices.max(1));
        Self { output: before.map_or(seen, |before| before.output + (seen - before.output) / LEAN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_goes_by_size_by_what_was_learned_and_never_beyond_what_may_be_answered() {
        let ask = Ask { bytes: 401, output_max: None, answered: true, choices: 1 };
        assert_eq!(ask.tokens(None), 101 + FIRST);
        let several = |outputs: &[u64], choices: u16| {
            outputs.iter().fold(None, |before: Option<Learned>, output| {
                Some(Learned::learn(before.as_ref(), &Usage { output: Tokens(*output), ..Usage::default() }, choices))
            })
        };
        let learned = |outputs: &[u64]| several(outputs, 1);
        assert_eq!(ask.tokens(learned(&[40]).as_ref()), 101 + 40);
        assert_eq!(ask.tokens(learned(&[40, 48]).as_ref()), 101 + 41);
        assert_eq!(Ask { output_max: Some(Tokens(10)), ..ask }.tokens(learned(&[40]).as_ref()), 111);
        assert_eq!(Ask { choices: 5, ..ask }.tokens(learned(&[40]).as_ref()), 101 + 5 * 40, "each answer counts");
        assert_eq!(Ask { choices: 5, output_max: Some(Tokens(10)), ..ask }.tokens(learned(&[40]).as_ref()), 151);
        assert_eq!(ask.tokens(several(&[200], 5).as_ref()), 101 + 40, "five answers of one call were forty each");
        assert_eq!(Ask { answered: false, choices: 9, ..ask }.tokens(None), 101);
        assert_eq!(Ask { answered: false, ..ask }.tokens(None), 101, "vectors are no tokens");
        assert_eq!(Ask::default().tokens(None), 1, "nothing is free");
    }
}
