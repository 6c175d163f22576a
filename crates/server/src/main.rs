//! Sluice: tenant gateway, inference scheduler and ledger in one binary.
//!
//! Start reading at [`assemble`], which lists the machine, one line per stage.

mod assemble;
mod banner;
mod cli;
mod command;
mod config;
mod enrolment;
mod environment;
mod money;
mod reload;
mod serve;
mod shutdown;
mod source;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Each thread has its own heap, and what one thread makes another may drop: as calls are charged here and posted there.
#[global_allocator]
static HEAP: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::Cli::parse().command.run() {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("sluice: {fault:#}");
            ExitCode::FAILURE
        }
    }
}
