//! The daybook on the local disk: a driver of [`kernel::store::Daybook`].
//!
//! Each data-plane core appends to a file of its own, through memory: an entry costs a copy and no system call, and is
//! safe from a killed process at once. A thread brings it to the disk every few milliseconds, against loss of power, and
//! prepares the files to come. Files are made at their full size, so that a full disk shows when a file is made and never
//! in the middle of an entry. Knows nothing of what entries mean.

mod codec;
mod map;
mod place;
mod reading;
mod sheet;
mod words;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::store::daybook::{Backlog, Entry, Full, Page, Progress};
use kernel::store::ledger::{Charge, PostingId};
use kernel::{Timestamp, core};

use self::place::Place;
use self::reading::Reading;
use self::sheet::{HEAD, Pen, Sheet, frame};

/// How often what was written is brought to the disk: what a loss of power can cost. Each time the pages written to are
/// taken from the writers, who take them back at their next entry: more often costs every call.
const SYNC: Duration = Duration::from_millis(8);
/// Bound: a file. Larger ones would hold what is posted for longer, and take their room even where little is written.
const SHEET_MAX: u64 = 4 << 20;
/// Bound: a smaller file would be full after a few hundred calls.
const SHEET_MIN: u64 = 64 << 10;
/// Files that each core must be able to have: one that is written, one that is read, one to come.
const SHEETS_PER_CORE: u64 = 8;
/// Files kept ready. One fills in half a second at the highest rates.
const SPARES: usize = 2;
/// Bound: ends that cost nothing and found no room; some tens of megabytes.
const BEYOND_MAX: usize = 100_000;
/// Where it lies within a data directory.
const DIRECTORY: &str = "daybook";

/// The local disk's daybook. Dropping it brings all to the disk.
pub struct Daybook {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    place: Place,
    desks: Box<[Mutex<Desk>]>,
    spares: Mutex<VecDeque<(Arc<Sheet>, Pen)>>,
    /// Files that are written, for whoever syncs them.
    written: Mutex<Vec<Arc<Sheet>>>,
    /// Files that a desk has begun, for whoever reads them.
    begun: Mutex<Vec<Arc<Sheet>>>,
    reading: Mutex<Reading>,
    /// Ends that found no room: kept in memory until they are read.
    beyond: Mutex<VecDeque<Entry>>,
    next: AtomicU64,
    /// Size of a file.
    sheet: u64,
    most: u64,
    /// Bytes that files take.
    files: AtomicU64,
    /// Bytes of entries, and of those posted.
    bytes: AtomicU64,
    posted: AtomicU64,
    stopping: AtomicBool,
    /// The last fault of a disk has been told.
    told: AtomicBool,
}

/// Where one core writes.
#[derive(Default)]
struct Desk {
    current: Option<(Arc<Sheet>, Pen)>,
    /// An entry while it is made.
    scratch: Vec<u8>,
}

/// Where an entry may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Only where its end will find room.
    Begins,
    /// Wherever there is room.
    Ends,
}

impl Daybook {
    /// Opens the daybook of a data directory for so many cores, with files of at most so many bytes altogether. What an
    /// earlier process has left there is read first.
    ///
    /// # Errors
    /// When the files cannot be made: no room, no right.
    pub fn open(data_dir: &Path, cores: usize, most: u64) -> io::Result<Self> {
        let (place, left) = Place::take(&data_dir.join(DIRECTORY))?;
        let cores = cores.max(1);
        let sheet = (most / (cores as u64 * SHEETS_PER_CORE)).clamp(SHEET_MIN, SHEET_MAX) / HEAD * HEAD;
        let files = left.iter().map(|(sheet, _)| sheet.size).sum();
        let shared = Arc::new(Shared {
            place,
            desks: (0..cores).map(|_| Mutex::default()).collect(),
            spares: Mutex::default(),
            written: Mutex::default(),
            begun: Mutex::default(),
            reading: Mutex::new(Reading::new(left)),
            beyond: Mutex::default(),
            next: AtomicU64::new(u64::try_from(Timestamp::now().millis()).unwrap_or(0) << 16),
            sheet,
            most: most.max(sheet * (cores as u64 + 1)),
            files: AtomicU64::new(files),
            bytes: AtomicU64::new(0),
            posted: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            told: AtomicBool::new(false),
        });
        shared.prepare()?;
        let keeper = std::thread::Builder::new().name("sluice-daybook".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.keep()
        })?;
        Ok(Self { shared, keeper: Some(keeper) })
    }
}

impl kernel::store::Daybook for Daybook {
    fn open(&self, draft: &Charge) -> Result<(), Full> {
        self.shared.write(Urgency::Begins, |to| codec::opened(to, draft))
    }

    fn progress(&self, progress: &Progress) {
        // Left out where there is no room, as promised.
        let _ = self.shared.write(Urgency::Ends, |to| codec::progress(to, progress));
    }

    fn close(&self, charge: &Charge) {
        if self.shared.write(Urgency::Ends, |to| codec::closed(to, charge)).is_err() {
            self.shared.keep_beyond(Entry::Closed(Box::new(charge.clone())), !charge.amount.is_zero());
        }
    }

    fn void(&self, id: PostingId) {
        if self.shared.write(Urgency::Ends, |to| codec::void(to, id)).is_err() {
            self.shared.keep_beyond(Entry::Void(id), false);
        }
    }

