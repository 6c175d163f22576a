//! What lies on the bookkeeper's desk: what was read and is not posted, and who is open still. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use kernel::store::daybook::{Entry, Page, Progress};
use kernel::store::ledger::{Charge, Ending, PostingId};

/// With fewer entries a page is likely all that there was: full ones have about two thousand.
const FULL: usize = 1_500;
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
    /// How far the open ones have come, and the page that says so, as with [`Open`].
    progress: HashMap<PostingId, (Progress, Option<u64>)>,
    /// Attempts whose end was read before their beginning.
    early: HashSet<PostingId>,
    /// The last page read, once something of it must be finished.
    mark: Option<u64>,
    /// A page that comes after what is waiting.
    held: Option<Page>,
    /// Whether the last page was all there was.
    all: bool,
    /// A page is being read: should that break down, it is not known what of it is here.
    pub(super) torn: bool,
}

/// An attempt that has not ended.
#[derive(Debug)]
struct Open {
    draft: Box<Charge>,
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
            progress: HashMap::new(),
            early: HashSet::new(),
            mark: None,
            held: None,
            all: false,
            torn: false,
        }
    }
}

impl Desk {
    /// Attempts that have not ended.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is half done: all that was read is posted, and nothing of an earlier process is left.
    pub(crate) fn between(&self) -> bool {
        self.present && self.waiting.is_empty() && self.held.is_none()
    }

    /// Whether all that was there has been read, posted and finished.
    pub(super) fn caught_up(&self) -> bool {
        self.all && self.between() && self.mark.is_none()
    }

    /// A page that was put aside until now.
    pub(super) fn held(&mut self) -> Option<Page> {
        self.held.take()
    }

    /// Takes a page in; gives how many attempts a killed process has left open. Nothing may be waiting.
    pub(super) fn take(&mut self, page: Page) -> u64 {
        self.past = page.past;
        self.all = page.entries.len() < FULL;
        let turned = !page.past && !self.present;
        if turned {
            self.present = true;
            let killed = self.close_killed();
            if killed > 0 {
                // They are another process's: this page is taken in after they are posted.
                (self.past, self.mark) = (true, Some(page.mark.saturating_sub(1)));
                self.held = Some(page);
                return killed;
            }
        }
        // A page with nothing in it leaves nothing to finish, but where it says that the past is over.
        self.mark = (turned || page.past || !page.entries.is_empty()).then_some(page.mark);
        for entry in page.entries {
            self.read(entry, page.mark);
        }
        0
    }

    fn read(&mut self, entry: Entry, mark: u64) {
        match entry {
            Entry::Opened(draft) => {
                if !self.early.remove(&draft.id) {
                    self.open.entry(draft.id).or_insert(Open { draft, mark: Some(mark) });
                }
            }
            Entry::Carried(draft) => match self.open.get_mut(&draft.id) {
                Some(open) => open.mark = Some(mark),
                // In this life it has ended meanwhile. In another its end comes later, or never.
                None if self.present || self.early.contains(&draft.id) => {}
                None => drop(self.open.insert(draft.id, Open { draft, mark: Some(mark) })),
            },
            Entry::Progress(progress) if self.present && !self.open.contains_key(&progress.id) => {}
            Entry::Progress(progress) => {
                // Files of different cores come in no order: the furthest counts, and it may come before its beginning.
                let known = self.progress.entry(progress.id).or_insert((progress, Some(mark)));
                if progress.usage.output >= known.0.usage.output {
                    *known = (progress, Some(mark));
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
        self.progress.remove(&id);
        if self.open.remove(&id).is_none() && self.early.len() < EARLY_MAX {
            self.early.insert(id);
        }
    }

    /// Charges what an earlier process has left open: what its clients had got by then. Who had got nothing owes nothing.
    fn close_killed(&mut self) -> u64 {
        self.early.clear();
        let mut killed = 0;
        let mut progress = std::mem::take(&mut self.progress);
        for (id, open) in self.open.drain() {
            let (mut charge, Some((progress, _))) = (open.draft, progress.remove(&id)) else { continue };
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
        self.portion = self.portion.saturating_mul(2);
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

    /// The first page that says something of an attempt that is open still.
    pub(super) fn needed(&self) -> Option<u64> {
        let progress = self.progress.values().filter_map(|(_, mark)| *mark);
        self.open.values().filter_map(|open| open.mark).chain(progress).min()
    }

    /// Has open attempts written down once more, so that their first pages are needed no longer.
    pub(super) fn carry(&mut self, mut write: impl FnMut(&Charge, Option<&Progress>) -> bool) {
        for (id, open) in self.open.iter_mut().filter(|(_, open)| open.mark.is_some()) {
            let progress = self.progress.get_mut(id);
            if !write(&open.draft, progress.as_ref().map(|(progress, _)| progress)) {
                return;
            }
            open.mark = None;
            if let Some((_, mark)) = progress {
                *mark = None;
            }
        }
    }
}
