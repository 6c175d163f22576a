//! `sluice schema`.

use std::process::ExitCode;

use super::output::say;
use crate::config::Config;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    say!("{}", serde_json::to_string_pretty(&schemars::schema_for!(Config))?);
    Ok(ExitCode::SUCCESS)
}
