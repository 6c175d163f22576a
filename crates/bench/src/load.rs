//! Closed-loop load: a number of connections, each sending its next request when the last is answered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::Connection;
use crate::client::transcript::Transcript;
use crate::request::{self, StreamShape};
use crate::target::Target;

/// How long a connection waits after a failure before it tries again: a broken target must not be flooded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// How long the last answers may take once the load is asked to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// An answer shorter than this is not the upstream's.
const LEAST_BODY_BYTES: usize = 1000;

/// What has come of the load so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<String>,
}

/// Load that runs until it is told to stop. Dropping it stops it at once.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    connections: JoinSet<()>,
}

// === impl Counts ===

impl Counts {
    /// Requests answered as they should be.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Requests that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How the first failure failed.
    pub(crate) fn first_failure(&self) -> &str {
        self.first_failure.get().map_or("", String::as_str)
    }

    pub(crate) fn succeed(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, why: impl Into<String>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure.get_or_init(|| why.into());
    }
}

// === impl Load ===

impl Load {
    /// Starts `calls` connections with non-streaming requests and `streams` with streams of this shape.
    pub(crate) fn start(target: &Target, calls: usize, streams: usize, shape: StreamShape) -> Self {
        let mut load = Self { counts: Arc::default(), stop: Arc::default(), connections: JoinSet::new() };
        let call: Arc<[u8]> = request::call(target).into();
        let stream: Arc<[u8]> = request::stream(target, shape).into();
        for number in 0..calls + streams {
            let (counts, stop) = (Arc::clone(&load.counts), Arc::clone(&load.stop));
            let (call, stream, address) = (Arc::clone(&call), Arc::clone(&stream), target.address);
            load.connections.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let result = async {
                        let mut connection = Connection::open(address, None).await?;
                        if number < calls {
                            call_on(&mut connection, &call, &counts, &stop).await
                        } else {
                            stream_on(&mut connection, &stream, shape.chunks, &counts, &stop).await
                        }
                    };
                    if let Err(error) = result.await {
                        counts.fail(format!("{error:#}"));
                        sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            });
        }
        load
    }

    /// Only non-streaming requests.
    pub(crate) fn calls(target: &Target, connections: usize) -> Self {
        let unused = StreamShape { chunks: 1, interval_ms: 0 };
        Self::start(target, connections, 0, unused)
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Lets every connection finish what it is at. A request without an answer by then has failed.
    pub(crate) async fn finish(mut self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let all = async { while self.connections.join_next().await.is_some() {} };
        if timeout(FINISH_WITHIN, all).await.is_err() {
            for _ in 0..self.connections.len() {
                self.counts.fail("no answer");
            }
        }
        Arc::clone(&self.counts)
    }
}

async fn call_on(connection: &mut Connection, request: &[u8], counts: &Counts, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.call(request).await?;
        if answer.head.status != 200 || answer.body_bytes < LEAST_BODY_BYTES {
            bail!("status {} with {} bytes", answer.head.status, answer.body_bytes);
        }
        counts.succeed();
        if answer.head.close {
            break;
        }
    }
    Ok(())
}

async fn stream_on(
    connection: &mut Connection,
    request: &[u8],
    chunks: u32,
    counts: &Counts,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut transcript = Transcript::default();
        let head = connection.stream(request, &mut transcript, |_| ()).await?;
        if let Some(fault) = transcript.fault(chunks) {
            bail!("broken stream: {fault}");
        }
        counts.succeed();
        if head.close {
            break;
        }
    }
    Ok(())
}
