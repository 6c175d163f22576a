//! `sluice sim`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use sim::{Settings, Sim};

use super::output::complain;
use crate::cli::SimArgs;
use crate::{environment, shutdown};

pub(crate) fn run(args: SimArgs) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::from((args.host, args.port));
    let settings = settings(args);
    let faults = settings.faults();
    for fault in &faults {
        complain(format_args!("sluice sim: --{}: {}", fault.field.replace('_', "-"), fault.message));
    }
    if !faults.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    environment::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let bound = listener.local_addr()?;
        let model = settings.models.first().cloned().unwrap_or_else(|| "any".into());
        complain(format_args!("simulated model server on http://{bound}, model `{model}`\n"));
        complain(format_args!("  curl http://{bound}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"));
        sim::serve(listener, Arc::new(Sim::new(settings)), shutdown::asked()).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn settings(args: SimArgs) -> Settings {
    let defaults = Settings::default();
    Settings {
        models: if args.model.is_empty() { defaults.models } else { args.model },
        ttft_ms: args.ttft_ms,
        tokens_per_second: args.tokens_per_second,
        jitter: args.jitter,
        output_tokens: args.output_tokens,
        failure_rate: args.failure_rate,
        rate_limit_rate: args.rate_limit_rate,
        hang_rate: args.hang_rate,
        cut_rate: args.cut_rate,
        seed: args.seed,
        dimensions: defaults.dimensions,
    }
}
