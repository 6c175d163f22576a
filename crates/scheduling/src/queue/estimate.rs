//! How large a call will be, learned from those before it.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use kernel::{Call, TenantId, Tokens, Usage};

use crate::line::Cost;
use crate::settings::TokenWeights;

/// What calls of one deployment turned out to be.
#[derive(Debug)]
pub(crate) struct Estimator {
    /// Bytes of prompt, as JSON, and tokens that they turned out to be. Sums, so that a prompt counts by its length: the
    /// JSON around short ones says nothing about long ones.
    bytes: f64,
    tokens: f64,
    /// Answers of all tenants.
    all: Length,
    tenants: HashMap<TenantId, Length, FixedState>,
}

/// The length of answers, in tokens: mean, and mean distance from it.
#[derive(Debug, Clone, Copy)]
struct Length {
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
}

/// What one call counts: the last twenty or so decide.
const NEW: f64 = 0.05;
/// English prose in JSON is four bytes a token; other languages and code are learned.
const FIRST_BYTES: f64 = 4_000.0;
const FIRST_TOKENS: f64 = 1_000.0;
/// What is believed before the first answer: the median of public conversation traces is near it.
const FIRST: Length = Length { mean: 256.0, spread: 128.0 };
/// Bound: tenants with a length of their own; others are estimated from all.
const TENANTS_MAX: usize = 10_000;

impl Default for Estimator {
    fn default() -> Self {
        Self { bytes: FIRST_BYTES, tokens: FIRST_TOKENS, all: FIRST, tenants: HashMap::default() }
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
        let length = self.tenants.get(tenant).unwrap_or(&self.all);
        let most = output_max.map_or(u64::MAX, |max| max.0);
        let output = if answers { length.mean } else { 0.0 };
        let high = if output > 0.0 { output + 3.0 * length.spread } else { 0.0 };
        Estimate {
            input: (bytes as f64 * self.tokens / self.bytes).ceil() as u64,
            output: (output.ceil() as u64).min(most),
            output_high: (high.ceil() as u64).min(most),
        }
    }

    /// What a call turned out to be.
    pub(crate) fn learn(&mut self, tenant: &TenantId, bytes: usize, usage: &Usage) {
        if usage.estimated {
            return;
        }
        if usage.input.0 > 0 && bytes > 0 {
            self.bytes += NEW * (bytes as f64 - self.bytes);
            self.tokens += NEW * (usage.input.0 as f64 - self.tokens);
        }
        // Embeddings have no answer in tokens.
        if usage.output.0 == 0 {
            return;
        }
        self.all.learn(usage.output.0);
        if let Some(length) = self.tenants.get_mut(tenant) {
            length.learn(usage.output.0);
        } else if self.tenants.len() < TENANTS_MAX {
            let mut length = self.all;
            length.learn(usage.output.0);
            self.tenants.insert(tenant.clone(), length);
        }
    }
}

impl Length {
    fn learn(&mut self, tokens: u64) {
        let off = tokens as f64 - self.mean;
        self.spread += NEW * (off.abs() - self.spread);
        self.mean += NEW * off;
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
    ((weights.input * input + weights.cached * cached + weights.output * output) * 1000.0) as Cost + 1
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
            forward: Arc::new([]),
        }
    }

    fn used(input: u64, output: u64) -> Usage {
        Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
    }

    #[test]
    fn the_length_of_answers_is_learned_per_tenant_and_bounded_by_what_the_call_says() {
        let (mut estimator, long, new) = (Estimator::default(), TenantId::new("long"), TenantId::new("new"));
        assert_eq!(estimator.estimate(&new, &call(400, None)), Estimate { input: 100, output: 256, output_high: 640 });
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
    fn kinds_of_tokens_count_by_their_weights() {
        let weights = TokenWeights { input: 1.0, cached: 0.1, output: 2.0 };
        let usage = Usage { cached: Tokens(900), ..used(1_000, 50) };
        assert_eq!(cost(&usage, &weights), 290_001);
        assert_eq!(cost(&Usage::default(), &weights), 1);
    }
}
