//! How large a tenant's calls to a model turn out to be.

use kernel::Usage;

/// What calls were like. Floats: these are guesses, and no money is made of them but what is reserved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Habit {
    /// Bytes of prompt, as JSON, and tokens that they turned out to be.
    bytes: f64,
    tokens: f64,
    /// Tokens of an answer: mean, and mean distance from it.
    mean: f64,
    spread: f64,
}

/// What one call counts: the last twenty or so decide.
const NEW: f64 = 0.05;
/// Bound: more bytes no token has over a whole prompt, and fewer than one would be pictures by address.
const BYTES_PER_TOKEN: std::ops::RangeInclusive<f64> = 1.0..=16.0;
/// Bound: no answer is longer; what a backend says beyond it is not believed.
const OUTPUT_MAX: u64 = 1 << 20;
/// Distances from the mean that an answer that cannot be cut off may have: hardly one in a hundred is longer.
const SPREADS: f64 = 3.0;

impl Default for Habit {
    /// English prose in JSON is four bytes a token; the median answer of public conversation traces is near 256.
    fn default() -> Self {
        Self { bytes: 4_000.0, tokens: 1_000.0, mean: 256.0, spread: 128.0 }
    }
}

impl Habit {
    /// Tokens of a prompt of so many bytes.
    pub(super) fn input(&self, bytes: usize) -> u64 {
        (bytes as f64 * self.tokens / self.bytes).ceil() as u64
    }

    /// Tokens of an answer: the likeliest where more can be reserved while it flows, else what it will rarely exceed.
    pub(super) fn output(&self, streams: bool) -> u64 {
        let high = if streams { 0.0 } else { SPREADS * self.spread };
        (self.mean + high).ceil() as u64
    }

    /// What one with so many answers turned out to be.
    pub(super) fn learn(&mut self, bytes: usize, usage: &Usage, choices: u16) {
        if usage.input.0 > 0 && bytes > 0 {
            let bytes = bytes as f64;
            let tokens = (usage.input.0 as f64).clamp(bytes / BYTES_PER_TOKEN.end(), bytes / BYTES_PER_TOKEN.start());
            self.bytes += NEW * (bytes - self.bytes);
            self.tokens += NEW * (tokens - self.tokens);
        }
        if usage.output.0 > 0 {
            let each = usage.output.0 / u64::from(choices.max(1));
            let off = each.min(OUTPUT_MAX) as f64 - self.mean;
            self.spread += NEW * (off.abs() - self.spread);
            self.mean += NEW * off;
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel::Tokens;

    use super::*;

    #[test]
    fn sizes_are_learned_and_nonsense_is_not_believed() {
        let mut habit = Habit::default();
        assert_eq!((habit.input(400), habit.output(true), habit.output(false)), (100, 256, 640));
        for _ in 0..300 {
            let usage = Usage { input: Tokens(100), output: Tokens(20), ..Usage::default() };
            habit.learn(300, &usage, 1);
        }
        assert_eq!(habit.input(300), 100);
        assert!((20..=22).contains(&habit.output(true)), "{habit:?}");
        for _ in 0..300 {
            habit.learn(300, &Usage { input: Tokens(u64::MAX), output: Tokens(u64::MAX), ..Usage::default() }, 1);
        }
        assert!(habit.input(300) <= 300 && habit.output(true) <= OUTPUT_MAX, "{habit:?}");
    }
}
