//! One file of a daybook: a head, then entries, then zeros.
//!
//! An entry is its length (4 bytes, little-endian), the CRC-32 of its bytes (4 bytes), its bytes. A length of zero is the
//! end; an entry whose sum is wrong was torn by a crash and is the end as well. The head holds up to where the file has
//! been posted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::store::daybook::Entry;
use rustix::fs::FallocateFlags;

use super::codec;
use super::map::Map;
use super::words::Words;

/// How a file's name ends.
pub(super) const SUFFIX: &str = ".daybook";
/// Begins a file, with the version of its format.
const MAGIC: &[u8; 8] = b"sluicdb1";
/// Where the position up to which it was posted stands.
const POSTED_AT: u64 = 8;
/// Where entries begin. The first page is left to the head: it is written by another way than entries are.
pub(super) const HEAD: u64 = 4096;
/// Length and check sum before an entry.
const PREFIX: usize = 8;
/// Bound: no entry is longer; what says so was torn.
const ENTRY_MAX: usize = 64 << 10;

/// A file, for those who read, post and sync it.
#[derive(Debug)]
pub(super) struct Sheet {
    file: File,
    path: PathBuf,
    /// Its length.
    pub(super) size: u64,
    /// Its place in the order of files.
    pub(super) number: u64,
    /// Up to where entries are complete.
    written: AtomicU64,
    /// Whether nothing more will be written.
    sealed: AtomicBool,
    /// Whether something was written since it was last synced.
    dirty: AtomicBool,
}

/// A file, for its one writer.
#[derive(Debug)]
pub(super) struct Pen {
    map: Map,
    at: u64,
}

/// What was read of a file.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    /// Where to read on.
    pub(super) at: u64,
    /// Whether nothing can come any more.
    pub(super) end: bool,
    /// Whether it ends in what could not be read.
    pub(super) torn: bool,
}

/// What reading takes, and is used again for the next file.
#[derive(Debug, Default)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    words: Words,
}

// === impl Sheet ===

impl Sheet {
    /// Makes a file of this size, all of whose blocks are there.
    pub(super) fn make(dir: &Path, number: u64, size: u64) -> io::Result<(Self, Pen)> {
        let path = dir.join(format!("{number:016x}{SUFFIX}"));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let made = allocate(&file, size).and_then(|()| file.write_all_at(MAGIC, 0)).and_then(|()| Map::of(&file));
        let map = made.inspect_err(|_| drop(fs::remove_file(&path)))?;
        let (written, sealed) = (AtomicU64::new(HEAD), AtomicBool::new(false));
        Ok((Self { file, path, size, number, written, sealed, dirty: AtomicBool::new(false) }, Pen { map, at: HEAD }))
    }

    /// Opens a file that an earlier process left; gives up to where it had posted it. `None`: it is none of ours.
    pub(super) fn left(path: PathBuf, number: u64) -> io::Result<Option<(Self, u64)>> {
        let file = File::options().read(true).write(true).open(&path)?;
        let size = file.metadata()?.len();
        let mut head = [0; 16];
        if size < HEAD || file.read_exact_at(&mut head, 0).is_err() || head.first_chunk() != Some(MAGIC) {
            return Ok(None);
        }
        let posted = head.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (written, sealed) = (AtomicU64::new(size), AtomicBool::new(true));
        Ok(Some((Self { file, path, size, number, written, sealed, dirty: AtomicBool::new(false) }, posted)))
    }

