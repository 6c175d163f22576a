//! The clock of this crate: the process's, except in a simulation, where it is the runtime's virtual one.

#[cfg(not(test))]
use kernel::Moment;

#[cfg(not(test))]
pub(crate) fn now() -> Moment {
    Moment::now()
}

#[cfg(test)]
pub(crate) use simulated::{now, simulate};

#[cfg(test)]
mod simulated {
    use std::cell::Cell;

    use kernel::Moment;
    use tokio::time::Instant;

    thread_local! {
        static ORIGIN: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub(crate) fn now() -> Moment {
        match ORIGIN.get() {
            Some(origin) => Moment::from_micros(1_000_000) + origin.elapsed(),
            None => Moment::now(),
        }
    }

    /// From now on this thread's clock is that of the paused runtime it runs in.
    pub(crate) fn simulate() {
        ORIGIN.set(Some(Instant::now()));
    }
}
