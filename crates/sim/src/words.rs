//! Made-up words, one per token.
//!
//! ASCII letters and spaces only, so that a piece can be put inside a JSON string without escaping.

use crate::random::Random;

const SYLLABLES: [&str; 32] = [
    "ba", "be", "da", "do", "fa", "fi", "ga", "go", "ka", "ki", "la", "lo", "ma", "mi", "na", "ne", "pa", "po", "ra",
    "ri", "sa", "se", "ta", "tu", "va", "vo", "za", "zu", "sha", "lin", "ran", "tor",
];

/// An endless text: each call gives the next word.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    random: Random,
    begun: bool,
}

impl Words {
    /// The text that belongs to this seed, prompt and choice.
    pub(crate) fn of(seed: u64, prompt: u64, choice: u64) -> Self {
        let mut random = Random::of(seed, prompt);
        Self { random: Random::of(random.draw(), choice), begun: false }
    }

    /// Appends the next word, after a space unless it is the first.
    pub(crate) fn write(&mut self, out: &mut String) {
        if self.begun {
            out.push(' ');
        }
        self.begun = true;
        for _ in 0..=self.random.below(3) {
            let pick = self.random.below(SYLLABLES.len() as u64) as usize;
            out.push_str(SYLLABLES.get(pick).copied().unwrap_or("la"));
        }
    }

    /// The first `count` words as one text.
    pub(crate) fn text(mut self, count: u64) -> String {
        let mut out = String::new();
        for _ in 0..count {
            self.write(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_as_many_words_as_asked() {
        for count in [0, 1, 2, 500] {
            assert_eq!(Words::of(1, 2, 3).text(count).split_whitespace().count() as u64, count);
        }
    }

    #[test]
    fn seed_prompt_and_choice_each_change_the_text() {
        let text = |seed, prompt, choice| Words::of(seed, prompt, choice).text(8);
        assert_eq!(text(1, 1, 1), text(1, 1, 1));
        for other in [text(2, 1, 1), text(1, 2, 1), text(1, 1, 2)] {
            assert_ne!(text(1, 1, 1), other);
        }
    }
}
