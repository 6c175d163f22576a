//! Sluice with everything on: key check, metrics, JSON access log, token accounting, health checks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Kind, Site, Target, free_address};
use crate::process::Process;
use crate::request::{MODEL, UPSTREAM_MODEL};

pub(super) const KIND: Kind = Kind {
    name: "sluice",
    about: "Everything on: API key check, model name translated, token accounting (usage forced on streams and \
            stripped again), metrics, JSON access log to a file, active and passive health checks.",
    proxy: true,
    start,
    version,
};

/// What `sluice key create --json` prints.
#[derive(Debug, Deserialize)]
struct MadeKey {
    key: String,
    hash: String,
}

fn version(site: &Site) -> Result<String> {
    let output = Command::new(&site.sluice).arg("--version").output().with_context(|| {
        format!(
            "no {} (build it: cargo build --release, or leave it out: --targets direct,nginx)",
            site.sluice.display()
        )
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn start(site: &Site) -> Result<Target> {
    let directory = site.fresh_directory(KIND.name)?;
    let data = directory.join("data");
    std::fs::create_dir_all(&data)?;
    let made = make_key(site, &data)?;
    let (address, admin) = (free_address()?, free_address()?);
    let config = directory.join("sluice.yaml");
    let upstream = site.upstream;
    let hash = &made.hash;
    std::fs::write(
        &config,
        format!(
            "listen: {{ http: \"{address}\", admin: \"{admin}\" }}
models:
  - model_name: {MODEL}
    endpoint: http://{upstream}
    upstream_model: {UPSTREAM_MODEL}
    timeout_ms: 600000
    max_concurrency: 20000
    health: {{ path: /health, interval_ms: 2000, max_fails: 3, fail_timeout_ms: 10000 }}
tenants:
  - id: bench
    keys: [ {{ name: bench, hash: \"{hash}\" }} ]
telemetry: {{ log: json }}
"
        ),
    )?;
    let mut command = Command::new(&site.sluice);
    command.arg("serve").arg("-c").arg(&config).arg("--data-dir").arg(&data).current_dir(&directory);
    let process = Process::start(&mut command, &directory.join("access.log"))?;
    Ok(Target {
        name: KIND.name,
        address,
        ready_path: "/ready",
        key: made.key,
        process: Some(process),
        ..Target::direct(site.upstream)
    })
}

fn make_key(site: &Site, data: &Path) -> Result<MadeKey> {
    let output = Command::new(&site.sluice)
        .args(["key", "create", "--tenant", "bench", "--json", "--data-dir"])
        .arg(data)
        .output()
        .with_context(|| format!("cannot run {}", site.sluice.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`sluice key create` failed: {errors}");
    serde_json::from_slice(&output.stdout).context("`sluice key create --json` printed no key and hash")
}
