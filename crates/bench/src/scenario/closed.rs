//! Closed loop: what a non-streaming request costs the proxy, and how many there can be per second.
//!
//! Upstream and load client share the machine with the proxy, so requests/s say little about the proxy alone;
//! CPU per request does.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use crate::bench::{Bench, order};
use crate::figures::{NOISE, Section};
use crate::load::Load;
use crate::proc;
use crate::target::Target;

/// Connections, each with one request under way.
pub(crate) const CONNECTIONS: usize = 64;

/// How long the load runs before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);

const CPU: &str = "CPU per request";
const RATE: &str = "requests per second";
const CPU_RATIO: &str = "CPU per request / nginx";
const RATE_RATIO: &str = "requests per second / nginx";
const FAILED: &str = "failed requests";

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let mut section = Section::new(
        "closed",
        "Closed loop: 64 connections, 1 KB prompt, 1.5 KB answer",
        "Each connection sends its next request when the last is answered. CPU is user and system time of all \
         the proxy's processes, per completed request.",
    );
    let mut targets = bench.line_up()?;
    for round in 0..bench.scale.closed_rounds {
        for at in order(targets.len(), round) {
            if let Some(target) = targets.get_mut(at) {
                measure_one(bench, target, &mut section).await?;
            }
        }
    }
    section.compare(CPU, ("sluice", "nginx"), (CPU_RATIO, "×"), |of, to| of / to);
    section.compare(RATE, ("sluice", "nginx"), (RATE_RATIO, "×"), |of, to| of / to);
    section.demand_at_most(CPU_RATIO, 1.4);
    section.demand_at_least(RATE_RATIO, 0.75);
    section.demand_none(FAILED);
    Ok(vec![section])
}

async fn measure_one(bench: &Bench, target: &mut Target, section: &mut Section) -> Result<()> {
    let load = Load::calls(target, CONNECTIONS);
    sleep(WARM_UP).await;
    let (proxy, own, upstream) = (target.pids(), [std::process::id()], bench.upstream.pids());
    let watch = bench.watch(target)?;
    let before = [proc::cpu(&proxy), proc::cpu(&own), proc::cpu(&upstream)];
    let (done_before, began) = (load.counts().done(), Instant::now());
    sleep(bench.scale.closed_window).await;
    let (done, took) = (load.counts().done() - done_before, began.elapsed());
    let [proxy_before, own_before, upstream_before] = before;
    let cost = proc::cpu(&proxy) - proxy_before;
    let own_cost = proc::cpu(&own) - own_before;
    let upstream_cost = proc::cpu(&upstream) - upstream_before;
    let others = watch.others_percent()?;
    let counts = load.finish().await;
    target.ensure_alive()?;
    target.trim_log()?;
    if counts.failed() > 0 {
        section.notes.push(format!("{}: {}", target.name, counts.first_failure()));
    }

    let (name, requests, took_us) = (target.name, done.max(1) as f64, took.as_secs_f64() * 1e6);
    if !proxy.is_empty() {
        section.put(name, CPU, "µs", cost.total_us() / requests);
        section.put(name, "of it user", "µs", cost.user_us / requests);
        section.put(name, "of it system", "µs", cost.system_us / requests);
    }
    section.put(name, RATE, "/s", done as f64 / took.as_secs_f64());
    section.put(name, FAILED, "", counts.failed() as f64);
    section.put(name, "load client: share of one core", "%", own_cost.total_us() / took_us * 100.0);
    section.put(name, "stub upstream: share of one core", "%", upstream_cost.total_us() / took_us * 100.0);
    section.put(name, NOISE, "%", others);
    Ok(())
}
