//! `sluice completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use super::output;
use crate::cli::Cli;

pub(crate) fn run(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
    output::print(format_args!("{}", String::from_utf8_lossy(&script)));
    ExitCode::SUCCESS
}