    /// Reads entries from a place on, about so many bytes.
    pub(super) fn read(&self, at: u64, most: usize, with: &mut Reader) -> io::Result<Read> {
        // Sealed is read first: what was written before it was sealed is then seen as well.
        let sealed = self.sealed.load(Ordering::Acquire);
        let written = self.written.load(Ordering::Acquire);
        let len = usize::try_from(written.saturating_sub(at)).unwrap_or(usize::MAX);
        let Reader { bytes, words } = with;
        bytes.resize(len.min(most.max(ENTRY_MAX + PREFIX)), 0);
        self.file.read_exact_at(bytes, at)?;
        let mut read = Read { at, ..Read::default() };
        let mut rest = &bytes[..];
        loop {
            match entry(rest, words) {
                Next::Entry(found, after) => {
                    // An entry of a later version is nothing this one could post; its sum is right, so what follows is.
                    read.entries.extend(found);
                    read.at += (rest.len() - after.len()) as u64;
                    rest = after;
                }
                Next::Short if read.at + (rest.len() as u64) < written => break,
                Next::Short => {
                    (read.end, read.torn) = (sealed, sealed && !rest.is_empty());
                    break;
                }
                Next::End | Next::Torn if !sealed => {
                    // Behind what was written nothing is read: this cannot be but for a fault of the disk.
                    (read.at, read.torn) = (written, true);
                    break;
                }
                Next::End => {
                    read.end = true;
                    break;
                }
                Next::Torn => {
                    (read.end, read.torn) = (true, true);
                    break;
                }
            }
        }
        Ok(read)
    }

    /// Writes down up to where it has been posted.
    pub(super) fn post(&self, at: u64) -> io::Result<()> {
        self.file.write_all_at(&at.to_le_bytes(), POSTED_AT)
    }

    /// Nothing more will be written.
    pub(super) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    pub(super) fn sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Brings what was written to the disk, if anything was.
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // Linux writes pages that were changed through a map as well.
        let synced = rustix::fs::fdatasync(&self.file).map_err(io::Error::from);
        synced.inspect_err(|_| self.dirty.store(true, Ordering::Release))
    }

    #[cfg(test)]
    pub(super) fn dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    pub(super) fn delete(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

// === impl Pen ===

impl Pen {
    /// Bytes that still fit.
    pub(super) fn room(&self, sheet: &Sheet) -> u64 {
        sheet.size.saturating_sub(self.at)
    }

    /// Appends an entry; `framed` is [`frame`]d bytes. False where it does not fit.
    pub(super) fn append(&mut self, sheet: &Sheet, framed: &[u8]) -> bool {
        let Ok(at) = usize::try_from(self.at) else { return false };
        if !self.map.write(at, framed) {
            return false;
        }
        self.at += framed.len() as u64;
        sheet.written.store(self.at, Ordering::Release);
        sheet.dirty.store(true, Ordering::Release);
        true
    }
}

/// Makes room for an entry's length and sum, has it written, and fills them in.
pub(super) fn frame(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    to.clear();
    to.extend_from_slice(&[0; PREFIX]);
    write(to);
    let Some((prefix, bytes)) = to.split_first_chunk_mut::<PREFIX>() else { return };
    let (len, sum) = (u32::try_from(bytes.len()).unwrap_or(u32::MAX), crc32fast::hash(bytes));
    *prefix = (u64::from(sum) << 32 | u64::from(len)).to_le_bytes();
}

enum Next<'a> {
    Entry(Option<Entry>, &'a [u8]),
    /// The bytes end before the entry does.
    Short,
    End,
    Torn,
}

fn entry<'a>(bytes: &'a [u8], words: &mut Words) -> Next<'a> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return Next::Short };
    let prefix = u64::from_le_bytes(*prefix);
    let (len, sum) = (prefix as u32 as usize, (prefix >> 32) as u32);
    if len == 0 {
        return if sum == 0 { Next::End } else { Next::Torn };
    }
    if len > ENTRY_MAX {
        return Next::Torn;
    }
    let Some((bytes, after)) = rest.split_at_checked(len) else { return Next::Short };
    if crc32fast::hash(bytes) == sum { Next::Entry(codec::read(bytes, words), after) } else { Next::Torn }
}

fn allocate(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => zeros(file, size),
        done => Ok(done?),
    }
}

/// Where a file system cannot allocate in advance, zeros do it.
fn zeros(file: &File, size: u64) -> io::Result<()> {
    static CHUNK: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).map_or(CHUNK.len(), |left| left.min(CHUNK.len()));
        file.write_all_at(CHUNK.get(..len).unwrap_or_default(), at)?;
        at += len as u64;
    }
    Ok(())
}
