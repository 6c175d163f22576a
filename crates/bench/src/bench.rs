//! One run: the upstream, the kinds of targets to compare, and how thorough to be.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::proc::{self, Cpu};
use crate::target::{Kind, Site, Target, Upstream};

/// How long and how often things are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) closed_rounds: usize,
    pub(crate) closed_window: Duration,
    pub(crate) open_rounds: usize,
    pub(crate) open_window: Duration,
    pub(crate) stream_rounds: usize,
    /// Streams each connection asks for, one after the other.
    pub(crate) stream_waves: usize,
    pub(crate) slow_streams: usize,
    pub(crate) many_streams: usize,
    /// How long all slow streams are held open before memory is read.
    pub(crate) slow_hold: Duration,
    pub(crate) start_runs: usize,
}

/// Everything a scenario needs.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) site: Site,
    pub(crate) scale: Scale,
    pub(crate) upstream: Upstream,
}

/// Where programs are and files go.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) work: PathBuf,
    pub(crate) sluice: PathBuf,
    pub(crate) nginx: PathBuf,
}

/// Watches, while something is measured, what everybody else does to the machine.
#[derive(Debug)]
pub(crate) struct Watch {
    pids: Vec<u32>,
    ours: Cpu,
    everybody_us: f64,
    began: Instant,
}

// === impl Scale ===

impl Scale {
    /// For figures to be believed: about eight minutes.
    pub(crate) const FULL: Self = Self {
        closed_rounds: 7,
        closed_window: Duration::from_secs(3),
        open_rounds: 7,
        open_window: Duration::from_secs(8),
        stream_rounds: 5,
        stream_waves: 4,
        slow_streams: 2_000,
        many_streams: 10_000,
        slow_hold: Duration::from_secs(6),
        start_runs: 15,
    };

    /// To see that everything works: under a minute.
    pub(crate) const QUICK: Self = Self {
        closed_rounds: 2,
        closed_window: Duration::from_secs(1),
        open_rounds: 2,
        open_window: Duration::from_secs(2),
        stream_rounds: 2,
        stream_waves: 1,
        slow_streams: 500,
        many_streams: 2_000,
        slow_hold: Duration::from_secs(2),
        start_runs: 3,
    };
}

// === impl Bench ===

impl Bench {
    /// Starts the upstream and checks that every target's program is there.
    pub(crate) fn new(kinds: Vec<Kind>, places: Places, scale: Scale) -> Result<Self> {
        let upstream = Upstream::start(&places.work)?;
        let site =
            Site { upstream: upstream.address, directory: places.work, sluice: places.sluice, nginx: places.nginx };
        for kind in &kinds {
            kind.version(&site)?;
        }
        Ok(Self { kinds, site, scale, upstream })
    }

    /// Starts one target of each kind.
    pub(crate) fn line_up(&self) -> Result<Vec<Target>> {
        self.kinds.iter().map(|kind| Ok(kind.start(&self.site)?.0)).collect()
    }

    /// The kinds that have a process of their own.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().filter(|kind| kind.proxy)
    }

    /// Begins to watch for noise while `target` is measured.
    pub(crate) fn watch(&self, target: &Target) -> Result<Watch> {
        let mut pids = self.upstream.pids();
        pids.push(std::process::id());
        pids.extend(target.pids());
        Ok(Watch { ours: proc::cpu(&pids), everybody_us: proc::everybody_us()?, began: Instant::now(), pids })
    }
}

/// The order of targets in a round: each begins as often as the others, so that none always runs on a warm or
/// a tired machine.
pub(crate) fn order(targets: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..targets).map(move |place| (place + round) % targets)
}

/// Raises this process's limit on open files, and so its children's, to the hard limit; returns that.
pub(crate) fn raise_open_files() -> Result<u64> {
    let (soft, hard) = proc::open_files_limit()?;
    if soft < hard {
        // prlimit is in util-linux, hence on every Linux; std has no call for it and the bench no unsafe code.
        std::process::Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string(), &format!("--nofile={hard}:{hard}")])
            .status()?;
    }
    match proc::open_files_limit()? {
        (soft, _) if soft < 1024 => bail!("only {soft} open files are allowed: raise the limit"),
        (soft, _) => Ok(soft),
    }
}

// === impl Watch ===

impl Watch {
    /// CPU used since the start by processes other than the bench, the upstream and the target, and time
    /// stolen by the hypervisor, in percent of the whole machine.
    pub(crate) fn others_percent(&self) -> Result<f64> {
        let all = proc::everybody_us()? - self.everybody_us;
        let ours = (proc::cpu(&self.pids) - self.ours).total_us();
        let cores = std::thread::available_parallelism()?.get() as f64;
        let possible = self.began.elapsed().as_secs_f64() * 1e6 * cores;
        Ok(((all - ours) / possible * 100.0).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_target_comes_once_a_round_and_each_begins_in_turn() {
        assert_eq!(order(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(order(3, 1).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(order(3, 5).collect::<Vec<_>>(), [2, 0, 1]);
    }
}
