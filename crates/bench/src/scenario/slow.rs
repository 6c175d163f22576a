//! Slow streams: what an open stream costs in memory, and whether ten thousand can be open at once.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bench::Bench;
use crate::client::Connection;
use crate::client::transcript::Transcript;
use crate::figures::Section;
use crate::load::{Counts, Load};
use crate::proc;
use crate::request::{self, StreamShape};
use crate::target::{Kind, Target};

/// One chunk each second.
const INTERVAL_MS: u64 = 1000;

/// Bound: streams being opened at the same time, well under any listener's backlog.
const OPENING_AT_ONCE: usize = 128;

/// How long opening all of them may take.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// Seconds a stream goes on beyond the hold: the opening of ten thousand takes some.
const SPARE_CHUNKS: u32 = 12;

/// Descriptors a proxy needs besides its streams'.
const SPARE_DESCRIPTORS: u64 = 100;

/// Loopback addresses the clients come from: 28,000 ephemeral ports each.
const SOURCES: usize = 16;

const PER_STREAM: &str = "RSS per open stream";
const BROKEN: &str = "broken streams";
const AT_ONCE: &str = "open at once";

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let mut memory = Section::new(
        "slow",
        format!("Slow streams: {} open, a chunk each second", bench.scale.slow_streams),
        "RSS of the proxy's processes after a warm-up of plain requests and with all streams open; the \
         difference per stream. Each proxy is started afresh.",
    );
    for kind in bench.proxies() {
        measure_one(bench, kind, bench.scale.slow_streams, &mut memory).await?;
    }
    memory.demand_at_most(PER_STREAM, 40.0);
    memory.demand_none(BROKEN);

    let allowed = proc::open_files_limit()?.0;
    let possible = usize::try_from(allowed.saturating_sub(SPARE_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    let streams = bench.scale.many_streams.min(possible);
    let mut many = Section::new(
        "many",
        format!("Many streams: {streams} open at once"),
        "All are opened, held and read to their end; each must arrive whole.",
    );
    if streams < bench.scale.many_streams {
        many.notes.push(format!(
            "{streams} instead of {}: this machine allows {allowed} open files per process, and a proxy of one \
             process needs two for each stream.",
            bench.scale.many_streams
        ));
    }
    for kind in bench.proxies() {
        measure_one(bench, kind, streams, &mut many).await?;
    }
    many.demand_none(BROKEN);
    many.demand_at_least(AT_ONCE, streams as f64);
    Ok(vec![memory, many])
}

async fn measure_one(bench: &Bench, kind: &Kind, streams: usize, section: &mut Section) -> Result<()> {
    let (mut target, _) = kind.start(&bench.site)?;
    let load = Load::calls(&target, 64);
    sleep(Duration::from_secs(1)).await;
    let warm = load.finish().await;
    if warm.done() == 0 {
        bail!("{} answers nothing: {}", kind.name, warm.first_failure());
    }
    sleep(Duration::from_secs(1)).await;
    let proxy = target.pids();
    let before = proc::resident_bytes(&proxy);

    let began = Instant::now();
    let mut crowd = Crowd::gather(bench, &target, streams);
    crowd.wait_open(streams).await;
    let opened_in = began.elapsed();
    sleep(bench.scale.slow_hold).await;
    let at_once = crowd.open.load(Ordering::Relaxed);
    let after = proc::resident_bytes(&proxy);
    while crowd.clients.join_next().await.is_some() {}
    target.ensure_alive()?;

    let growth = after.saturating_sub(before) as f64 / streams as f64;
    section.put(kind.name, PER_STREAM, "KiB", growth / 1024.0);
    section.put(kind.name, "RSS before", "MiB", before as f64 / 1_048_576.0);
    section.put(kind.name, "RSS with all open", "MiB", after as f64 / 1_048_576.0);
    section.put(kind.name, "time to open all", "s", opened_in.as_secs_f64());
    section.put(kind.name, AT_ONCE, "", at_once as f64);
    section.put(kind.name, "whole streams", "", crowd.counts.done() as f64);
    section.put(kind.name, BROKEN, "", crowd.counts.failed() as f64);
    if crowd.counts.failed() > 0 {
        section.notes.push(format!("{}: {}", kind.name, crowd.counts.first_failure()));
    }
    Ok(())
}

/// Many clients, each with one stream.
struct Crowd {
    clients: JoinSet<()>,
    counts: Arc<Counts>,
    /// Streams whose first chunk has come and whose last has not.
    open: Arc<AtomicUsize>,
}

// === impl Crowd ===

impl Crowd {
    fn gather(bench: &Bench, target: &Target, streams: usize) -> Self {
        let hold = u32::try_from(bench.scale.slow_hold.as_secs()).unwrap_or(u32::MAX);
        let shape = StreamShape { chunks: hold.saturating_add(SPARE_CHUNKS), interval_ms: INTERVAL_MS };
        let request: Arc<[u8]> = request::stream(target, shape).into();
        let opening = Arc::new(Semaphore::new(OPENING_AT_ONCE));
        let mut crowd = Self { clients: JoinSet::new(), counts: Arc::default(), open: Arc::default() };
        for number in 0..streams {
            let (request, opening) = (Arc::clone(&request), Arc::clone(&opening));
            let (counts, open, address) = (Arc::clone(&crowd.counts), Arc::clone(&crowd.open), target.address);
            let source = u8::try_from(number % SOURCES).unwrap_or(0);
            crowd.clients.spawn(async move {
                let mut permit = opening.acquire_owned().await.ok();
                let mut counted = false;
                let listening = async {
                    let mut connection = Connection::open(address, Some(Ipv4Addr::new(127, 0, 1, source))).await?;
                    let mut transcript = Transcript::default();
                    let on_piece = |heard: &Transcript| {
                        if !counted && heard.chunks() > 0 {
                            counted = true;
                            open.fetch_add(1, Ordering::Relaxed);
                            permit.take();
                        }
                    };
                    connection.stream(&request, &mut transcript, on_piece).await?;
                    transcript.fault(shape.chunks).map_or(Ok(()), |fault| bail!(fault))
                };
                let limit = OPEN_WITHIN + Duration::from_secs(u64::from(shape.chunks) * 2);
                match timeout(limit, listening).await {
                    Ok(Ok(())) => counts.succeed(),
                    Ok(Err(error)) => counts.fail(format!("{error:#}")),
                    Err(_) => counts.fail("hung"),
                }
                if counted {
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
        crowd
    }

    /// Waits until every stream is open or has failed, or the time for it is over.
    async fn wait_open(&self, streams: usize) {
        let settled = async {
            let failed = || usize::try_from(self.counts.failed()).unwrap_or(usize::MAX);
            while self.open.load(Ordering::Relaxed) + failed() < streams {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(OPEN_WITHIN, settled).await.ok();
    }
}
