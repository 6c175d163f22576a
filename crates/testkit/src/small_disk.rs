//! A small disk of a test's own, which can be filled to the last byte, and hung.
//!
//! A file system mounted in a mount namespace that only programs started [within](SmallDisk::within) it see. It stays while
//! they come and go, as a disk does. In memory, but for one that can [hang](SmallDisk::hang): that is a file behind a loop
//! device, which only root can have.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What fills it.
const FILLER: &str = "filler";

/// Mounts `$0`, of `$1` bytes.
const IN_MEMORY: &str = "mount -t tmpfs -o size=\"$1\",mode=700 tmpfs \"$0\"";
/// The same as a file beside it.
const ON_A_DEVICE: &str =
    "truncate -s \"$1\" \"$0.disk\" && mkfs.ext4 -q -F \"$0.disk\" >&2 && mount -o loop \"$0.disk\" \"$0\"";

/// A disk. Dropping takes it away with all that is on it.
pub struct SmallDisk {
    holder: Child,
    /// Whether its namespace has users of its own: who is not root needs them to mount anything.
    users: bool,
    place: PathBuf,
}

impl SmallDisk {
    /// One with so many bytes at this place, which is made if it is not there.
    ///
    /// # Panics
    /// When nothing can be mounted here: it needs root, or user namespaces for everybody.
    #[must_use]
    pub fn at(place: &Path, bytes: u64) -> Self {
        Self::mounted(place, bytes, IN_MEMORY)
            .unwrap_or_else(|| panic!("nothing can be mounted at {}", place.display()))
    }

    /// One that can hang.
    ///
    /// # Panics
    /// Where this machine cannot have it: it needs root, loop devices and `mkfs.ext4`.
    #[must_use]
    pub fn that_can_hang(place: &Path, bytes: u64) -> Self {
        Self::mounted(place, bytes, ON_A_DEVICE).unwrap_or_else(|| {
            panic!("a disk that can hang needs root, loop devices and ext4: run the tests as root, on a machine that has them")
        })
    }

    fn mounted(place: &Path, bytes: u64, how: &str) -> Option<Self> {
        fs::create_dir_all(place).expect("a writable directory");
        let users = fs::metadata("/proc/self").expect("/proc").uid() != 0;
        let mut command = Command::new("unshare");
        command.args(if users { &["--mount", "--map-root-user"][..] } else { &["--mount"] });
        command.args(["sh", "-c", &format!("{how} && echo mounted && exec sleep infinity")]);
        command.arg(place).arg(bytes.to_string());
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let (mut line, out) = (String::new(), holder.stdout.take().expect("piped"));
        let disk = Self { holder, users, place: place.into() };
        let said = BufReader::new(out).read_line(&mut line);
        (said.is_ok() && line == "mounted\n").then_some(disk)
    }

    /// Hangs it: whoever writes to it, or brings to it what was written, waits until what is returned is dropped. Nothing
    /// that waits can be killed, so it must be dropped first.
    ///
    /// # Panics
    /// When it is none that can hang.
    #[must_use]
    pub fn hang(&self) -> Hung<'_> {
        self.freezer("--freeze");
        Hung(self)
    }

    fn freezer(&self, what: &str) {
        let words = self.within("fsfreeze");
        let (program, arguments) = words.split_first().expect("never empty");
        let done = Command::new(program).args(arguments).arg(what).arg(&self.place).status().expect("nsenter runs");
        assert!(done.success(), "fsfreeze {what}");
    }

    /// The words that start a program that sees it.
    #[must_use]
    pub fn within(&self, program: impl Into<OsString>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["nsenter".into(), "--mount".into()];
        if self.users {
            words.extend(["--user".into(), "--preserve-credentials".into()]);
        }
        words.extend(["--target".into(), self.holder.id().to_string().into(), "--".into(), program.into()]);
        words
    }

    /// Something on it, as this process can reach it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        let seen = self.place.strip_prefix("/").expect("an absolute place");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(seen).join(name)
    }

    /// Takes all that is left of it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn fill(&self) {
        let mut filler = fs::File::options().create(true).append(true).open(self.path(FILLER)).expect("it is mounted");
        for piece in [64 << 10, 4096, 1] {
            while filler.write_all(&vec![b'x'; piece]).is_ok() {}
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn empty(&self) {
        fs::remove_file(self.path(FILLER)).expect("it was filled");
    }
}

/// A disk that hangs. Dropping lets it go on.
pub struct Hung<'d>(&'d SmallDisk);

impl Drop for Hung<'_> {
    fn drop(&mut self) {
        self.0.freezer("--unfreeze");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room() {
        let home = tempfile::tempdir().unwrap();
        let disk = SmallDisk::at(&home.path().join("small"), 1 << 20);
        let write = || {
            let words = disk.within("sh");
            let script = format!("head -c 9000 /dev/zero > {}/f", home.path().join("small").display());
            Command::new(&words[0]).args(&words[1..]).args(["-c", &script]).stderr(Stdio::null()).status().unwrap()
        };
        disk.fill();
        assert!(!write().success());
        disk.empty();
        assert!(write().success());
        assert_eq!(fs::metadata(disk.path("f")).unwrap().len(), 9000);
        assert!(!home.path().join("small/f").exists(), "nobody else sees it");
    }
}
