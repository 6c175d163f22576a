//! Fast streams: what a chunk costs the proxy, and whether every stream arrives whole.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bench::{Bench, order};
use crate::client::Connection;
use crate::client::transcript::Transcript;
use crate::figures::{NOISE, Section};
use crate::load::Counts;
use crate::proc;
use crate::request::{self, StreamShape};
use crate::target::Target;

const STREAMS: usize = 200;

const SHAPE: StreamShape = StreamShape { chunks: 50, interval_ms: 20 };

/// A stream of one second that has not ended by then has hung.
const STREAM_WITHIN: Duration = Duration::from_secs(30);

const CPU: &str = "CPU per chunk";
const CPU_RATIO: &str = "CPU per chunk / nginx";
const BROKEN: &str = "broken streams";

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let mut section = Section::new(
        "streams",
        "Streams: 200 at once, 50 chunks each, 20 ms apart",
        format!(
            "Each connection asks for {} streams one after the other; their chunks are spread evenly over the \
             interval. CPU of all the proxy's processes, heads and ends included, per chunk of content received. \
             A stream is whole if every numbered chunk came once and in order, then [DONE].",
            bench.scale.stream_waves
        ),
    );
    let mut targets = bench.line_up()?;
    for round in 0..bench.scale.stream_rounds {
        for at in order(targets.len(), round) {
            if let Some(target) = targets.get_mut(at) {
                measure_one(bench, target, &mut section).await?;
            }
        }
    }
    section.compare(CPU, ("sluice", "nginx"), (CPU_RATIO, "×"), |of, to| of / to);
    section.demand_at_most(CPU_RATIO, 1.2);
    section.demand_none(BROKEN);
    Ok(vec![section])
}

async fn measure_one(bench: &Bench, target: &mut Target, section: &mut Section) -> Result<()> {
    let request: Arc<[u8]> = request::stream(target, SHAPE).into();
    let counts = Arc::new(Counts::default());
    let (proxy, waves, address) = (target.pids(), bench.scale.stream_waves, target.address);
    let watch = bench.watch(target)?;
    let before = proc::cpu(&proxy);
    let mut clients = JoinSet::new();
    for number in 0..STREAMS {
        let (request, counts) = (Arc::clone(&request), Arc::clone(&counts));
        clients.spawn(async move {
            // Begun all at once, the streams would tick in step and every wake-up serve two hundred chunks.
            sleep(Duration::from_millis(number as u64 % SHAPE.interval_ms)).await;
            let mut connection = None;
            let mut chunks = 0;
            for _ in 0..waves {
                match timeout(STREAM_WITHIN, listen(address, &mut connection, &request)).await {
                    Ok(Ok(heard)) => {
                        chunks += u64::from(heard);
                        counts.succeed();
                    }
                    Ok(Err(error)) => counts.fail(format!("{error:#}")),
                    Err(_) => counts.fail("hung"),
                }
            }
            chunks
        });
    }
    let mut chunks = 0;
    while let Some(heard) = clients.join_next().await {
        chunks += heard?;
    }
    let cost = proc::cpu(&proxy) - before;
    let others = watch.others_percent()?;
    target.ensure_alive()?;
    if counts.failed() > 0 {
        section.notes.push(format!("{}: {}", target.name, counts.first_failure()));
    }
    let per_chunk = 1.0 / chunks.max(1) as f64;
    if !proxy.is_empty() {
        section.put(target.name, CPU, "µs", cost.total_us() * per_chunk);
        section.put(target.name, "of it user", "µs", cost.user_us * per_chunk);
        section.put(target.name, "of it system", "µs", cost.system_us * per_chunk);
    }
    section.put(target.name, "whole streams", "", counts.done() as f64);
    section.put(target.name, BROKEN, "", counts.failed() as f64);
    section.put(target.name, NOISE, "%", others);
    Ok(())
}

/// Hears one whole stream, on the kept connection if there is one.
async fn listen(to: std::net::SocketAddr, kept: &mut Option<Connection>, request: &[u8]) -> Result<u32> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(to, None).await?,
    };
    let mut transcript = Transcript::default();
    let head = connection.stream(request, &mut transcript, |_| ()).await?;
    if let Some(fault) = transcript.fault(SHAPE.chunks) {
        bail!(fault);
    }
    *kept = (!head.close).then_some(connection);
    Ok(transcript.chunks())
}
