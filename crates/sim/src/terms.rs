//! The settings and the headers of one call, settled into what holds for it.

use std::time::Duration;

use crate::overrides::Overrides;
use crate::random::Random;
use crate::refusal::Refusal;
use crate::settings::{MAX_DIMENSIONS, MAX_OUTPUT, MAX_WAIT_MS, Settings, is_speed};

/// What holds for one call.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Seed of what is said. What happens (waits, faults, ids) is drawn from `chance`.
    pub(crate) seed: u64,
    pub(crate) dimensions: u64,
    /// Differs from call to call, so that equal calls can fare differently; repeats under `x-sim-seed`.
    pub(crate) chance: Random,
    output_tokens: u64,
    ttft: Duration,
    interval: Duration,
    jitter: f64,
}

/// The waits before each token, without end.
#[derive(Debug)]
pub(crate) struct Pace {
    first: Option<Duration>,
    interval: Duration,
    jitter: f64,
    random: Random,
}

// === impl Terms ===

impl Terms {
    /// `arrival` numbers the calls of one engine.
    pub(crate) fn new(settings: &Settings, overrides: &Overrides, arrival: u64) -> Self {
        let speed = overrides.tokens_per_second.unwrap_or(settings.tokens_per_second);
        let interval = if is_speed(speed) && speed > 0.0 { 1.0 / speed } else { 0.0 };
        let chance = match overrides.seed {
            Some(seed) => Random::of(seed, u64::MAX),
            None => Random::of(settings.seed, arrival),
        };
        Self {
            seed: overrides.seed.unwrap_or(settings.seed),
            dimensions: settings.dimensions.clamp(1, MAX_DIMENSIONS),
            chance,
            output_tokens: overrides.output_tokens.unwrap_or(settings.output_tokens).clamp(1, MAX_OUTPUT),
            ttft: Duration::from_millis(overrides.ttft_ms.unwrap_or(settings.ttft_ms).min(MAX_WAIT_MS)),
            interval: Duration::from_secs_f64(interval),
            jitter: if settings.jitter.is_finite() { settings.jitter.clamp(0.0, 1.0) } else { 0.0 },
        }
    }

    /// The length of each of `choices` answers and why it ends there, given what the caller allows.
    pub(crate) fn length(&self, allowed: Option<u64>, choices: u64) -> Result<(u64, &'static str), Refusal> {
        let (tokens, finish) = match allowed {
            Some(allowed) if allowed < self.output_tokens => (allowed, "length"),
            _ => (self.output_tokens, "stop"),
        };
        if tokens.saturating_mul(choices) > MAX_OUTPUT {
            let message = format!("{choices} answers of {tokens} tokens are more than {MAX_OUTPUT} tokens");
            return Err(Refusal::invalid("n", message));
        }
        Ok((tokens, finish))
    }

    pub(crate) fn pace(&mut self) -> Pace {
        let random = Random::of(self.chance.draw(), 0);
        Pace { first: Some(self.ttft), interval: self.interval, jitter: self.jitter, random }
    }

    pub(crate) fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{:016x}", self.chance.draw())
    }
}

// === impl Pace ===

impl Pace {
    pub(crate) fn wait(&mut self) -> Duration {
        let mean = self.first.take().unwrap_or(self.interval);
        // Invariant: the factor is 0 to 2, so the product is finite and not negative.
        mean.mul_f64(1.0 + self.jitter * (2.0 * self.random.fraction() - 1.0))
    }

    /// The wait for this many tokens together.
    pub(crate) fn total(mut self, tokens: u64) -> Duration {
        (0..tokens).map(|_| self.wait()).sum()
    }
}
