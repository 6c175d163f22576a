//! Small secrets kept in the data directory, readable by the owner only.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fs, io};

/// Reads a file of a data directory; makes both if they are not there.
///
/// # Errors
/// When the file can neither be read nor made.
pub fn keep(data_dir: &Path, file: &str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let path = data_dir.join(file);
    match fs::read(&path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    let bytes = make()?;
    fs::create_dir_all(data_dir)?;
    // Written beside and linked into place: of two processes that start at once, one wins and both read the same.
    let beside = data_dir.join(format!("{file}.{}", std::process::id()));
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?.write_all(&bytes)?;
    let linked = fs::hard_link(&beside, &path);
    fs::remove_file(&beside)?;
    match linked {
        Ok(()) => Ok(bytes),
        Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => fs::read(&path),
        Err(fault) => Err(fault),
    }
}
