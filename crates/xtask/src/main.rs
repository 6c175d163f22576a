//! `cargo xtask`: what the repository does to itself.
//!
//! `arrows` defends the architecture, `docs` writes the reference from the real binary. Builds nothing that is
//! shipped, and knows the other crates only from the outside: through `cargo metadata`, their sources and the binary.

mod arrows;
mod docs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

const USAGE: &str = "\
Usage: cargo xtask <COMMAND>

Commands:
  arrows                             Check which crate may use which, and who may name hyper
  docs [--check] [--sluice PATH]     Write docs/reference from the binary; with --check, only say whether it is stale.
                                     Builds the binary unless one is named
";

fn main() -> ExitCode {
    obey(std::env::args().skip(1)).unwrap_or_else(|fault| {
        eprintln!("xtask: {fault:#}");
        ExitCode::FAILURE
    })
}

fn obey(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<ExitCode> {
    match arguments.next().as_deref() {
        Some("arrows") => {
            if let Some(unknown) = arguments.next() {
                bail!("unknown argument `{unknown}`\n\n{USAGE}");
            }
            arrows::run()
        }
        Some("docs") => docs::run(&docs_options(arguments)?),
        Some("help" | "--help" | "-h") | None => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Some(unknown) => bail!("unknown command `{unknown}`\n\n{USAGE}"),
    }
}

fn docs_options(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<docs::Options> {
    let mut options = docs::Options::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--check" => options.check = true,
            "--sluice" => options.sluice = Some(PathBuf::from(arguments.next().context("--sluice needs a path")?)),
            unknown => bail!("unknown argument `{unknown}`\n\n{USAGE}"),
        }
    }
    Ok(options)
}
