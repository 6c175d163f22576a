//! Whoever reads the daybook and keeps the ledger.
//!
//! Works beside the calls, in batches, and again and again until a batch is posted: a ledger that is down or hung holds up
//! nobody but it. After a crash it first posts what the earlier process has left, and closes what was open then. It also
//! brings to the purse what the ledger knows, between two batches, so that the two never count a charge twice. Every step
//! can be repeated: what was posted already is known to the ledger by its id. So a step that breaks down (a fault of this
//! program or of a driver) is taken again as well.

mod desk;
mod guard;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use kernel::Timestamp;
use kernel::sight::{Gauges, Sample};
use kernel::store::ledger::{Batch, Charge, Ledger};
use kernel::store::{Daybook, Fault};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::desk::Desk;
use crate::Purse;
use crate::purse::loading::Pace;

/// How often the daybook is looked at when all of it is posted: what comes meanwhile is posted in one transaction, which
/// costs a store hardly more than one charge does.
const TICK: Duration = Duration::from_millis(50);
/// Bound: bytes read at once: about a thousand charges, which a ledger takes in one transaction of some tens of milliseconds.
const PAGE: usize = 512 << 10;
/// Bound: how long a ledger may take for a batch before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bound: charges that a ledger is given at once however slow it is: fewer would not take it less time.
const PORTION_MIN: usize = 64;
/// How long to wait after a failure: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Bound: how long Sluice waits at its end for a ledger to take the rest, the batch that is under way included. What it
/// does not take is posted after the next start.
const LAST: Duration = Duration::from_secs(3);

/// Posts what is in a daybook.
pub struct Bookkeeper {
    daybook: Arc<dyn Daybook>,
    ledger: Arc<dyn Ledger>,
    purse: Arc<Purse>,
    /// How bringing to the purse what the ledger knows goes.
    pace: Mutex<Pace>,
    posted: AtomicU64,
    failures: AtomicU64,
    rejected: AtomicU64,
    killed: AtomicU64,
    open: AtomicU64,
    waiting: AtomicU64,
    /// When the oldest charge that waits to be posted ended; 0: none waits.
    oldest: AtomicI64,
}

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Something was done, and there may be more.
    Went,
    /// There is nothing to do.
    Idle,
    /// The ledger did not take what it was given.
    Failed(Fault),
}

impl Bookkeeper {
    /// A bookkeeper between a daybook and a ledger.
    pub fn new(daybook: Arc<dyn Daybook>, ledger: Arc<dyn Ledger>, purse: Arc<Purse>) -> Arc<Self> {
        Arc::new(Self {
            daybook,
            ledger,
            purse,
            pace: Mutex::default(),
            posted: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            killed: AtomicU64::new(0),
            open: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            oldest: AtomicI64::new(0),
        })
    }

