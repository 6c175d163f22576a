//! Open loop: latency at a fixed rate, counted from when a request was due, not from when it could be sent.
//!
//! A closed loop hides stalls, because it stops asking while it waits. Here requests are due every
//! millisecond whatever happens; a stall is felt by every request that was due in it.
//!
//! The senders are plain threads with blocking sockets: the runtime's timers have a resolution of one
//! millisecond, a thread's sleep one of some microseconds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;
use tokio::sync::oneshot;

use crate::bench::{Bench, order};
use crate::codec::{Inbox, Progress, READ_ROOM};
use crate::figures::{NOISE, Section, show};
use crate::request;
use crate::target::Target;

/// Requests due per second.
const RATE: u32 = 1000;

/// Threads that share the schedule. Each has 32 ms for a request before the next one it must send is late.
const SENDERS: u32 = 32;

/// Seconds of the schedule that are sent but not counted.
const WARM_UP_SECONDS: u32 = 1;

/// Latencies are kept in nanoseconds up to one minute, with three digits.
const LONGEST_NS: u64 = 60_000_000_000;

/// No answer by then is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const FAILED: &str = "failed requests";

/// A percentile of interest: the quantile, its name, and the name of what a proxy adds to it.
const PERCENTILES: [(f64, &str, &str); 4] = [
    (0.5, "p50", "p50 added over direct"),
    (0.9, "p90", "p90 added over direct"),
    (0.99, "p99", "p99 added over direct"),
    (0.999, "p99.9", "p99.9 added over direct"),
];

/// What the senders of one round saw.
#[derive(Debug)]
struct Seen {
    latency: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
}

/// The part of the schedule that one sender keeps.
#[derive(Debug, Clone)]
struct Turn {
    to: SocketAddr,
    request: Arc<[u8]>,
    first_due: Instant,
    every: Duration,
    uncounted: u32,
    counted: u32,
}

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let mut section = Section::new(
        "open",
        "Open loop: latency at 1,000 requests per second",
        "One request is due each millisecond; latency runs from the due time to the last byte of the answer. \
         What a proxy adds is the difference of the two percentiles in the same round.",
    );
    let mut targets = bench.line_up()?;
    for round in 0..bench.scale.open_rounds {
        for at in order(targets.len(), round) {
            if let Some(target) = targets.get_mut(at) {
                measure_one(bench, target, &mut section).await?;
            }
        }
    }
    for (_, name, added) in PERCENTILES {
        for proxy in bench.proxies() {
            section.compare(name, (proxy.name, "direct"), (added, "µs"), |of, to| of - to);
        }
    }
    let direct = section.figures.iter().find(|figure| figure.target == "direct" && figure.name == "p99");
    let noise = direct.map(|direct| {
        format!(
            "The machine's noise: direct access alone had p99 between {} and {} µs over the rounds.",
            show(direct.min),
            show(direct.max)
        )
    });
    section.notes.extend(noise);
    section.demand_at_most("p50 added over direct", 180.0);
    section.demand_at_most("p99 added over direct", 500.0);
    section.demand_none(FAILED);
    Ok(vec![section])
}

async fn measure_one(bench: &Bench, target: &mut Target, section: &mut Section) -> Result<()> {
    let request: Arc<[u8]> = request::call(target).into();
    let (to, window) = (target.address, bench.scale.open_window);
    let watch = bench.watch(target)?;
    let (tell, told) = oneshot::channel();
    thread::spawn(move || tell.send(send_all(to, &request, window)).ok());
    let seen = told.await.context("the senders ended without a result")??;
    let others = watch.others_percent()?;
    target.ensure_alive()?;
    target.trim_log()?;

    for (quantile, name, _) in PERCENTILES {
        section.put(target.name, name, "µs", seen.latency.value_at_quantile(quantile) as f64 / 1e3);
    }
    section.put(target.name, "slowest", "µs", seen.latency.max() as f64 / 1e3);
    section.put(target.name, FAILED, "", seen.failed as f64);
    section.put(target.name, NOISE, "%", others);
    if let Some(why) = seen.first_failure {
        section.notes.push(format!("{}: {why}", target.name));
    }
    Ok(())
}

/// Runs the whole schedule on this thread's children.
fn send_all(to: SocketAddr, request: &Arc<[u8]>, window: Duration) -> Result<Seen> {
    sharpen_sleep();
    let period = Duration::from_secs(1) / RATE;
    let begin = Instant::now() + Duration::from_millis(100);
    let share = |seconds: u32| RATE * seconds / SENDERS;
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| {
            let turn = Turn {
                to,
                request: Arc::clone(request),
                first_due: begin + period * number,
                every: period * SENDERS,
                uncounted: share(WARM_UP_SECONDS),
                counted: share(u32::try_from(window.as_secs()).unwrap_or(1)),
            };
            thread::spawn(move || turn.keep())
        })
        .collect();
    let mut all = Seen::nothing()?;
    for sender in senders {
        let seen = sender.join().map_err(|_| anyhow!("a sender panicked"))??;
        all.latency.add(seen.latency)?;
        all.failed += seen.failed;
        all.first_failure = all.first_failure.or(seen.first_failure);
    }
    Ok(all)
}

/// Lets the sleeps of this thread, and of threads it starts, end when they are due instead of up to 50 µs
/// later. Where the kernel does not offer it, every target's latency grows by the same.
fn sharpen_sleep() {
    let thread = std::fs::read_link("/proc/thread-self").ok();
    let id = thread.as_ref().and_then(|path| path.file_name()?.to_str());
    if let Some(id) = id {
        std::fs::write(format!("/proc/{id}/timerslack_ns"), "1").ok();
    }
}

// === impl Seen ===

impl Seen {
    fn nothing() -> Result<Self> {
        Ok(Self { latency: Histogram::new_with_bounds(1, LONGEST_NS, 3)?, failed: 0, first_failure: None })
    }
}

// === impl Turn ===

impl Turn {
    fn keep(self) -> Result<Seen> {
        let mut seen = Seen::nothing()?;
        let mut socket = None;
        for number in 0..self.uncounted + self.counted {
            let due = self.first_due + self.every * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let result = self.ask(&mut socket);
            if let Err(error) = result {
                socket = None;
                seen.failed += 1;
                seen.first_failure.get_or_insert_with(|| format!("{error:#}"));
            } else if number >= self.uncounted {
                let latency = u64::try_from(due.elapsed().as_nanos()).unwrap_or(LONGEST_NS);
                seen.latency.saturating_record(latency);
            }
        }
        Ok(seen)
    }

    fn ask(&self, kept: &mut Option<TcpStream>) -> Result<()> {
        let mut socket = match kept.take() {
            Some(socket) => socket,
            None => {
                let socket = TcpStream::connect(self.to)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(ANSWER_WITHIN))?;
                socket
            }
        };
        socket.write_all(&self.request)?;
        let (mut inbox, mut head) = (Inbox::default(), None);
        let mut buffer = [0; READ_ROOM];
        loop {
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                bail!("the connection was closed within an answer");
            }
            inbox.extend(buffer.get(..read).unwrap_or_default());
            if head.is_none() {
                head = inbox.answer_head()?;
            }
            let Some(head) = head else { continue };
            if inbox.drain(|_| ())? == Progress::More {
                continue;
            }
            if head.status != 200 {
                bail!("status {}", head.status);
            }
            *kept = (!head.close).then_some(socket);
            return Ok(());
        }
    }
}
