//! System calls per request, counted by strace. They are where a proxy's time goes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use super::closed::CONNECTIONS;
use crate::bench::Bench;
use crate::figures::Section;
use crate::load::Load;
use crate::process::send_signal;
use crate::target::Kind;

/// How long strace may take to attach to every thread, and to write its table.
const ATTACH: Duration = Duration::from_secs(1);

/// How long requests are counted.
const WINDOW: Duration = Duration::from_secs(4);

/// The calls a proxy lives on, by name; all others are one row.
const SHOWN: [&str; 15] = [
    "total",
    "read",
    "write",
    "readv",
    "writev",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "epoll_wait",
    "epoll_ctl",
    "futex",
    "accept4",
    "connect",
    "other",
];

/// Counts the system calls of every proxy while it serves the closed loop's requests.
///
/// Traced programs are slow, so that more events may be found per wake-up than without strace: take the
/// figures for `epoll_wait` as a lower bound.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(
        "syscalls",
        "System calls per request",
        "strace -c over all processes and threads of the proxy, divided by the requests answered meanwhile. strace \
         slows a proxy down, so wake-ups are batched more than in real life.",
    );
    for kind in bench.proxies() {
        let table = trace(bench, kind).await?;
        for shown in SHOWN {
            let calls: f64 = table.iter().filter(|(name, _)| shown_as(name) == shown).map(|(_, calls)| calls).sum();
            if calls > 0.0 {
                section.put(kind.name, shown, "per request", calls);
            }
        }
    }
    Ok(section)
}

async fn trace(bench: &Bench, kind: &Kind) -> Result<Vec<(String, f64)>> {
    let (mut target, _) = kind.start(&bench.site)?;
    let warm = Load::calls(&target, CONNECTIONS);
    sleep(Duration::from_secs(1)).await;
    warm.finish().await;
    let output = bench.site.directory.join("strace.txt");
    // Attached before the load and detached after it: every call counted belongs to a counted request.
    let mut strace = attach(&target.pids(), &output)?;
    sleep(ATTACH).await;
    let load = Load::calls(&target, CONNECTIONS);
    sleep(WINDOW).await;
    let counts = load.finish().await;
    send_signal("INT", &strace.id().to_string());
    strace.wait()?;
    target.ensure_alive()?;
    if counts.done() == 0 {
        bail!("{} answered nothing: {}", kind.name, counts.first_failure());
    }
    let text = fs::read_to_string(&output).context("strace wrote no table")?;
    let requests = counts.done() as f64;
    Ok(table_of(&text).into_iter().map(|(name, calls)| (name, calls / requests)).collect())
}

fn attach(pids: &[u32], output: &Path) -> Result<Child> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(output);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.context("cannot run strace (on Debian: apt-get install strace)")
}

/// Name and count of each call in strace's table, its total last.
fn table_of(text: &str) -> Vec<(String, f64)> {
    let row = |line: &str| {
        // % time, seconds, usecs/call, calls, errors (may be empty), name
        let fields: Vec<&str> = line.split_whitespace().collect();
        let share: Option<f64> = fields.first()?.parse().ok();
        share?;
        let calls = fields.get(3)?.parse().ok()?;
        Some(((*fields.last()?).to_owned(), calls))
    };
    text.lines().filter_map(row).collect()
}

fn shown_as(name: &str) -> &'static str {
    SHOWN.into_iter().find(|shown| *shown == name).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    60.00    0.600000           6    100000       250 recvfrom\n \
                    40.00    0.400000           4     90000           writev\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    1.000000           5    190000       250 total\n";
        let expected = [("recvfrom", 100_000.0), ("writev", 90_000.0), ("total", 190_000.0)];
        assert_eq!(table_of(text), expected.map(|(name, calls)| (name.to_owned(), calls)));
    }
}
