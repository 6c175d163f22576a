//! A child process that never outlives the bench.
//!
//! Each child leads a process group of its own, so that nginx's workers are found, counted and ended with
//! their master. Dropping it asks the group to stop, waits a little and then kills what is left.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::proc;

/// How long a child may take to stop when asked.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Bound: how large a child's log may grow before it is emptied, between measurements only.
const LOG_BYTES: u64 = 256 << 20;

/// A running child and everything it has started.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    spawned: Instant,
}

// === impl Process ===

impl Process {
    /// Starts `command`, its output going to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        // Appending, so that the log can be cut while the child writes to it.
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let output = File::options().append(true).open(log)?;
        let spawned = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, log: log.to_owned(), spawned })
    }

    /// When it was started.
    pub(crate) fn spawned(&self) -> Instant {
        self.spawned
    }

    /// Every process of the group.
    pub(crate) fn pids(&self) -> Vec<u32> {
        proc::group(self.child.id())
    }

    /// Fails, with the end of its log, if the child has ended.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.log.display(), self.log_end());
        }
        Ok(())
    }

    /// The last lines the child wrote.
    pub(crate) fn log_end(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        tail.join("\n")
    }

    /// Empties the log if it has grown large: an access log under full load would fill the disk.
    pub(crate) fn trim_log(&self) -> Result<()> {
        if std::fs::metadata(&self.log)?.len() > LOG_BYTES {
            File::options().write(true).open(&self.log)?.set_len(0)?;
        }
        Ok(())
    }

    fn signal(&self, signal: &str) {
        send_signal(signal, &format!("-{}", self.child.id()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended && self.pids().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.signal("KILL");
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a signal through the shell's own `kill`: the bench has no unsafe code and needs no crate for this.
pub(crate) fn send_signal(signal: &str, whom: &str) {
    let script = format!("kill -s {signal} -- {whom}");
    Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().ok();
}
