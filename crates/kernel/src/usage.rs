//! Token counts.

/// A number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Tokens(pub u64);

/// What one call consumed, by class. The classes nest as providers report them: what was cached, written to a cache or
/// heard is part of `input`; what was thought or spoken is part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: Tokens,
    /// Prompt tokens the backend read from its prefix cache.
    pub cached: Tokens,
    /// Prompt tokens the backend wrote to a cache that is paid for.
    pub cache_write: Tokens,
    /// Prompt tokens of sound.
    pub audio_input: Tokens,
    /// Generated tokens, reasoning included.
    pub output: Tokens,
    /// Generated tokens the model spent thinking.
    pub reasoning: Tokens,
    /// Generated tokens of sound.
    pub audio_output: Tokens,
    /// Images generated.
    pub images: u32,
    /// True when counted by Sluice because the backend did not say (an aborted stream, a server without usage).
    pub estimated: bool,
}

impl Usage {
    /// Both together; whether they were estimated is left open.
    #[must_use]
    pub const fn and(&self, other: &Self) -> Self {
        const fn sum(a: Tokens, b: Tokens) -> Tokens {
            Tokens(a.0.saturating_add(b.0))
        }
        Self {
            input: sum(self.input, other.input),
            cached: sum(self.cached, other.cached),
            cache_write: sum(self.cache_write, other.cache_write),
            audio_input: sum(self.audio_input, other.audio_input),
            output: sum(self.output, other.output),
            reasoning: sum(self.reasoning, other.reasoning),
            audio_output: sum(self.audio_output, other.audio_output),
            images: self.images.saturating_add(other.images),
            estimated: false,
        }
    }

    /// Read and generated together: what limits and included tokens count.
    pub const fn total(&self) -> Tokens {
        Tokens(self.input.0.saturating_add(self.output.0))
    }
}
