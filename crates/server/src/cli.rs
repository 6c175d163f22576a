//! The command line.

mod billing;
mod control;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::billing::*;
pub(crate) use self::control::*;
use crate::{command, serve};

/// Where a server keeps what must outlive it, unless told otherwise.
pub(crate) const DATA_DIR: &str = "sluice-data";

/// The LLM middle platform: tenant gateway, inference scheduler and ledger in one binary.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway
    Serve(ServeArgs),
    /// Validate a config file; every fault with its place
    Check(CheckArgs),
    /// Print the JSON Schema of the config
    Schema,
    /// Run a simulated OpenAI-compatible model server
    Sim(SimArgs),
    /// Manage tenants
    Tenant(TenantArgs),
    /// Manage API keys
    Key(KeyArgs),
    /// Manage plans: what tenants are promised, and how they are charged
    Plan(PlanArgs),
    /// Manage prices of models
    Price(PriceArgs),
    /// Show what was consumed and what it costs
    Usage(UsageArgs),
    /// Make, issue, show and verify invoices
    Invoice(InvoiceArgs),
    /// Show balances, and move money
    Balance(BalanceArgs),
    /// Sign a request, and print the headers that show it
    Sign(SignArgs),
    /// Print shell completions
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The config file; watched, and read again when it changes
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A model server to stand in front of, without a config file; its kind and models are asked for. May be repeated
    #[arg(short, long, value_name = "URL", conflicts_with = "config")]
    pub(crate) backend: Vec<String>,
    /// Where Sluice keeps what must outlive it
    #[arg(short, long, value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// The data plane's address, instead of the config's `listen.http`
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// The control plane's address, instead of the config's `listen.admin`
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The config file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(short, long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// Model names to answer to; by default `sim`
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Vec<String>,
    /// Time to first token
    #[arg(long, value_name = "MS", default_value_t = 50)]
    pub(crate) ttft_ms: u64,
    /// Tokens per second after the first; 0 means at once
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub(crate) tokens_per_second: f64,
    /// Random share by which every wait varies, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub(crate) jitter: f64,
    /// Tokens of an answer whose request sets no limit
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) output_tokens: u64,
    /// Share of calls answered with 500 or 503
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) failure_rate: f64,
    /// Share of calls answered with 429
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) rate_limit_rate: f64,
    /// Share of calls never answered
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) hang_rate: f64,
    /// Share of streams cut in the middle
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) cut_rate: f64,
    /// Same seed, same answers
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The key's id
    #[arg(short, long, value_name = "ID")]
    pub(crate) key_id: String,
    /// A file that holds the signing secret
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The variable that holds the signing secret
    #[arg(long, value_name = "NAME", default_value = "SLUICE_SIGNING_SECRET")]
    pub(crate) secret_env: String,
    /// The method, as in POST
    pub(crate) method: String,
    /// The whole URL
    pub(crate) url: String,
    /// A file with the body; `-` reads it from the standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,
    /// For how many seconds the signature is good, up to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) lifetime: i64,
    /// When it was made, in seconds since 1970; by default now
    #[arg(long, value_name = "SECONDS")]
    pub(crate) created: Option<i64>,
    /// A text never used before with this key; by default one is made
    #[arg(long, value_name = "TEXT")]
    pub(crate) nonce: Option<String>,
    /// Print a whole curl command
    #[arg(long)]
    pub(crate) curl: bool,
    /// Print the text that is signed, to compare with another signer's
    #[arg(long, conflicts_with = "curl")]
    pub(crate) base: bool,
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(args) => serve::run(&args),
            Self::Check(args) => Ok(command::check::run(&args)),
            Self::Schema => command::schema::run(),
            Self::Sim(args) => command::sim::run(args),
            Self::Tenant(args) => command::tenant::run(&args),
            Self::Key(args) => command::key::run(&args),
            Self::Plan(args) => command::plan::run(&args),
            Self::Price(args) => command::price::run(&args),
            Self::Usage(args) => command::usage::run(&args),
            Self::Invoice(args) => command::invoice::run(&args),
            Self::Balance(args) => command::balance::run(&args),
            Self::Sign(args) => command::sign::run(&args),
            Self::Completions { shell } => Ok(command::completions::run(shell)),
        }
    }
}
