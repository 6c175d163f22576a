//! A file's bytes as memory that outlives the process: the one place where the compiler is told to trust us.
//!
//! What is written to the memory is in the kernel's page cache at once: a process that is killed loses nothing of it.

use std::fs::File;
use std::io;

use memmap2::MmapMut;

/// The bytes of one file, for one writer.
#[derive(Debug)]
pub(super) struct Map(MmapMut);

impl Map {
    /// Maps a whole file.
    ///
    /// # Errors
    /// When the system has no room for it in the address space.
    #[expect(unsafe_code, reason = "mapping a file is unsafe because others could change or cut it meanwhile")]
    pub(super) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: The memory is undefined once somebody else writes to the file or truncates it while it is mapped.
        // - The file was made by this process, with mode 0600, in a directory of mode 0700 that it holds an exclusive
        //   lock on; nobody else has reason to write there, and nobody in this process writes to a mapped range by
        //   another way: readers only read (through the descriptor, behind what was written), and what the header keeps
        //   for readers lies before the range that writers touch and is never read through the map.
        // - All its blocks were allocated before: writing to a page cannot fail for want of room, which would be a
        //   SIGBUS and not an error.
        // - It is never truncated, only unlinked, which leaves mapped pages alone.
        unsafe { MmapMut::map_mut(file) }.map(Self)
    }

    /// Copies bytes to a place; false where they do not fit.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let place = at.checked_add(bytes.len()).and_then(|end| self.0.get_mut(at..end));
        place.map(|place| place.copy_from_slice(bytes)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_written_to_the_memory_is_in_the_file_at_once_and_stays_when_the_file_is_unlinked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(8192).unwrap();
        let mut map = Map::of(&file).unwrap();
        assert!(map.write(8190, b"ab") && map.write(0, b"x"));
        assert!(!map.write(8191, b"ab") && !map.write(usize::MAX, b"a"), "never beyond its end");
        let mut read = [0; 2];
        file.read_exact_at(&mut read, 8190).unwrap();
        assert_eq!(&read, b"ab");
        std::fs::remove_file(&path).unwrap();
        assert!(map.write(1, b"y"));
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"xy");
    }

    #[test]
    fn a_file_without_bytes_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(Map::of(&file).is_err() || !Map::of(&file).unwrap().write(0, b"a"));
    }
}