    /// Works until told to stop, then posts what is left, if that can be done soon.
    ///
    /// # Panics
    /// When it broke down over a page of the daybook: what it has read of it is then not known, and only the next start
    /// reads it again. Whoever runs this must end the process.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let mut desk = Desk::default();
        let mut rhythm = Rhythm::new();
        let mut stop = std::pin::pin!(stop);
        let until = loop {
            let mut turn = std::pin::pin!(self.careful(&mut desk, &mut rhythm));
            let rest = tokio::select! {
                biased;
                () = &mut stop => {
                    let until = Instant::now() + LAST;
                    // A batch that is under way is brought to its end: given up, it would have to be posted once more.
                    let _ = timeout_at(until, turn).await;
                    break until;
                }
                rest = &mut turn => rest,
            };
            tokio::select! {
                biased;
                () = &mut stop => break Instant::now() + LAST,
                () = tokio::time::sleep(rest) => {}
            }
        };
        let last = async { while self.step(&mut desk).await == Step::Went {} };
        if timeout_at(until, last).await.is_err() {
            tracing::warn!("the store did not take what was left: it is posted after the next start");
        }
    }

    /// A turn that is taken again when it breaks down, as long as it is known what has been read.
    async fn careful(&self, desk: &mut Desk, rhythm: &mut Rhythm) -> Duration {
        let fault = match guard::guarded(self.turn(desk, rhythm)).await {
            Ok(rest) => return rest,
            Err(fault) => fault,
        };
        if desk.torn {
            std::panic::resume_unwind(fault);
        }
        let wait = rhythm.failed();
        self.failures.fetch_add(1, Ordering::Relaxed);
        let fault = guard::said(&*fault);
        tracing::error!(fault, again_in = ?wait, "posting charges broke down: they are kept in the daybook");
        wait
    }

    /// One round; gives how long to rest after it.
    async fn turn(&self, desk: &mut Desk, rhythm: &mut Rhythm) -> Duration {
        let mut rest = match self.step(desk).await {
            Step::Went if desk.caught_up() => TICK,
            Step::Went => Duration::ZERO,
            Step::Idle => TICK,
            Step::Failed(fault) => {
                let wait = rhythm.failed();
                tracing::warn!(%fault, again_in = ?wait, "charges could not be posted: they are kept in the daybook");
                return wait;
            }
        };
        rhythm.backoff = BACKOFF_MIN;
        // Only between batches do the ledger and what is not posted add up.
        let (all, put_off) = {
            let pace = self.pace.lock().await;
            (pace.refresh_due(), pace.has_due())
        };
        let anybody = all || put_off || self.purse.unknown() > 0;
        if desk.between()
            && anybody
            && let Err(fault) = self.load(all).await
        {
            rest = rhythm.failed();
            tracing::warn!(%fault, again_in = ?rest, "what tenants have spent could not be read from the store");
        }
        rest
    }

    /// Brings to the purse what the ledger knows: of some tenants nothing is known of yet, or of those that call again.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn load(&self, all: bool) -> Result<(), Fault> {
        let mut pace = self.pace.lock().await;
        let loaded = self.purse.load_at(&mut pace, &*self.ledger, all).await;
        if loaded.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        loaded
    }

    /// Posts a part of what waits, or reads on where nothing does.
    pub async fn step(&self, desk: &mut Desk) -> Step {
        let stepped = self.try_step(desk).await;
        self.open.store(desk.open() as u64, Ordering::Relaxed);
        self.waiting.store(desk.waiting.len() as u64, Ordering::Relaxed);
        self.oldest.store(desk.waiting.front().map_or(0, |charge| charge.at.millis()), Ordering::Relaxed);
        stepped
    }

    async fn try_step(&self, desk: &mut Desk) -> Step {
        if !desk.waiting.is_empty() {
            return self.post(desk).await;
        }
        if let Some(mark) = desk.done() {
            if let Err(fault) = self.finish(desk, mark) {
                return Step::Failed(Fault::Broken(format!("the daybook: {fault}")));
            }
            return Step::Went;
        }
        desk.torn = true;
        let page = match desk.held().map_or_else(|| self.daybook.read(PAGE), Ok) {
            Ok(page) => page,
            Err(fault) => {
                desk.torn = false;
                return Step::Failed(Fault::Broken(format!("the daybook: {fault}")));
            }
        };
        let empty = page.entries.is_empty() && !page.past;
        let killed = desk.take(page);
        desk.torn = false;
        self.killed.fetch_add(killed, Ordering::Relaxed);
        if empty && desk.waiting.is_empty() && !desk.unfinished() { Step::Idle } else { Step::Went }
    }

    /// Posts what waits, or less where a whole batch is not understood.
    async fn post(&self, desk: &mut Desk) -> Step {
        let charges: Vec<Charge> = desk.waiting.iter().take(desk.portion).cloned().collect();
        let transfers = charges.iter().filter_map(Charge::transfer).collect();
        let batch = Batch { charges, transfers };
        let posting = timeout(PATIENCE, self.ledger.post(&batch));
        let count = batch.charges.len();
        match posting.await.unwrap_or_else(|_| Err(hung())) {
            Ok(_) => {
                if !desk.past {
                    self.purse.posted(&batch.charges);
                }
                self.posted.fetch_add(count as u64, Ordering::Relaxed);
                desk.posted(count);
                Step::Went
            }
            Err(Fault::Down(why)) => {
                // It may be so slow that it takes only so many in its time.
                desk.portion = (count / 2).max(PORTION_MIN);
                self.purse.ledger_failed(true);
                self.failures.fetch_add(1, Ordering::Relaxed);
                Step::Failed(Fault::Down(why))
            }
            // Again would bring the same: the one that is not taken is looked for, so that the others are.
            Err(_) if count > 1 => {
                desk.portion = count / 2;
                Step::Went
            }
            Err(fault) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                self.rejected.fetch_add(1, Ordering::Relaxed);
                if let Some(charge) = batch.charges.first() {
                    tracing::error!(
                        %fault, id = %charge.id, tenant = %charge.tenant, model = %charge.model,
                        amount = %charge.amount, currency = %charge.currency, at = charge.at.millis(),
                        input = charge.usage.input.0, output = charge.usage.output.0,
                        "the store refuses a charge: it is left out of the ledger"
                    );
                }
                desk.posted(1);
                Step::Went
            }
        }
    }

    /// What was read is posted: the daybook may forget it, but for what is open still.
    fn finish(&self, desk: &mut Desk, mark: u64) -> std::io::Result<()> {
        self.daybook.posted(mark)?;
        let backlog = self.daybook.backlog();
        // Calls that take long hold on to files that are done with: beyond a quarter of the room they are copied on.
        if backlog.files > backlog.most / 4 {
            desk.carry(|draft, progress| self.daybook.carry(draft, progress).is_ok());
        }
        self.daybook.release(desk.needed().unwrap_or(u64::MAX).saturating_sub(1).min(mark))?;
        desk.finished();
        Ok(())
    }
}

