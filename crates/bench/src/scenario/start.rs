//! Start: how long until a fresh process answers, and what it weighs before it has work.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::bench::Bench;
use crate::figures::Section;
use crate::proc;

/// How long a started proxy is left alone before its memory is read.
const SETTLE: Duration = Duration::from_millis(1500);

const READY: &str = "start to ready";
const IDLE: &str = "idle RSS";

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let mut section = Section::new(
        "start",
        "Start and idle",
        "From the spawn of the process to the first 200 (Sluice: /ready; nginx: /health through the proxy), asked \
         for every half millisecond; RSS of all processes 1.5 s later, before any request of a client.",
    );
    for _ in 0..bench.scale.start_runs {
        for kind in bench.proxies() {
            let (target, took) = kind.start(&bench.site)?;
            sleep(SETTLE).await;
            let idle = proc::resident_bytes(&target.pids());
            section.put(kind.name, READY, "ms", took.as_secs_f64() * 1e3);
            section.put(kind.name, IDLE, "MiB", idle as f64 / 1_048_576.0);
        }
    }
    section.demand_at_most(READY, 150.0);
    section.demand_at_most(IDLE, 25.0);
    Ok(vec![section])
}
