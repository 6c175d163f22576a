//! The question `/ready` asks.

/// Tells whether at least one model can answer right now. Reads published state only: never blocks.
pub trait Readiness: Send + Sync + 'static {
    /// True when some instance of some model is thought to be alive.
    fn ready(&self) -> bool;
}
