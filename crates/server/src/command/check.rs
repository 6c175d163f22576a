//! `sluice check`.

use std::path::Path;
use std::process::ExitCode;

use tenancy::tokens::Tokenizers;

use super::output::{complain, say};
use crate::cli::{CheckArgs, DATA_DIR};
use crate::config::{Config, Listen};

pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    match Config::load(&args.config, &Listen::default(), Path::new(DATA_DIR), &Tokenizers::default()) {
        Ok(loaded) => {
            let (models, tenants) = (loaded.config.models.len(), loaded.config.tenants.len());
            say!("{}: good ({models} models, {tenants} tenants)", args.config.display());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            complain(format_args!("{}", faults.render()));
            ExitCode::FAILURE
        }
    }
}
