//! Reading a daybook again: what was left first, then what is being written.

use std::io;
use std::sync::Arc;

use kernel::store::daybook::{Entry, Page};

use super::sheet::{HEAD, Reader, Sheet};

/// The files that somebody may still want to read.
#[derive(Debug)]
pub(super) struct Reading {
    past: Vec<Open>,
    present: Vec<Open>,
    /// Goes up with each page.
    mark: u64,
    reader: Reader,
}

/// One file, and how far it has been read and posted.
#[derive(Debug)]
struct Open {
    sheet: Arc<Sheet>,
    at: u64,
    posted: u64,
    /// The last page that something of it was in.
    mark: u64,
    /// Whether all of it has been read.
    end: bool,
}

impl Reading {
    pub(super) fn new(left: Vec<(Sheet, u64)>) -> Self {
        let past = left.into_iter().map(|(sheet, posted)| Open::new(Arc::new(sheet), posted)).collect();
        Self { past, present: Vec::new(), mark: 0, reader: Reader::default() }
    }

    /// Files have been begun.
    pub(super) fn begin(&mut self, sheets: impl Iterator<Item = Arc<Sheet>>) {
        self.present.extend(sheets.map(|sheet| Open::new(sheet, HEAD)));
        // A core's files are read in the order in which they were taken.
        self.present.sort_by_key(|open| open.sheet.number);
    }

    /// The next page.
    pub(super) fn page(&mut self, most: usize) -> io::Result<Page> {
        self.mark += 1;
        let past = self.past.iter().any(|open| !open.end);
        let mut page = Page { mark: self.mark, past, ..Page::default() };
        let files = if past { &mut self.past } else { &mut self.present };
        let mut left = most;
        for open in files.iter_mut().filter(|open| !open.end) {
            while left > 0 && !open.end {
                let before = open.at;
                let mut read = match open.sheet.read(open.at, left, &mut self.reader) {
                    // What was read of other files is past their mark already: it goes first, and the fault comes again.
                    Err(_) if !page.entries.is_empty() => return Ok(page),
                    read => read?,
                };
                if past && read.at <= open.posted {
                    // Posted before the crash: they only say that these attempts are not open any more.
                    read.entries.iter_mut().for_each(forget);
                }
                if read.torn {
                    tracing::warn!(file = %format!("{:016x}", open.sheet.number), at = read.at, "the daybook ends in half an entry: a crash cut it off");
                }
                (open.at, open.end) = (read.at, read.end);
                if open.at == before {
                    break;
                }
                open.mark = self.mark;
                page.entries.append(&mut read.entries);
                left = left.saturating_sub(usize::try_from(open.at - before).unwrap_or(usize::MAX));
            }
        }
        Ok(page)
    }

    /// Writes down that what was read up to a page has been posted; gives how many bytes that is of what is present.
    pub(super) fn posted(&mut self, mark: u64) -> io::Result<u64> {
        let mut bytes = 0;
        for (open, past) in
            self.past.iter_mut().map(|open| (open, true)).chain(self.present.iter_mut().map(|open| (open, false)))
        {
            if open.mark <= mark && open.posted < open.at {
                open.sheet.post(open.at)?;
                bytes += if past { 0 } else { open.at - open.posted };
                open.posted = open.at;
            }
        }
        Ok(bytes)
    }

    /// Deletes files that were read to their end up to a page and posted; gives the room that is free then.
    pub(super) fn release(&mut self, mark: u64) -> io::Result<u64> {
        let mut freed = 0;
        for files in [&mut self.past, &mut self.present] {
            let mut kept = Vec::with_capacity(files.len());
            let mut fault = None;
            for open in files.drain(..) {
                let done = open.end && open.mark <= mark && open.posted >= open.at;
                match if done { open.sheet.delete() } else { Err(io::ErrorKind::WouldBlock.into()) } {
                    Ok(()) => freed += open.sheet.size,
                    Err(failed) => {
                        fault = fault.or(done.then_some(failed));
                        kept.push(open);
                    }
                }
            }
            *files = kept;
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        Ok(freed)
    }

    /// Bytes that were left and not read yet, at most.
    pub(super) fn past_bytes(&self) -> u64 {
        self.past.iter().filter(|open| !open.end).map(|open| open.sheet.size - open.at).sum()
    }
}

/// Leaves of an end only that it was one.
fn forget(entry: &mut Entry) {
    if let Entry::Closed(charge) = entry {
        *entry = Entry::Void(charge.id);
    }
}

impl Open {
    fn new(sheet: Arc<Sheet>, posted: u64) -> Self {
        Self { sheet, at: HEAD, posted: posted.max(HEAD), mark: 0, end: false }
    }
}
