//! The daybook on the local disk: a driver of [`kernel::store::Daybook`].
//!
//! Each data-plane core appends to a file of its own, through memory: an entry costs a copy and no system call, and is
//! safe from a killed process at once. A thread brings it to the disk every few milliseconds, against loss of power, and
//! prepares the files to come. Files are made at their full size, with all their blocks, so that a full disk shows when a
//! file is made and never in the middle of an entry. Nothing begins but where the files that are there have room for its
//! end, and for those of all others that have begun. Knows nothing of what entries mean.

mod alarm;
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
use std::time::{Duration, Instant};

use kernel::store::daybook::{Backlog, Entry, Full, Page, Progress};
use kernel::store::ledger::{Charge, PostingId};
use kernel::{Timestamp, core};

use self::alarm::{Alarm, Word};
use self::place::Place;
use self::reading::Reading;
use self::sheet::{HEAD, Pen, Sheet, frame};

/// How often what was written is brought to the disk: what a loss of power can cost. Each time the pages written to are
/// taken from the writers, who take them back at their next entry: more often costs every call.
const SYNC: Duration = Duration::from_millis(8);
/// Bound: a file. Larger ones would hold what is posted for longer, and take their room even where little is written.
const SHEET_MAX: u64 = 4 << 20;
/// Bound: a smaller file would have room for the ends of less than a hundred calls.
const SHEET_MIN: u64 = 128 << 10;
/// Bound: what is kept free for the end of each call that has begun. The longest ids and tags that clients can send take a
/// fifth of it, names of models, plans and prices the rest; most ends take a quarter of it.
const END: u64 = 1 << 10;
/// Files that each core must be able to have: one that is written, one that is read, one to come.
const SHEETS_PER_CORE: u64 = 8;
/// Files kept ready. One fills in half a second at the highest rates.
const SPARES: u64 = 2;
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
    /// Attempts that have begun and not ended: each has room for its end.
    owed: AtomicU64,
    /// Files kept ready.
    ready: AtomicU64,
    /// No file could be made when that was last tried: whoever keeps the files tries again.
    short: AtomicBool,
    /// Attempts that found no room to begin, until whoever keeps the files has told of them.
    refused: AtomicU64,
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
    /// Only where the ends of all that has begun find room besides.
    Begins,
    /// Wherever there is room.
    Ends,
}

impl Daybook {
    /// Opens the daybook of a data directory for so many cores, with files of at most so many bytes altogether. What an
    /// earlier process has left there is read first.
    ///
    /// On a full disk it is open, and nothing begins until there is room.
    ///
    /// # Errors
    /// When the files cannot be made.
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
            owed: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            short: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            told: AtomicBool::new(false),
        });
        shared.prepare().or_else(|fault| if is_full(&fault) { Ok(()) } else { Err(fault) })?;
        let keeper = std::thread::Builder::new().name("sluice-daybook".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.keep()
        })?;
        Ok(Self { shared, keeper: Some(keeper) })
    }
}

