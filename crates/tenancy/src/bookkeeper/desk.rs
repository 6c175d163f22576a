//! What lies on the bookkeeper's desk: what was read and is not posted, and who is open still. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use kernel::store::daybook::{Entry, Page, Progress};
use kernel::store::ledger::{Charge, Ending, PostingId};
use kernel::{KeyId, Timestamp};

/// Bound: ends whose beginnings have not been read. They come in the next page, from another core's file.
const EARLY_MAX: usize = 100_000;

/// One bookkeeper's desk.
#[derive(Debug)]
pub struct Desk {
    /// Charges to be posted.
    pub(super) waiting: VecDeque<Charge>,
    /// How many of them are posted at once.
    pub(super) portion: usize,
    /// Whether they are of an earlier process.
    pub(super) past: bool,
    /// Whether everything that an earlier process left has been read.
    present: bool,
    open: HashMap<PostingId, Open>,
    /// Attempts whose end was read before their beginning.
    early: HashSet<PostingId>,
    /// The last page read, once something of it must be finished.
    mark: Option<u64>,
    /// A page that comes after what is waiting.
    held: Option<Page>,
}

/// An attempt that has not ended.
#[derive(Debug)]
struct Open {
    draft: Box<Charge>,
    progress: Option<Progress>,
    /// The page it was read in; `None` while it is carried on and the copy has not been read.
    mark: Option<u64>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            portion: usize::MAX,
            past: false,
            present: false,
            open: HashMap::new(),
            early: HashSet::new(),
            mark: None,
            held: None,
        }
    }
}

impl Desk {
    /// Attempts that have not ended.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is half done: all that was read is posted, and nothing of an earlier process is left.
    pub(super) fn between(&self) -> bool {
        self.present && self.waiting.is_empty() && self.held.is_none()
    }

    /// A page that was put aside until now.
    pub(super) fn held(&mut self) -> Option<Page> {
        self.held.take()
    }

    /// Takes a page in; gives how many attempts a killed process has left open. Nothing may be waiting.
    pub(super) fn take(&mut self, page: Page, used: &mut dyn FnMut(&KeyId, Timestamp)) -> u64 {
        self.past = page.past;
        if !page.past && !self.present {
            self.present = true;
            let killed = self.close_killed();
            if killed > 0 {
                // They are another process's: this page is taken in after they are posted.
                (self.past, self.mark) = (true, Some(page.mark.saturating_sub(1)));
                self.held = Some(page);
                return killed;
            }
        }
        self.mark = Some(page.mark);
        for entry in page.entries {
            self.read(entry, page.mark, used);
        }
        0
    }

    fn read(&mut self, entry: Entry, mark: u64, used: &mut dyn FnMut(&KeyId, Timestamp)) {
        match entry {
            Entry::Opened(draft) => {
                if let Some(key) = &draft.key {
                    used(key, draft.at);
                }
                if !self.early.remove(&draft.id) {
                    self.open.entry(draft.id).or_insert(Open { draft, progress: None, mark: Some(mark) });
                }
            }
            Entry::Carried(draft) => match self.open.get_mut(&draft.id) {
                Some(open) => open.mark = Some(mark),
                // In this life it has ended meanwhile. In another its end comes later, or never.
                None if self.present || self.early.contains(&draft.id) => {}
                None => drop(self.open.insert(draft.id, Open { draft, progress: None, mark: Some(mark) })),
            },
            Entry::Progress(progress) => {
                if let Some(open) = self.open.get_mut(&progress.id) {
                    open.progress = Some(progress);
                }
            }
            Entry::Closed(charge) => {
                self.ended(charge.id);
                self.waiting.push_back(*charge);
            }
            Entry::Void(id) => self.ended(id),
        }
    }

    fn ended(&mut self, id: PostingId) {
        if self.open.remove(&id).is_none() && self.early.len() < EARLY_MAX {
            self.early.insert(id);
        }
    }

    /// Charges what an earlier process has left open: what its clients had got by then. Who had got nothing owes nothing.
    fn close_killed(&mut self) -> u64 {
        self.early.clear();
        let mut killed = 0;
        for (_, open) in self.open.drain() {
            let (mut charge, Some(progress)) = (open.draft, open.progress) else { continue };
            (charge.usage, charge.gpu_millis, charge.amount) = (progress.usage, progress.gpu_millis, progress.amount);
            (charge.ending, charge.usage.estimated) = (Ending::GatewayKilled, true);
            self.waiting.push_back(*charge);
            killed += 1;
        }
        killed
    }

    /// So many have been posted.
    pub(super) fn posted(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
        self.portion = usize::MAX;
    }

    /// The page that was taken in, once nothing of it waits any more.
    pub(super) fn done(&self) -> Option<u64> {
        self.mark.filter(|_| self.waiting.is_empty())
    }

    /// Whether a page is not finished yet.
    pub(super) fn unfinished(&self) -> bool {
        self.mark.is_some()
    }

    pub(super) fn finished(&mut self) {
        self.mark = None;
    }

    /// The first page that holds an attempt that is open still.
    pub(super) fn needed(&self) -> Option<u64> {
        self.open.values().filter_map(|open| open.mark).min()
    }

    /// Has open attempts written down once more, so that their first pages are needed no longer.
    pub(super) fn carry(&mut self, mut write: impl FnMut(&Charge, Option<&Progress>) -> bool) {
        for open in self.open.values_mut().filter(|open| open.mark.is_some()) {
            if !write(&open.draft, open.progress.as_ref()) {
                return;
            }
            open.mark = None;
        }
    }
}
