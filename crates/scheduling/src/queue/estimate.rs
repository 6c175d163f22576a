//! How large a call will be, learned from those before it.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use kernel::{Call, TenantId, Tokens, Usage};

use crate::line::Cost;
use crate::settings::TokenWeights;

/// What calls of one deployment turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Estimator {
    all: Habit,
    tenants: HashMap<TenantId, Habit, FixedState>,
}

/// What calls are like.
#[derive(Debug, Clone, Copy)]
struct Habit {
    /// Bytes of prompt, as JSON, and tokens that they turned out to be. Sums, so that a prompt counts by its length: the
    /// JSON around short ones says nothing about long ones.
    bytes: f64,
    tokens: f64,
    /// Tokens of an answer: mean, and mean distance from it.
    mean: f64,
    spread: f64,
}

/// How large a call is thought to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Estimate {
    /// Tokens of its prompt.
    pub(crate) input: u64,
    /// Tokens of its answer, the likeliest.
    pub(crate) output: u64,
    /// Tokens of its answer that it will rarely exceed.
    pub(crate) output_high: u64,
    /// Tokens that it asks for in any case: no prompt has fewer, and so many it says itself that the answer may have.
    pub(crate) certain: u64,
}

/// What one call counts: the last twenty or so decide.
const NEW: f64 = 0.05;
/// Bound: more bytes no token has, on average over a prompt; and fewer than one would be pictures by address, whose
/// tokens say nothing about text.
const BYTES_PER_TOKEN: std::ops::RangeInclusive<f64> = 1.0..=16.0;
/// Bound: no answer is longer; what a backend says beyond it is not believed.
const OUTPUT_MAX: u64 = 1 << 20;
/// Bound: tenants with a habit of their own; others are estimated from all.
const TENANTS_MAX: usize = 10_000;

impl Default for Habit {
    /// English prose in JSON is four bytes a token; the median answer of public conversation traces is near 256.
    fn default() -> Self {
        Self { bytes: 4_000.0, tokens: 1_000.0, mean: 256.0, spread: 128.0 }
    }
}

impl Estimator {
    /// How large a call of this tenant will be.
    pub(crate) fn estimate(&self, tenant: &TenantId, call: &Call) -> Estimate {
        let bytes = call.payload.prompt.len() + call.payload.tools.len();
        self.of(tenant, bytes, call.output_max, call.operation != kernel::Operation::Embedding)
    }

    /// The same of a call known by its size; `answers` says whether it has an answer in tokens.
    pub(crate) fn of(&self, tenant: &TenantId, bytes: usize, output_max: Option<Tokens>, answers: bool) -> Estimate {
        let habit = self.tenants.get(tenant).unwrap_or(&self.all);
        let said = output_max.filter(|_| answers).map(|max| max.0);
        let most = said.unwrap_or(u64::MAX);
        let (output, high) = if answers { (habit.mean, habit.mean + 3.0 * habit.spread) } else { (0.0, 0.0) };
        Estimate {
            input: (bytes as f64 * habit.tokens / habit.bytes).ceil() as u64,
            output: (output.ceil() as u64).min(most),
            output_high: (high.ceil() as u64).min(most),
            certain: ((bytes as f64 / BYTES_PER_TOKEN.end()) as u64).saturating_add(said.unwrap_or(0)),
        }
    }

    /// What a call turned out to be.
    pub(crate) fn learn(&mut self, tenant: &TenantId, bytes: usize, usage: &Usage) {
        if usage.estimated {
            return;
        }
        // A newcomer is thought to be like all.
        let before = self.all;
        self.all.learn(bytes, usage);
        if let Some(habit) = self.tenants.get_mut(tenant) {
            habit.learn(bytes, usage);
        } else if self.tenants.len() < TENANTS_MAX {
            let mut habit = before;
            habit.learn(bytes, usage);
            self.tenants.insert(tenant.clone(), habit);
        }
    }
}

impl Habit {
    fn learn(&mut self, bytes: usize, usage: &Usage) {
        if usage.input.0 > 0 && bytes > 0 {
            let bytes = bytes as f64;
            let tokens = (usage.input.0 as f64).clamp(bytes / BYTES_PER_TOKEN.end(), bytes / BYTES_PER_TOKEN.start());
            self.bytes += NEW * (bytes - self.bytes);
            self.tokens += NEW * (tokens - self.tokens);
        }
        // Embeddings have no answer in tokens.
        if usage.output.0 > 0 {
            let off = usage.output.0.min(OUTPUT_MAX) as f64 - self.mean;
            self.spread += NEW * (off.abs() - self.spread);
            self.mean += NEW * off;
        }
    }
}

