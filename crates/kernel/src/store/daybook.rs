//! What is written down at once, so that nothing a client was given can be forgotten.
//!
//! A daybook lies between the calls and the [`Ledger`](super::Ledger): writing to it costs a copy into memory that
//! outlives the process, posting to a ledger costs a round trip. An attempt is opened before it begins, its progress is
//! noted while its answer flows, and it is closed before the last of the answer is handed on. Whoever keeps the ledger
//! reads the daybook, posts what is closed, and after a crash closes what was left open.

use std::fmt;
use std::io;

use super::ledger::{Charge, PostingId};
use crate::{Money, Usage};

/// What an attempt whose answer is flowing has consumed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which attempt.
    pub id: PostingId,
    /// What it has consumed.
    pub usage: Usage,
    /// GPU time in milliseconds.
    pub gpu_millis: u64,
    /// What that costs.
    pub amount: Money,
}

/// One entry as it is read again.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An attempt has begun; what it would be charged if nothing more were known of it.
    Opened(Box<Charge>),
    /// An attempt that is still open was written down once more, because its first entry is to be deleted.
    Carried(Box<Charge>),
    /// What one has consumed so far.
    Progress(Progress),
    /// One has ended, and this is its charge.
    Closed(Box<Charge>),
    /// One has ended and costs nothing.
    Void(PostingId),
}

/// Entries in the order of each core; entries of different cores in no order.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Up to where they go; goes up from page to page.
    pub mark: u64,
    /// Whether they were left by an earlier process.
    pub past: bool,
}

/// How much is written and not yet posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Bytes written and not yet posted.
    pub bytes: u64,
    /// Bytes that files take.
    pub files: u64,
    /// Bytes that files may take.
    pub most: u64,
}

/// There is no room left: what is posted makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Writes at once, without waiting for a disk, and reads again what was written, after a crash as well.
pub trait Daybook: Send + Sync + 'static {
    /// An attempt begins. `draft` is what it would be charged if nothing more were ever known of it.
    ///
    /// # Errors
    /// `Full` where it could not be sure that its end would find room as well.
    fn open(&self, draft: &Charge) -> Result<(), Full>;

    /// What an open attempt has consumed so far. Left out where there is no room: what was noted before counts.
    fn progress(&self, progress: &Progress);

    /// An attempt has ended. Is kept whatever happens, as long as the process lives.
    fn close(&self, charge: &Charge);

    /// An attempt has ended and costs nothing.
    fn void(&self, id: PostingId);

    /// An attempt has ended that found no room to be opened; it was let in because nothing can be charged for it. Kept where there is
    /// room that no end of another needs.
    fn unopened(&self, charge: &Charge);

    /// Writes an open attempt down once more, with what it has consumed.
    ///
    /// # Errors
    /// `Full` where there is no room: its first entry must stay.
    fn carry(&self, draft: &Charge, progress: Option<&Progress>) -> Result<(), Full>;

    /// The next entries that have not been read, about so many bytes of them; what an earlier process left comes first.
    /// Empty where there are none.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn read(&self, most: usize) -> io::Result<Page>;

    /// What was closed up to a page's mark has been posted: after a crash it need not be posted again.
    ///
    /// # Errors
    /// When the files cannot be changed.
    fn posted(&self, mark: u64) -> io::Result<()>;

    /// Nothing that was read up to a page's mark is needed any more, open attempts included: files that hold nothing else
    /// are deleted.
    ///
    /// # Errors
    /// When the files cannot be deleted.
    fn release(&self, mark: u64) -> io::Result<()>;

    /// How much is written and not yet posted.
    fn backlog(&self) -> Backlog;
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the daybook is full: the store has not taken what is in it")
    }
}

impl std::error::Error for Full {}
