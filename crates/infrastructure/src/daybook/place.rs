//! Where a daybook lies: a directory of its own for each process, and what others have left.
//!
//! `daybook/0`, `daybook/1`, …: a process takes the first that nobody holds, by a lock that ends with the process however
//! it ends. Directories that nobody holds belong to processes that are gone: whoever starts next takes their files over.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::sheet::{SUFFIX, Sheet};

/// Bound: processes that share a data directory.
const PROCESSES_MAX: u32 = 64;
const LOCK: &str = "lock";
/// Bound: of a disk so much is left to others, and no more than an eighth. A store on the same disk must be able to take
/// what is written here, or there would never be room again: SQLite's log at its longest, and as much again for its tables.
const LEFT_MAX: u64 = 128 << 20;
const LEFT_SHARE: u64 = 8;

/// A directory that this process holds.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes a directory under `base`, with the files that were left in any: in order, with up to where each was posted.
    pub(super) fn take(base: &Path) -> io::Result<(Self, Vec<(Sheet, u64)>)> {
        make(base)?;
        let mut own = None;
        let mut left = Vec::new();
        for nth in 0..PROCESSES_MAX {
            let path = base.join(nth.to_string());
            if own.is_some() && !path.exists() {
                continue;
            }
            make(&path)?;
            let mut how = File::options();
            let lock = how.read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK))?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(fault) => return Err(fault.into()),
            }
            left.extend(files(&path)?);
            match &own {
                None => own = Some(Self { path, _lock: lock }),
                Some(own) => move_over(&mut left, &path, &own.path)?,
            }
        }
        let Some(own) = own else {
            let message = format!(
                "{}: {PROCESSES_MAX} processes use this data directory already; give this one its own with --data-dir",
                base.display()
            );
            return Err(io::Error::other(message));
        };
        let mut sheets = Vec::new();
        left.sort();
        for (nth, path) in left.into_iter().enumerate() {
            sheets.extend(Sheet::left(path, nth as u64)?);
        }
        Ok((own, sheets))
    }

    /// Sees that the disk has room for a file of this size, and for others.
    pub(super) fn has_room(&self, size: u64) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.path)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        if free >= size.saturating_add(left_to_others(total)) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

fn left_to_others(total: u64) -> u64 {
    (total / LEFT_SHARE).min(LEFT_MAX)
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| Some(end) == SUFFIX.strip_prefix('.').map(std::ffi::OsStr::new)) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Moves the files of a directory that was left into ours, under names that cannot be taken.
fn move_over(left: &mut [PathBuf], from: &Path, to: &Path) -> io::Result<()> {
    for path in left.iter_mut().filter(|path| path.parent() == Some(from)) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let nth = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let moved = (0u32..).map(|again| to.join(format!("{name}-{nth}.{again}{SUFFIX}"))).find(|to| !to.exists());
        let Some(moved) = moved else { continue };
        fs::rename(&*path, &moved)?;
        *path = moved;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_has_not_got_is_not_taken_and_others_are_left_something() {
        let dir = tempfile::tempdir().unwrap();
        let (place, _) = Place::take(dir.path()).unwrap();
        assert!(place.has_room(1 << 10).is_ok(), "this test needs some room");
        let full = place.has_room(u64::MAX / 2).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!((left_to_others(8 << 20), left_to_others(1 << 40)), (1 << 20, LEFT_MAX));
    }
}