impl Estimate {
    /// Tokens it may occupy, prompt and answer.
    pub(crate) fn occupies(self) -> Tokens {
        Tokens(self.input.saturating_add(self.output_high))
    }

    /// What it will cost.
    pub(crate) fn cost(self, weights: &TokenWeights) -> Cost {
        price(weights, self.input as f64, 0.0, self.output as f64)
    }
}

/// What a call has cost.
pub(crate) fn cost(usage: &Usage, weights: &TokenWeights) -> Cost {
    let cached = usage.cached.0.min(usage.input.0);
    price(weights, (usage.input.0 - cached) as f64, cached as f64, usage.output.0 as f64)
}

/// The cost of so many tokens read, found in the cache, and written.
#[cfg(test)]
pub(crate) fn cost_of(weights: &TokenWeights, input: u64, cached: u64, output: u64) -> Cost {
    price(weights, input as f64, cached as f64, output as f64)
}

/// Never nothing: a call that costs nothing could be made without end.
fn price(weights: &TokenWeights, input: f64, cached: f64, output: f64) -> Cost {
    let cost = (weights.input * input + weights.cached * cached + weights.output * output) * 1000.0;
    (cost as Cost).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use kernel::{ModelName, Operation, Payload};

    use super::*;

    fn call(bytes: usize, output_max: Option<u64>) -> Call {
        let payload = Payload {
            bytes: Bytes::new(),
            model: 0..0,
            prompt: 0..bytes,
            tools: 0..0,
            force_usage: None,
            blocks: Default::default(),
        };
        Call {
            model: ModelName::new("m"),
            operation: Operation::Chat,
            stream: false,
            wants_usage: true,
            payload: Arc::new(payload),
            affinity: None,
            output_max: output_max.map(Tokens),
            choices: 1,
            forward: Arc::new([]),
            plain: None,
        }
    }

    fn used(input: u64, output: u64) -> Usage {
        Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
    }

    #[test]
    fn the_length_of_answers_is_learned_per_tenant_and_bounded_by_what_the_call_says() {
        let (mut estimator, long, new) = (Estimator::default(), TenantId::new("long"), TenantId::new("new"));
        let first = Estimate { input: 100, output: 256, output_high: 640, certain: 25 };
        assert_eq!(estimator.estimate(&new, &call(400, None)), first);
        for _ in 0..200 {
            estimator.learn(&long, 300, &used(100, 2_000));
        }
        let estimate = estimator.estimate(&long, &call(300, None));
        assert_eq!((estimate.input, estimate.output), (100, 2_000));
        assert!((2_000..2_100).contains(&estimate.output_high), "{estimate:?}");
        assert_eq!(estimator.estimate(&long, &call(300, Some(50))).output_high, 50);
        assert_eq!(estimator.estimate(&new, &call(300, None)).output, 2_000, "a newcomer is thought to be like all");
    }

    #[test]
    fn short_prompts_say_little_about_long_ones() {
        let (mut estimator, tenant) = (Estimator::default(), TenantId::new("t"));
        for _ in 0..10 {
            // "Hello" is a token or two in sixty bytes of JSON.
            estimator.learn(&tenant, 60, &used(2, 10));
            estimator.learn(&tenant, 30_000, &used(10_000, 10));
        }
        let estimate = estimator.estimate(&tenant, &call(9_000, None));
        assert!((2_800..3_300).contains(&estimate.input), "{estimate:?}");
    }

    #[test]
    fn what_one_tenant_sends_makes_no_other_tenants_calls_impossible() {
        let (mut estimator, odd, other) = (Estimator::default(), TenantId::new("odd"), TenantId::new("other"));
        // Pictures by address: many tokens in few bytes; and a backend that counts nonsense.
        for _ in 0..100 {
            estimator.learn(&odd, 60, &used(1_500, 3_900));
            estimator.learn(&odd, 60, &used(u64::MAX, u64::MAX));
        }
        let estimate = estimator.estimate(&other, &call(8_000, Some(100)));
        assert!(estimate.input <= 8_000 && estimate.output_high <= 100, "{estimate:?}");
        assert_eq!(estimate.certain, 600, "that much is sure, whatever others did");
        assert_eq!(cost(&used(u64::MAX, u64::MAX), &TokenWeights::default()), u64::MAX);
    }

    #[test]
    fn kinds_of_tokens_count_by_their_weights() {
        let weights = TokenWeights { input: 1.0, cached: 0.1, output: 2.0 };
        let usage = Usage { cached: Tokens(900), ..used(1_000, 50) };
        assert_eq!(cost(&usage, &weights), 290_001);
        assert_eq!(cost(&Usage::default(), &weights), 1);
    }
}
