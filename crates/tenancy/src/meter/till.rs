//! What all attempts are charged with, through all configs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kernel::random::Random;
use kernel::sight::{Gauges, Sample};
use kernel::store::Daybook;
use kernel::store::ledger::PostingId;
use kernel::{Moment, Timestamp};

use crate::tokens::{Reading, Tokenizers};
use crate::{Catalogue, Purse};

/// When to come back where the daybook is full.
pub(super) const SOON: Duration = Duration::from_secs(5);

/// Purse, daybook and catalogue.
pub struct Till {
    pub(super) purse: Arc<Purse>,
    pub(super) daybook: Arc<dyn Daybook>,
    /// The prices in force; put another catalogue in place at any time.
    pub catalogue: ArcSwap<Catalogue>,
    /// Tokenizers of the models that have their own; put others in place at any time.
    pub tokenizers: ArcSwap<Tokenizers>,
    pub(super) reading: Reading,
    random: [Random; 2],
    /// Whether Sluice is stopping: what breaks off now is not its client's doing.
    pub(super) stopping: AtomicBool,
    full: AtomicU64,
    estimated: AtomicU64,
}

impl Till {
    /// A till with no prices yet.
    pub fn new(purse: Arc<Purse>, daybook: Arc<dyn Daybook>, reading: Reading) -> Arc<Self> {
        let random = [0, 1].map(|nth| Random::seeded(seed().wrapping_add(nth)));
        Arc::new(Self {
            purse,
            daybook,
            catalogue: ArcSwap::default(),
            tokenizers: ArcSwap::default(),
            reading,
            random,
            stopping: AtomicBool::new(false),
            full: AtomicU64::new(0),
            estimated: AtomicU64::new(0),
        })
    }

    /// From now on answers that break off are broken off by Sluice itself.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The id of a new attempt: a UUID of version 7. Made here and not by the library, which asks the system for chance
    /// each time.
    pub(super) fn id(&self, at: Timestamp) -> PostingId {
        let [high, low] = &self.random;
        let chance = (u128::from(high.next()) << 64 | u128::from(low.next())).to_le_bytes();
        let bytes = chance.first_chunk::<10>().copied().unwrap_or_default();
        let millis = u64::try_from(at.millis()).unwrap_or(0);
        PostingId(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    pub(super) fn count_full(&self) {
        self.full.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_estimated(&self) {
        self.estimated.fetch_add(1, Ordering::Relaxed);
    }
}

impl Gauges for Till {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let mut show = |name, help, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed) as f64;
            to(Sample { name, help, counter: true, labels: Vec::new(), value });
        };
        show("sluice_daybook_refused_total", "Calls refused because the daybook is full.", &self.full);
        show("sluice_charges_estimated_total", "Charges whose tokens Sluice had to count itself.", &self.estimated);
        self.purse.show(to);
    }
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    // Without system randomness ids are still unique in this process: they count on from the clock.
    if getrandom::fill(&mut seed).is_err() {
        seed = (Moment::now().as_micros() ^ Timestamp::now().millis().unsigned_abs()).to_le_bytes();
    }
    u64::from_le_bytes(seed)
}
