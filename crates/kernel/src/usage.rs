//! Token counts.

/// A number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Tokens(pub u64);

/// What one call consumed, by class. The classes nest as providers report them: `cached` is part of
/// `input`, `reasoning` is part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: Tokens,
    /// Prompt tokens the backend read from its prefix cache.
    pub cached: Tokens,
    /// Generated tokens, reasoning included.
    pub output: Tokens,
    /// Generated tokens the model spent thinking.
    pub reasoning: Tokens,
    /// True when counted by Sluice because the backend did not say (an aborted stream, a server without usage).
    pub estimated: bool,
}
