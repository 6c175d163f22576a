//! What the kernel says about processes and the machine, read from `/proc`.

use std::fs;
use std::ops::{Add, Sub};

use anyhow::{Context, Result};

/// The unit of CPU times in `/proc`: 100 per second on every Linux this runs on.
const TICK_US: f64 = 10_000.0;

/// CPU time spent, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
}

// === impl Cpu ===

impl Cpu {
    pub(crate) fn total_us(self) -> f64 {
        self.user_us + self.system_us
    }
}

impl Add for Cpu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { user_us: self.user_us + other.user_us, system_us: self.system_us + other.system_us }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { user_us: self.user_us - other.user_us, system_us: self.system_us - other.system_us }
    }
}

/// CPU time of these processes together, all threads, since each began. A process that is gone counts zero.
pub(crate) fn cpu(pids: &[u32]) -> Cpu {
    pids.iter().filter_map(|pid| stat_of(*pid)).map(|stat| stat.cpu).fold(Cpu::default(), Add::add)
}

/// Resident memory of these processes together, in bytes (`VmRSS`; pages they share count once for each).
pub(crate) fn resident_bytes(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| resident_of(*pid)).sum()
}

/// The processes of a process group.
pub(crate) fn group(leader: u32) -> Vec<u32> {
    let pids = all_pids().unwrap_or_default();
    pids.into_iter().filter(|pid| stat_of(*pid).is_some_and(|stat| stat.group == leader && !stat.zombie)).collect()
}

/// CPU time of every process since boot, ended ones included, and time stolen by the hypervisor.
///
/// `/proc/stat` would be one read, but the kernel samples it at its ticks: load that comes in step with the
/// tick, as an open loop's does, is then seen always or never. The times of processes are exact. An ended
/// child's time moves to the parent that waited for it, so the sum over all loses nothing.
pub(crate) fn everybody_us() -> Result<f64> {
    let mut sum = stolen_us()?;
    for pid in all_pids()? {
        // A process that ends meanwhile has just moved to its parent, at worst after that was read.
        sum += stat_of(pid).map_or(0.0, |stat| stat.cpu.total_us() + stat.ended_children_us);
    }
    Ok(sum)
}

fn stolen_us() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    // cpu user nice system idle iowait irq softirq steal
    let ticks: f64 = line.split_whitespace().nth(8).and_then(|field| field.parse().ok()).unwrap_or(0.0);
    Ok(ticks * TICK_US)
}

fn all_pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// How many files a process started here may have open: the soft and the hard limit.
pub(crate) fn open_files_limit() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().find(|line| line.starts_with("Max open files")).context("no limit on open files")?;
    let mut numbers = line.split_whitespace().skip(3).map(|field| field.parse().unwrap_or(u64::MAX));
    let soft = numbers.next().context("no soft limit")?;
    let hard = numbers.next().context("no hard limit")?;
    Ok((soft, hard))
}

/// The processor's name and the number of cores.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores")
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

struct Stat {
    group: u32,
    zombie: bool,
    cpu: Cpu,
    /// Of children that ended and were waited for.
    ended_children_us: f64,
}

fn stat_of(pid: u32) -> Option<Stat> {
    stat_from(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn stat_from(text: &str) -> Option<Stat> {
    // The command's name may hold spaces and brackets: fields are counted from behind its last bracket.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace();
    let zombie = fields.next()? == "Z";
    let group = fields.nth(1)?.parse().ok()?;
    let user: f64 = fields.nth(8)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let children_user: f64 = fields.next()?.parse().ok()?;
    let children_system: f64 = fields.next()?.parse().ok()?;
    Some(Stat {
        group,
        zombie,
        cpu: Cpu { user_us: user * TICK_US, system_us: system * TICK_US },
        ended_children_us: (children_user + children_system) * TICK_US,
    })
}

fn resident_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let stat = stat_from("42 (a) b (c) S 1 77 77 0 -1 4194560 9 0 0 0 250 130 3 4 20 0 1 0").unwrap();
        assert_eq!((stat.group, stat.zombie), (77, false));
        assert_eq!(stat.cpu, Cpu { user_us: 2_500_000.0, system_us: 1_300_000.0 });
        assert_eq!(stat.ended_children_us, 70_000.0);
    }

    #[test]
    fn this_process_has_memory_and_its_work_shows_in_everybodys() {
        assert!(resident_bytes(&[std::process::id()]) > 100_000);
        assert!(open_files_limit().unwrap().1 >= 256);
        let before = everybody_us().unwrap();
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 100 {}
        assert!(everybody_us().unwrap() - before >= 20_000.0);
    }
}
