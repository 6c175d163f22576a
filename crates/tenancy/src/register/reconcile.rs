//! The rounds: seed the store, read what others wrote, tell it which keys were used.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::Timestamp;
use kernel::store::Fault;

use super::{Register, Taking, copy, seed};

/// How often the store is told which keys were used.
const USED_EVERY: Duration = Duration::from_secs(10);
/// Bound: keys told of in one statement.
const USED_BATCH: usize = 500;
/// How often the copy in the data directory is written at most: with very many keys it takes a while.
const COPY_EVERY: Duration = Duration::from_secs(10);
/// Bound: for the store at the start where a copy says who was known last; calls are answered by that after it.
const START_WITHIN: Duration = Duration::from_secs(2);
/// Bound: for the store at the start where nothing else knows. A file with very many keys takes some seconds to read.
const START_ALONE_WITHIN: Duration = Duration::from_secs(30);

impl Register {
    /// The first round, bounded. If the store does not answer, what was known last is put in force.
    pub async fn begin(self: &Arc<Self>) {
        let within = if self.copy.is_some() { START_WITHIN } else { START_ALONE_WITHIN };
        let fault = match tokio::time::timeout(within, self.round()).await {
            Ok(Ok(())) => return,
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => format!("no answer within {} s", within.as_secs()),
        };
        tracing::warn!(%fault, "the store did not say who there is: starting with what was known last");
        let Some(path) = self.copy.clone() else { return };
        match copy::read(&path) {
            Ok(Some(snapshot)) => {
                let taking = Mutex::new(Taking::new(self.declared()));
                snapshot.give(&|part| taking.lock().unwrap_or_else(PoisonError::into_inner).add(part, self.pepper()));
                // Whatever the store says later is new.
                self.take_blocking(taking.into_inner().unwrap_or_else(PoisonError::into_inner), None).await;
            }
            Ok(None) => tracing::warn!("nothing was known last: only who the config declares is let in"),
            Err(fault) => tracing::error!(%fault, path = %path.display(), "the copy of who there is cannot be read"),
        }
    }

    /// Rounds for as long as the process runs.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self: Arc<Self>) -> std::io::Result<()> {
        let mut failing = false;
        let (mut told, mut copied) = (tokio::time::Instant::now(), None);
        loop {
            // Whether its time has come or it was woken is the same to it.
            let _ = tokio::time::timeout(self.refresh, self.wake.notified()).await;
            match self.round().await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the store answers again");
                }
                Err(fault) if !failing => {
                    failing = true;
                    tracing::warn!(%fault, "the store does not answer: going on with who is known");
                }
                Ok(()) | Err(_) => {}
            }
            if !failing && told.elapsed() >= USED_EVERY {
                told = tokio::time::Instant::now();
                if let Err(fault) = self.tell_used().await {
                    tracing::warn!(%fault, "the store was not told which keys were used");
                }
            }
            self.copy(&mut copied).await;
        }
    }

    /// One round now, after a change made here.
    pub(super) async fn refresh(self: &Arc<Self>) {
        if let Err(fault) = self.round().await {
            tracing::warn!(%fault, "a change is in the store, but not in force here yet");
            self.wake.notify_one();
        }
    }

    /// Tells the store which keys were used since it was last told.
    ///
    /// # Errors
    /// What the store says.
    pub async fn tell_used(&self) -> Result<(), Fault> {
        let until = u32::try_from(Timestamp::now().millis() / 1000).unwrap_or(u32::MAX);
        let used = self.directory.load().used_since(self.collected.load(Ordering::Relaxed));
        for batch in used.chunks(USED_BATCH) {
            self.store.used(batch).await?;
        }
        // The second that runs is told again next time: a key may still be used in it.
        self.collected.store(until, Ordering::Relaxed);
        Ok(())
    }

    async fn round(self: &Arc<Self>) -> Result<(), Fault> {
        let _turn = self.turn.lock().await;
        if self.unseeded.swap(false, Ordering::AcqRel) {
            let seed = seed::seed(&self.declared(), self.pepper());
            match self.store.seed(seed).await {
                Ok(skipped) if skipped.is_empty() => {}
                Ok(skipped) => {
                    let ids = skipped.join(", ");
                    tracing::warn!(%ids, "the config declares what was made by the admin API before: the config counts here");
                }
                Err(fault) => {
                    self.unseeded.store(true, Ordering::Release);
                    return Err(fault);
                }
            }
        }
        loop {
            let taking = Mutex::new(Taking::new(self.declared()));
            let add = |part| taking.lock().unwrap_or_else(PoisonError::into_inner).add(part, self.pepper());
            let Some(revision) = self.store.parts(self.revision(), &add).await? else { break };
            let taking = taking.into_inner().unwrap_or_else(PoisonError::into_inner);
            if self.take_blocking(taking, Some(revision)).await {
                break;
            }
        }
        self.answered.store(Timestamp::now().millis(), Ordering::Relaxed);
        Ok(())
    }

    /// With very many keys it takes a while, and the control plane has one thread.
    async fn take_blocking(self: &Arc<Self>, taking: Taking, revision: Option<i64>) -> bool {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.take(taking, revision)).await.unwrap_or_else(|fault| {
            tracing::error!(%fault, "what the store keeps could not be put in force");
            true
        })
    }

    /// Writes the copy if there is something new and it is not too soon.
    async fn copy(self: &Arc<Self>, last: &mut Option<(u64, tokio::time::Instant)>) {
        let Some(path) = self.copy.clone() else { return };
        let change = *self.changed.borrow();
        let soon = last.is_some_and(|(copied, at)| copied == change || at.elapsed() < COPY_EVERY);
        if soon || self.answered.load(Ordering::Relaxed) == 0 {
            return;
        }
        *last = Some((change, tokio::time::Instant::now()));
        let (directory, tariff) = (self.directory.load_full(), self.tariff.load_full());
        let written = tokio::task::spawn_blocking(move || copy::write(&path, &directory, &tariff)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "the copy of who there is could not be written"),
            Err(fault) => tracing::error!(%fault, "the copy of who there is could not be written"),
        }
    }
}
