//! What is measured: a way to the upstream. Direct access, nginx and Sluice are rows of one table.

mod direct;
mod nginx;
mod sluice;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// How long a target may take to answer its first request.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How often readiness is asked for while a target starts: also the resolution of start times.
const ASK_EVERY: Duration = Duration::from_micros(500);

/// The key sent to targets that check none: as long as a real one, so that heads have one size.
const UNCHECKED_KEY: &str = "sk-bench-0123456789abcdef0123456789abcdef0123456789abcdef";

/// One kind of target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What was configured, for the report.
    pub(crate) about: &'static str,
    /// Whether there is a proxy whose own cost can be measured.
    pub(crate) proxy: bool,
    start: fn(&Site) -> Result<Target>,
    version: fn(&Site) -> Result<String>,
}

/// Every kind of target, in the order they are shown.
pub(crate) const KINDS: &[Kind] = &[direct::KIND, nginx::KIND, sluice::KIND];

/// What a target needs to know to start.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) upstream: SocketAddr,
    /// Where configuration, data and logs go.
    pub(crate) directory: PathBuf,
    pub(crate) sluice: PathBuf,
    pub(crate) nginx: PathBuf,
}

/// A running target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) call_path: String,
    pub(crate) stream_path: String,
    ready_path: &'static str,
    pub(crate) key: String,
    /// None for direct access.
    process: Option<Process>,
}

// === impl Kind ===

impl Kind {
    /// The kind called `name`.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let kind = KINDS.iter().find(|kind| kind.name == name);
        kind.copied().with_context(|| format!("no target {name:?}; there are {}", known.join(", ")))
    }

    /// The version of the program under test; an error says how to get it.
    pub(crate) fn version(&self, site: &Site) -> Result<String> {
        (self.version)(site)
    }

    /// Starts a target and waits until it is ready. Returns how long that took from the spawn on.
    pub(crate) fn start(&self, site: &Site) -> Result<(Target, Duration)> {
        let began = Instant::now();
        let mut target = (self.start)(site).with_context(|| format!("cannot start {}", self.name))?;
        // Preparing (config files, a key) is not starting: the clock of the process begins at its spawn.
        let spawned = target.process.as_ref().map_or(began, Process::spawned);
        target.wait_ready().with_context(|| format!("{} does not become ready", self.name))?;
        Ok((target, spawned.elapsed()))
    }
}

// === impl Site ===

impl Site {
    /// An empty directory for one target's files.
    fn fresh_directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(std::path::absolute(directory)?)
    }
}

// === impl Target ===

impl Target {
    /// The upstream itself.
    pub(crate) fn direct(upstream: SocketAddr) -> Self {
        Self {
            name: direct::KIND.name,
            address: upstream,
            call_path: "/v1/chat/completions".to_owned(),
            stream_path: "/v1/chat/completions".to_owned(),
            ready_path: "/health",
            key: UNCHECKED_KEY.to_owned(),
            process: None,
        }
    }

    /// The processes whose CPU and memory are this target's.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::pids).unwrap_or_default()
    }

    /// Fails if the target's process has ended.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::ensure_alive)
    }

    /// Keeps the target's log from filling the disk.
    pub(crate) fn trim_log(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), Process::trim_log)
    }

    /// The end of the target's log, for error messages.
    pub(crate) fn log_end(&self) -> String {
        self.process.as_ref().map(Process::log_end).unwrap_or_default()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if matches!(status_of(self.address, self.ready_path), Ok(200)) {
                return Ok(());
            }
            self.ensure_alive()?;
            if Instant::now() > deadline {
                bail!("no 200 on {} within {READY_WITHIN:?}:\n{}", self.ready_path, self.log_end());
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

/// The stub upstream as a process of its own.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    process: Process,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let address = free_address()?;
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["upstream", "--port", &address.port().to_string()]);
        let process = Process::start(&mut command, &directory.join("upstream.log"))?;
        let mut ready = Target::direct(address);
        ready.wait_ready().context("the stub upstream does not start")?;
        Ok(Self { address, process })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.process.pids()
    }
}

/// A loopback address nobody listens on at the moment.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The status of one GET on a connection of its own.
fn status_of(address: SocketAddr, path: &str) -> Result<u16> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut start = [0; 12];
    socket.read_exact(&mut start)?;
    let digits = start.get(9..).unwrap_or_default();
    Ok(std::str::from_utf8(digits)?.parse()?)
}