impl Gauges for Bookkeeper {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let backlog = self.daybook.backlog();
        let oldest = self.oldest.load(Ordering::Relaxed);
        let age = if oldest == 0 { 0 } else { (Timestamp::now().millis() - oldest).max(0) };
        let mut show = |name, help, counter, value| to(Sample { name, help, counter, labels: Vec::new(), value });
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        show("sluice_daybook_backlog_bytes", "Bytes in the daybook that are not posted.", false, backlog.bytes as f64);
        show("sluice_daybook_files_bytes", "Bytes that the daybook's files take.", false, backlog.files as f64);
        show("sluice_daybook_files_max_bytes", "Bytes that they may take.", false, backlog.most as f64);
        show("sluice_daybook_open_attempts", "Attempts that are not closed.", false, get(&self.open));
        show("sluice_ledger_waiting_charges", "Charges read and not posted.", false, get(&self.waiting));
        let help = "How long the oldest charge has waited to be posted.";
        show("sluice_ledger_oldest_seconds", help, false, age as f64 / 1000.0);
        show("sluice_ledger_posted_total", "Charges posted.", true, get(&self.posted));
        show(
            "sluice_ledger_failures_total",
            "Times that the store did not do what it was asked.",
            true,
            get(&self.failures),
        );
        show("sluice_ledger_rejected_total", "Charges that the store refuses for good.", true, get(&self.rejected));
        show(
            "sluice_ledger_killed_total",
            "Calls charged that a killed process had left open.",
            true,
            get(&self.killed),
        );
    }
}

/// When what is due next.
struct Rhythm {
    backoff: Duration,
}

impl Rhythm {
    fn new() -> Self {
        Self { backoff: BACKOFF_MIN }
    }

    /// How long to wait after a failure: twice as long each time.
    fn failed(&mut self) -> Duration {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(BACKOFF_MAX);
        wait
    }
}

fn hung() -> Fault {
    Fault::Down(format!("no answer within {} s", PATIENCE.as_secs()))
}

#[cfg(test)]
mod tests;
