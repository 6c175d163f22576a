//! Waiting for something to become true, with a bound.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the condition is looked at: short beside every time-out a test asserts.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks at `condition` until it holds or `within` has passed; tells whether it held.
#[must_use]
pub async fn eventually(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}
