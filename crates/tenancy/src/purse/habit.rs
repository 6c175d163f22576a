//! How large a tenant's calls to a model turn out to be.

use kernel::{Tokens, Usage};

use super::Ask;

/// What calls were like. Floats: these are guesses, and no money is made of them but what is reserved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Habit {
    /// Bytes of prompt, as JSON, and tokens that they turned out to be.
    bytes: f64,
    tokens: f64,
    /// Tokens of an answer: mean, and mean distance from it.
    mean: f64,
    spread: f64,
    /// Images of an answer.
    images: f64,
    /// GPU time of a call in milliseconds: mean, and mean distance from it.
    gpu: f64,
    gpu_spread: f64,
    /// Parts of what is read, and of what is generated, that are sound.
    heard: f64,
    spoken: f64,
}

/// What a call is thought to turn out to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    pub(super) usage: Usage,
    pub(super) gpu_millis: u64,
}

/// What one call counts: the last twenty or so decide.
const NEW: f64 = 0.05;
/// Bound: more bytes no token has over a whole prompt, and fewer than one would be pictures by address.
const BYTES_PER_TOKEN: std::ops::RangeInclusive<f64> = 1.0..=16.0;
/// Bound: no answer is longer; what a backend says beyond it is not believed.
const OUTPUT_MAX: u64 = 1 << 20;
/// Bound: no call keeps as many GPUs for as long: eight for an hour.
const GPU_MILLIS_MAX: u64 = 8 * 3_600_000;
/// Bound: no answer has as many.
const IMAGES_MAX: u32 = 100;
/// GPU time that a call takes of which nothing is known yet: a short answer of a model of middle size.
const GPU_FIRST: f64 = 1_000.0;
const GPU_FIRST_SPREAD: f64 = 500.0;
/// Images that an answer is thought to have as long as nothing is known: where they have a price, they are what is made.
const IMAGES_FIRST: f64 = 1.0;
/// Fewer images than this are none: calls that make none come to it after sixty.
const IMAGES_FEW: f64 = 0.05;
/// Answers shorter than this are hardly worth beginning: what is left must pay for so many tokens,
const FEW_TOKENS: u64 = 16;
/// and for so many milliseconds of a GPU.
const FEW_GPU_MILLIS: u64 = 100;
/// Distances from the mean that an answer that cannot be cut off may have: hardly one in a hundred is longer.
const SPREADS: f64 = 3.0;

impl Default for Habit {
    /// English prose in JSON is four bytes a token; the median answer of public conversation traces is near 256.
    fn default() -> Self {
        Self {
            bytes: 4_000.0,
            tokens: 1_000.0,
            mean: 256.0,
            spread: 128.0,
            images: IMAGES_FIRST,
            gpu: GPU_FIRST,
            gpu_spread: GPU_FIRST_SPREAD,
            heard: 0.0,
            spoken: 0.0,
        }
    }
}

impl Habit {
    /// What a call will likely be, and the least that is worth beginning. Of what can be cut off the likeliest, for more can
    /// be reserved while it flows; else what it will rarely exceed.
    pub(super) fn guess(&self, ask: &Ask<'_>) -> (Guess, Guess) {
        // Some backends take a bound of zero for none.
        let most = ask.output_max.map_or(u64::MAX, |max| if max.0 == 0 { u64::MAX } else { max.0 });
        let each = if ask.answers { self.output(ask.streams).min(most) } else { 0 };
        let gpu_millis = if ask.gpus { self.gpu_millis(ask.streams) } else { 0 };
        let of = |each: u64, gpu_millis: u64| {
            let (input, output) = (self.input(ask.bytes), each.saturating_mul(u64::from(ask.choices.max(1))));
            let part = |whole: u64, part: f64| Tokens((whole as f64 * part).round() as u64);
            let usage = Usage {
                input: Tokens(input),
                audio_input: part(input, self.heard),
                output: Tokens(output),
                audio_output: part(output, self.spoken),
                images: if ask.answers { self.images() } else { 0 },
                estimated: true,
                ..Usage::default()
            };
            Guess { usage, gpu_millis }
        };
        (of(each, gpu_millis), of(each.min(FEW_TOKENS), gpu_millis.min(FEW_GPU_MILLIS)))
    }

    /// Tokens of a prompt of so many bytes.
    fn input(&self, bytes: usize) -> u64 {
        (bytes as f64 * self.tokens / self.bytes).ceil() as u64
    }

    /// Tokens of an answer: the likeliest where more can be reserved while it flows, else what it will rarely exceed.
    fn output(&self, streams: bool) -> u64 {
        let high = if streams { 0.0 } else { SPREADS * self.spread };
        (self.mean + high).ceil() as u64
    }

    /// GPU time of a call, as long as its answer is.
    fn gpu_millis(&self, streams: bool) -> u64 {
        let high = if streams { 0.0 } else { SPREADS * self.gpu_spread };
        (self.gpu + high).ceil() as u64
    }

    /// Images of an answer.
    fn images(&self) -> u32 {
        (self.images - IMAGES_FEW).ceil() as u32
    }

    /// How long a call took and how many images came of it, which is known of every answer.
    pub(super) fn learn_made(&mut self, images: u32, gpu_millis: u64) {
        self.images += NEW * (f64::from(images.min(IMAGES_MAX)) - self.images);
        if gpu_millis > 0 {
            let off = gpu_millis.min(GPU_MILLIS_MAX) as f64 - self.gpu;
            self.gpu_spread += NEW * (off.abs() - self.gpu_spread);
            self.gpu += NEW * off;
        }
    }

    /// What one with so many answers turned out to be.
    pub(super) fn learn(&mut self, bytes: usize, usage: &Usage, choices: u16) {
        let part = |part: Tokens, whole: Tokens| part.0.min(whole.0) as f64 / whole.0 as f64;
        if usage.input.0 > 0 && bytes > 0 {
            let bytes = bytes as f64;
            let tokens = (usage.input.0 as f64).clamp(bytes / BYTES_PER_TOKEN.end(), bytes / BYTES_PER_TOKEN.start());
            self.bytes += NEW * (bytes - self.bytes);
            self.tokens += NEW * (tokens - self.tokens);
            self.heard += NEW * (part(usage.audio_input, usage.input) - self.heard);
        }
        if usage.output.0 > 0 {
            let each = usage.output.0 / u64::from(choices.max(1));
            let off = each.min(OUTPUT_MAX) as f64 - self.mean;
            self.spread += NEW * (off.abs() - self.spread);
            self.mean += NEW * off;
            self.spoken += NEW * (part(usage.audio_output, usage.output) - self.spoken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_gpu_time_are_learned() {
        let mut habit = Habit::default();
        assert_eq!((habit.images(), habit.gpu_millis(true), habit.gpu_millis(false)), (1, 1_000, 2_500));
        (0..300).for_each(|_| habit.learn_made(3, 40));
        assert_eq!(habit.images(), 3);
        assert!((40..=42).contains(&habit.gpu_millis(true)), "{habit:?}");
        (0..300).for_each(|_| habit.learn_made(0, 0));
        assert_eq!(habit.images(), 0, "and that none come");
        assert!(habit.gpu_millis(true) >= 40, "no time is what was not measured");
        (0..300).for_each(|_| habit.learn_made(u32::MAX, u64::MAX));
        assert!(habit.images() <= IMAGES_MAX && habit.gpu_millis(true) <= GPU_MILLIS_MAX);
    }

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
