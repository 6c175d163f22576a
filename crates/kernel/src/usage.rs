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
    /// Read and generated together: what limits and included tokens count.
    pub const fn total(&self) -> Tokens {
        Tokens(self.input.0.saturating_add(self.output.0))
    }
}