impl kernel::store::Daybook for Daybook {
    fn open(&self, draft: &Charge) -> Result<(), Full> {
        self.shared.owed.fetch_add(1, Ordering::AcqRel);
        let opened = self.shared.write(Urgency::Begins, |to| codec::opened(to, draft));
        opened.inspect_err(|_| {
            self.shared.ended();
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn progress(&self, progress: &Progress) {
        // Left out where there is no room, as promised.
        let _ = self.shared.write(Urgency::Begins, |to| codec::progress(to, progress));
    }

    fn close(&self, charge: &Charge) {
        if self.shared.write(Urgency::Ends, |to| codec::closed(to, charge)).is_err() {
            self.shared.keep_beyond(Entry::Closed(Box::new(charge.clone())), true);
        }
        self.shared.ended();
    }

    fn unopened(&self, charge: &Charge) {
        if self.shared.write(Urgency::Begins, |to| codec::closed(to, charge)).is_err() {
            self.shared.keep_beyond(Entry::Closed(Box::new(charge.clone())), false);
        }
    }

    fn void(&self, id: PostingId) {
        if self.shared.write(Urgency::Ends, |to| codec::void(to, id)).is_err() {
            self.shared.keep_beyond(Entry::Void(id), true);
        }
        self.shared.ended();
    }

    fn carry(&self, draft: &Charge, progress: Option<&Progress>) -> Result<(), Full> {
        self.shared.write(Urgency::Begins, |to| codec::carried(to, draft))?;
        progress.map_or(Ok(()), |progress| self.shared.write(Urgency::Begins, |to| codec::progress(to, progress)))
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
        let here = core::current() % self.desks.len();
        let mut desk = self.desks.get(here).map(lock).ok_or(Full)?;
        let Desk { current, scratch } = &mut *desk;
        frame(scratch, entry);
        let len = scratch.len() as u64;
        loop {
            if let Some((sheet, pen)) = current
                && let Some(left) = pen.room(sheet).checked_sub(len)
            {
                if urgency == Urgency::Begins && !self.covers(left) {
                    return Err(Full);
                }
                if pen.append(sheet, scratch) {
                    self.bytes.fetch_add(len, Ordering::Relaxed);
                    return Ok(());
                }
            }
            let Some(next) = self.take(urgency) else { break };
            lock(&self.begun).push(Arc::clone(&next.0));
            lock(&self.written).push(Arc::clone(&next.0));
            if let Some((sheet, _)) = current.replace(next) {
                sheet.seal();
            }
        }
        if urgency == Urgency::Begins {
            return Err(Full);
        }
        let framed = std::mem::take(scratch);
        drop(desk);
        self.write_elsewhere(here, &framed)
    }

    /// Writes an end whose own core has no room left where another has.
    fn write_elsewhere(&self, here: usize, framed: &[u8]) -> Result<(), Full> {
        for (_, desk) in self.desks.iter().enumerate().filter(|(nth, _)| *nth != here) {
            // One at a time: who holds its own waits for no other.
            if let Some((sheet, pen)) = &mut lock(desk).current
                && pen.append(sheet, framed)
            {
                self.bytes.fetch_add(framed.len() as u64, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Whether all that has begun finds room for its end where this much is left of a core's own file, in it and in those
    /// kept ready. What is left of other cores' files is not counted on, so that no two count on the same.
    fn covers(&self, left: u64) -> bool {
        // The rest of a file may be too short for the next end.
        let usable = |room: u64| room.saturating_sub(END);
        let owed = self.owed.load(Ordering::Acquire) * END;
        loop {
            if usable(left) >= owed
                || usable(left) + self.ready.load(Ordering::Acquire) * usable(self.sheet - HEAD) >= owed
            {
                return true;
            }
            if self.short.load(Ordering::Relaxed) || !matches!(self.lay_by(), Ok(true)) {
                return false;
            }
        }
    }

    /// An attempt has ended.
    fn ended(&self) {
        // One that is ended twice must not take the room of another.
        let _ = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| owed.checked_sub(1));
    }

    /// Keeps an end in memory that found no room. Ends of what was written down when it began are all kept: they are as many
    /// as had begun when it became full. The others, of what is free, go on to come while it is full: of them not all are.
    fn keep_beyond(&self, entry: Entry, begun: bool) {
        let mut beyond = lock(&self.beyond);
        if begun || beyond.len() < BEYOND_MAX {
            beyond.push_back(entry);
        }
    }

    /// A file to go on with: one that was prepared, else one made here and now.
    fn take(&self, urgency: Urgency) -> Option<(Arc<Sheet>, Pen)> {
        let spare = lock(&self.spares).pop_front();
        if spare.is_some() {
            self.ready.fetch_sub(1, Ordering::AcqRel);
            return spare;
        }
        if urgency == Urgency::Begins && self.short.load(Ordering::Relaxed) {
            return None;
        }
        self.make().ok().flatten()
    }

    /// Makes a file and keeps it ready; false where files may take no more room.
    fn lay_by(&self) -> io::Result<bool> {
        let made = self.make();
        self.short.store(!matches!(made, Ok(Some(_))), Ordering::Relaxed);
        let Some(made) = made? else { return Ok(false) };
        // Counted first: who takes it counts it off.
        self.ready.fetch_add(1, Ordering::AcqRel);
        lock(&self.spares).push_back(made);
        Ok(true)
    }

    /// Makes a file; `None` where files may take no more room. A fault where the disk has none.
    fn make(&self) -> io::Result<Option<(Arc<Sheet>, Pen)>> {
        let claim = |files: u64| files.checked_add(self.sheet).filter(|sum| *sum <= self.most);
        if self.files.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).is_err() {
            return Ok(None);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let room = self.place.has_room(self.sheet);
        match room.and_then(|()| Sheet::make(&self.place.path, number, self.sheet)) {
            Ok((sheet, pen)) => Ok(Some((Arc::new(sheet), pen))),
            Err(fault) => {
                self.files.fetch_sub(self.sheet, Ordering::AcqRel);
                Err(fault)
            }
        }
    }

    /// Makes the files to come: some, and those that the ends of what has begun would fill.
    fn prepare(&self) -> io::Result<()> {
        loop {
            let ends = (self.owed.load(Ordering::Acquire) * END).div_ceil(self.sheet - HEAD - END);
            if self.ready.load(Ordering::Acquire) >= SPARES + ends {
                self.short.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if !self.lay_by()? {
                return Ok(());
            }
        }
    }

    /// What the thread does until the end.
    fn keep(&self) {
        let mut alarm = Alarm::default();
        loop {
            let last = self.stopping.load(Ordering::Acquire);
            // What cannot be brought to the disk does not keep the next files from being made.
            let (synced, made) = (self.sync(), if last { Ok(()) } else { self.prepare() });
            match synced.and(made) {
                Ok(()) => self.told.store(false, Ordering::Relaxed),
                Err(fault) if !self.told.swap(true, Ordering::Relaxed) => {
                    tracing::error!(%fault, "the daybook cannot be brought to the disk, or its next file not made");
                }
                Err(_) => {}
            }
            if last {
                return;
            }
            self.tell(&mut alarm);
            std::thread::park_timeout(SYNC);
        }
    }

    /// Tells the operator that it is full, and that it is so no more.
    fn tell(&self, alarm: &mut Alarm) {
        let refused = self.refused.swap(0, Ordering::Relaxed);
        match alarm.look(refused, self.short.load(Ordering::Relaxed), Instant::now()) {
            None => {}
            Some(Word::Full { refused }) => {
                let (files, most) = (self.files.load(Ordering::Relaxed), self.most);
                tracing::warn!(
                    refused,
                    files,
                    most,
                    "the daybook is full: calls that may cost something get 503 until the store takes what is in it, or the \
                     disk has room"
                );
            }
            Some(Word::Over { refused, lasted }) => {
                let seconds = lasted.as_secs();
                tracing::warn!(refused, seconds, "the daybook has room again: calls are taken on as before");
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let written = lock(&self.written).clone();
        let mut outcome = Ok(());
        for sheet in &written {
            // Looked at first: what is written until it is sealed is synced below.
            let sealed = sheet.sealed();
            let synced = sheet.sync();
            if sealed && synced.is_ok() {
                lock(&self.written).retain(|other| !Arc::ptr_eq(other, sheet));
            }
            // A fault of one file is no reason to leave out the others.
            outcome = outcome.and(synced);
        }
        outcome
    }
}

/// Whether a disk, or what somebody may take of it, is full.
fn is_full(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoned or not, what is behind these locks is whole: each change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