    fn carry(&self, draft: &Charge, progress: Option<&Progress>) -> Result<(), Full> {
        self.shared.write(Urgency::Begins, |to| codec::carried(to, draft))?;
        progress.map_or(Ok(()), |progress| self.shared.write(Urgency::Ends, |to| codec::progress(to, progress)))
    }

    fn read(&self, most: usize) -> io::Result<Page> {
        let mut reading = lock(&self.shared.reading);
        reading.begin(lock(&self.shared.begun).drain(..));
        let mut page = reading.page(most)?;
        page.entries.extend(lock(&self.shared.beyond).drain(..));
        Ok(page)
    }

    fn posted(&self, mark: u64) -> io::Result<()> {
        let posted = lock(&self.shared.reading).posted(mark)?;
        self.shared.posted.fetch_add(posted, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, mark: u64) -> io::Result<()> {
        let freed = lock(&self.shared.reading).release(mark)?;
        self.shared.files.fetch_sub(freed, Ordering::AcqRel);
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        let shared = &self.shared;
        let past = lock(&shared.reading).past_bytes();
        let (bytes, posted) = (shared.bytes.load(Ordering::Relaxed), shared.posted.load(Ordering::Relaxed));
        Backlog {
            bytes: past + bytes.saturating_sub(posted),
            files: shared.files.load(Ordering::Relaxed),
            most: shared.most,
        }
    }
}

impl Drop for Daybook {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn write(&self, urgency: Urgency, entry: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        let Some(desk) = self.desks.get(core::current() % self.desks.len()) else { return Err(Full) };
        let mut desk = lock(desk);
        let Desk { current, scratch } = &mut *desk;
        frame(scratch, entry);
        let len = scratch.len() as u64;
        loop {
            if let Some((sheet, pen)) = current {
                // Where no file is to come, the second half of the last one is kept for the ends of what has begun.
                let kept = if urgency == Urgency::Begins && self.last() { self.sheet / 2 } else { 0 };
                if pen.room(sheet) >= len + kept && pen.append(sheet, scratch) {
                    self.bytes.fetch_add(len, Ordering::Relaxed);
                    return Ok(());
                }
                if kept > 0 {
                    return Err(Full);
                }
            }
            let Some(next) = self.take() else { return Err(Full) };
            lock(&self.begun).push(Arc::clone(&next.0));
            lock(&self.written).push(Arc::clone(&next.0));
            if let Some((sheet, _)) = current.replace(next) {
                sheet.seal();
            }
        }
    }

    /// Keeps an end in memory that found no room. Ends that cost nothing go on to come while it is full: of them not all
    /// are kept. Those that cost something are as many as had begun when it became full.
    fn keep_beyond(&self, entry: Entry, costs: bool) {
        let mut beyond = lock(&self.beyond);
        if costs || beyond.len() < BEYOND_MAX {
            beyond.push_back(entry);
        }
    }

    /// Whether the file in use may be the last there is.
    fn last(&self) -> bool {
        self.files.load(Ordering::Acquire) + self.sheet > self.most && lock(&self.spares).is_empty()
    }

    /// A file to go on with: one that was prepared, else one made here and now.
    fn take(&self) -> Option<(Arc<Sheet>, Pen)> {
        let spare = lock(&self.spares).pop_front();
        spare.or_else(|| self.make().ok().flatten())
    }

    /// Makes a file; `None` where files may take no more room.
    fn make(&self) -> io::Result<Option<(Arc<Sheet>, Pen)>> {
        let claim = |files: u64| files.checked_add(self.sheet).filter(|sum| *sum <= self.most);
        if self.files.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).is_err() {
            return Ok(None);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match Sheet::make(&self.place.path, number, self.sheet) {
            Ok((sheet, pen)) => Ok(Some((Arc::new(sheet), pen))),
            Err(fault) => {
                self.files.fetch_sub(self.sheet, Ordering::AcqRel);
                Err(fault)
            }
        }
    }

    /// Makes the files to come.
    fn prepare(&self) -> io::Result<()> {
        while lock(&self.spares).len() < SPARES {
            let Some(made) = self.make()? else { break };
            lock(&self.spares).push_back(made);
        }
        Ok(())
    }

    /// What the thread does until the end.
    fn keep(&self) {
        loop {
            let last = self.stopping.load(Ordering::Acquire);
            let done = self.sync().and_then(|()| if last { Ok(()) } else { self.prepare() });
            match done {
                Ok(()) => self.told.store(false, Ordering::Relaxed),
                Err(fault) if !self.told.swap(true, Ordering::Relaxed) => {
                    tracing::error!(%fault, "the daybook cannot be brought to the disk, or its next file not made");
                }
                Err(_) => {}
            }
            if last {
                return;
            }
            std::thread::park_timeout(SYNC);
        }
    }

    fn sync(&self) -> io::Result<()> {
        let written = lock(&self.written).clone();
        for sheet in &written {
            // Looked at first: what is written until it is sealed is synced below.
            let sealed = sheet.sealed();
            sheet.sync()?;
            if sealed {
                lock(&self.written).retain(|other| !Arc::ptr_eq(other, sheet));
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoned or not, what is behind these locks is whole: each change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
