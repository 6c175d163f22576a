//! `sluice-bench`: measures Sluice side by side with nginx and with direct access, in one run on one machine.
//!
//! Figures of different runs or machines are not comparable; ratios within a round are. So every scenario
//! takes its targets in turn, round after round, and reports medians with the least and the greatest round.
//! It brings its own upstream and load client, so that nothing but the proxies is a choice. It is no load
//! tester for users' own servers.
//!
//! Beside that, `replay` compares ways of routing in virtual time, where nothing is measured at all.

mod bench;
mod client;
mod codec;
mod figures;
mod load;
mod placement;
mod proc;
mod process;
mod replay;
mod report;
mod request;
mod scenario;
mod stage;
mod target;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use bench::{Bench, Places, Scale};
use report::Report;
use scenario::{Scenario, soak, syscalls};
use target::Kind;

/// Exit status after Ctrl-C, as shells have it.
const STOPPED: u8 = 130;

/// Measures Sluice side by side with nginx and with direct access.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All scenarios: CPU, throughput, latency, streams, memory, start.
    Run {
        #[command(flatten)]
        common: Common,
        /// Short rounds, to see that everything works; the figures are not to be quoted.
        #[arg(long)]
        quick: bool,
        /// Only these scenarios: start, closed, open, streams, slow.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Memory over minutes of full load.
    Soak {
        #[command(flatten)]
        common: Common,
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        soak_minutes: f64,
    },
    /// System calls per request of the proxies, by strace.
    Syscalls {
        #[command(flatten)]
        common: Common,
    },
    /// What the scheduling stage costs, alone: CPU per call, pace of a long line, memory per waiting call.
    Stage {
        /// Exit with 1 unless every demand is met.
        #[arg(long)]
        enforce: bool,
    },
    /// Published traces against simulated model servers, under ways of routing.
    Replay {
        /// Only these traces: conversation, synthetic, tenants.
        #[arg(long, value_delimiter = ',')]
        traces: Vec<String>,
        /// Arrivals, as shares of what the fleet could do if it reused nothing [default: 0.6,0.75,0.9].
        #[arg(long, value_delimiter = ',')]
        loads: Vec<f64>,
        /// Where the report goes.
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
        /// Draws the pictures of the documentation as well.
        #[arg(long)]
        docs: bool,
        /// Exit with 1 unless every demand is met.
        #[arg(long)]
        enforce: bool,
    },
    /// How long one decision of `balance: prefix_aware` takes.
    Placement {
        /// Where the report goes.
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
        /// Exit with 1 unless the demand is met.
        #[arg(long)]
        enforce: bool,
    },
    /// Makes the condensed form of a published trace (traces/ORIGIN.md).
    Condense {
        /// JSON lines as Mooncake publishes them.
        from: PathBuf,
        to: PathBuf,
    },
    /// Runs the stub upstream alone.
    Upstream {
        #[arg(long, default_value_t = 9000)]
        port: u16,
    },
}

#[derive(Debug, Clone, Args)]
struct Common {
    /// What to measure, in this order [for soak: sluice].
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// The sluice binary [default: the one beside this program].
    #[arg(long)]
    sluice: Option<PathBuf>,
    /// The nginx binary.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Where reports go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Exit with 1 unless every demand is met.
    #[arg(long)]
    enforce: bool,
}

fn main() -> ExitCode {
    // Told in one line with its causes: a backtrace helps nobody whose nginx is not installed.
    start(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(cli: Cli) -> Result<ExitCode> {
    bench::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Ending by a signal drops the run, and with it every process it started.
        tokio::select! {
            result = obey(cli.command) => result,
            _ = interrupt.recv() => Ok(ExitCode::from(STOPPED)),
            _ = terminate.recv() => Ok(ExitCode::from(STOPPED)),
        }
    })
}

async fn obey(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { common, quick, only } => run(common, quick, &only).await,
        Command::Soak { common, soak_minutes } => {
            let bench = common.bench(&["sluice"], Scale::FULL)?;
            let mut report = Report::new(&bench, false)?;
            for kind in bench.proxies() {
                report.add(soak::measure(&bench, kind, soak_minutes).await?);
            }
            common.conclude(&report, "soak")
        }
        Command::Syscalls { common } => {
            let bench = common.bench(&["nginx", "sluice"], Scale::FULL)?;
            let mut report = Report::new(&bench, false)?;
            report.add(syscalls::measure(&bench).await?);
            common.conclude(&report, "syscalls")
        }
        Command::Stage { enforce } => {
            let met = stage::print(&stage::measure().await?);
            Ok(if enforce && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Replay { traces, loads, out, docs, enforce } => {
            let report = replay::run(&replay::Choice { traces, loads })?;
            report.write(&out)?;
            if docs {
                report.draw("docs/pictures".as_ref())?;
            }
            print!("{}", report.verdicts());
            println!("report: {} (.json beside it)", out.join("replay.txt").display());
            let failed = enforce && !report.all_met();
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Placement { out, enforce } => {
            let report = placement::measure()?;
            std::fs::create_dir_all(&out)?;
            std::fs::write(out.join("placement.json"), serde_json::to_vec_pretty(&report)?)?;
            print!("{}", report.text());
            let failed = enforce && !report.met();
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Condense { from, to } => {
            let text = std::fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
            std::fs::write(&to, replay::condense(&text)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Upstream { port } => {
            upstream::serve(port).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run(common: Common, quick: bool, only: &[String]) -> Result<ExitCode> {
    let scenarios = Scenario::named(only)?;
    let scale = if quick { Scale::QUICK } else { Scale::FULL };
    let bench = common.bench(&["direct", "nginx", "sluice"], scale)?;
    let mut report = Report::new(&bench, quick)?;
    for scenario in scenarios {
        eprintln!("measuring: {}", scenario.name);
        for section in scenario.measure(&bench).await? {
            report.add(section);
        }
    }
    common.conclude(&report, "report")
}

// === impl Common ===

impl Common {
    fn bench(&self, default_targets: &[&str], scale: Scale) -> Result<Bench> {
        let kinds: Result<Vec<Kind>> = if self.targets.is_empty() {
            default_targets.iter().map(|name| Kind::named(name)).collect()
        } else {
            self.targets.iter().map(|name| Kind::named(name)).collect()
        };
        let beside = std::env::current_exe()?.with_file_name("sluice");
        let places = Places {
            work: self.out.join("work"),
            sluice: std::path::absolute(self.sluice.clone().unwrap_or(beside))?,
            nginx: self.nginx.clone(),
        };
        Bench::new(kinds?, places, scale)
    }

    fn conclude(&self, report: &Report, name: &str) -> Result<ExitCode> {
        let page = report.write(&self.out, name).context("cannot write the report")?;
        print!("{}", report.verdicts());
        println!("report: {} (.json, .txt beside it)", page.display());
        let failed = self.enforce && !report.all_met();
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
