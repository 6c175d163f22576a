//! Stopping: told by a signal, finished within a grace time.

use std::time::Duration;

use access::{Cores, Door};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::ShutdownSettings;

/// How often the door is looked at while it empties.
const LOOK: Duration = Duration::from_millis(20);
/// After the grace time: for the last error events to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The signals that mean stop; taken hold of before anything is served.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(crate) fn take() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for one.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits for a signal to stop; for programs with nothing to finish.
pub(crate) async fn asked() {
    match Signals::take() {
        Ok(mut signals) => signals.asked().await,
        Err(fault) => {
            tracing::error!(%fault, "cannot listen for signals");
            std::future::pending().await
        }
    }
}

/// Empties the house. A second signal cuts every wait short. `closing` is called before those who are still inside must
/// leave.
pub(crate) async fn finish(
    settings: &ShutdownSettings,
    door: &Door,
    cores: &Cores,
    accepting: &CancellationToken,
    signals: &mut Signals,
    closing: impl FnOnce(),
) {
    tracing::info!(inside = door.inside(), "stopping");
    door.drain();
    let leave = async {
        tokio::time::sleep(settings.delay_ms.duration()).await;
        accepting.cancel();
        cores.drain();
        if !empty(door, cores, settings.grace_ms.duration()).await {
            tracing::warn!(inside = door.inside(), "the grace time is over: what is left ends with an error");
        }
    };
    tokio::select! {
        () = leave => {}
        () = signals.asked() => tracing::warn!("asked twice: not waiting any longer"),
    }
    accepting.cancel();
    closing();
    door.close();
    empty(door, cores, LAST_WORDS).await;
}

/// Waits until nobody is inside and the last bytes are out; false when it takes too long.
async fn empty(door: &Door, cores: &Cores, within: Duration) -> bool {
    let until = tokio::time::Instant::now() + within;
    while door.inside() > 0 || cores.connections() > 0 {
        if tokio::time::Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
