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
use tikv_jemallocator::Jemalloc;

/// What a call's thread makes is often dropped by another, which posts or records it; why this one: decision 0023.
#[global_allocator]
static HEAP: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match cli::Cli::parse().command.run() {
        Ok(code) => code,
        Err(fault) => {
            command::output::complain(format_args!("sluice: {fault:#}"));
            ExitCode::FAILURE
        }
    }
}
