//! The commands that are the admin API from the shell.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DATA_DIR;

/// The control plane's address where none is given: the one a server has by default.
pub(crate) const ADMIN: &str = "http://127.0.0.1:8090";

/// Which server, and by what right.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// The server's control plane [default: http://127.0.0.1:8090]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) admin: Option<String>,
    /// The admin token, or an API key with the scope `admin`; default: the token kept in the data directory
    #[arg(long, value_name = "TOKEN", env = "SLUICE_ADMIN_TOKEN", hide_env_values = true, global = true)]
    pub(crate) token: Option<String>,
    /// The server's data directory
    #[arg(short, long, value_name = "DIR", default_value = DATA_DIR, global = true)]
    pub(crate) data_dir: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Settings as a config has them.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingsArgs {
    /// A field and its value, as in `limits.rps=10` or `models=["gpt-*"]`; may be repeated
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// A JSON file with fields; `-` reads them from standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(subcommand)]
    pub(crate) command: TenantCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant
    Create {
        /// Its id: letters, digits, `.`, `_` and `-`
        id: String,
        /// Its plan, by name
        #[arg(long)]
        plan: Option<String>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// List tenants
    List,
    /// Show a tenant
    Show {
        /// Which
        id: String,
    },
    /// Change a tenant
    Change {
        /// Which
        id: String,
        /// Its plan, by name
        #[arg(long)]
        plan: Option<String>,
        /// A field to take away; may be repeated
        #[arg(long, value_name = "FIELD")]
        unset: Vec<String>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Refuse a tenant's calls for the time being
    Suspend {
        /// Which
        id: String,
    },
    /// Let a suspended tenant call again
    Resume {
        /// Which
        id: String,
    },
    /// Show which plans a tenant was on
    Subscriptions {
        /// Which
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key: it is printed once, and only its hash is kept
    Create(KeyCreateArgs),
    /// List a tenant's keys
    List {
        /// Whose
        #[arg(short, long)]
        tenant: String,
    },
    /// Show a key
    Show(OneKey),
    /// Change a key
    Change {
        #[command(flatten)]
        key: OneKey,
        /// What it is for
        #[arg(short, long)]
        name: Option<String>,
        /// From when on it is refused, as in 2027-01-01T00:00:00Z
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        /// A field to take away; may be repeated
        #[arg(long, value_name = "FIELD")]
        unset: Vec<String>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Make a key that takes another's place; the old one goes on for a while
    Rotate {
        #[command(flatten)]
        key: OneKey,
        /// For how long the old one goes on
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        overlap_hours: u64,
    },
    /// Revoke a key: the next call with it is refused
    Revoke(OneKey),
    /// Print what requests of a key are signed with, by the data directory and without a server
    SigningSecret {
        /// The key's id: what stands between `sk-sluice-` and the next `-`
        #[arg(value_name = "KEY-ID")]
        id: String,
    },
}

/// A key of a tenant.
#[derive(Debug, Args)]
pub(crate) struct OneKey {
    /// Whose
    #[arg(short, long)]
    pub(crate) tenant: String,
    /// Which, by its id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct KeyCreateArgs {
    /// Whose key it is
    #[arg(short, long)]
    pub(crate) tenant: String,
    /// What it is for
    #[arg(short, long, default_value = "default")]
    pub(crate) name: String,
    /// From when on it is refused, as in 2027-01-01T00:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(crate) expires: Option<String>,
    /// What it may be used for: inference, usage, admin; may be repeated
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Vec<String>,
    /// A model it may call, or with `*` at the end all that begin so; may be repeated
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Vec<String>,
    /// From where it may be used, as in 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Also print what requests with it are signed with
    #[arg(long)]
    pub(crate) signing: bool,
    /// Ask no server: print the hash for the config. It fits only this data directory
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(subcommand)]
    pub(crate) command: PlanCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Put a version of a plan in force, for all tenants on it
    Put {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// List plans
    List,
    /// Show the version in force
    Show {
        /// Which plan
        name: String,
    },
    /// List every version of a plan
    Versions {
        /// Which plan
        name: String,
    },
    /// Retire a plan: no tenant can be put on it any more
    Retire {
        /// Which plan
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PriceArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(subcommand)]
    pub(crate) command: PriceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PriceCommand {
    /// Enter a price
    Add {
        /// The model, or with `*` at the end all that begin so
        model: String,
        /// From which day on, as in 2026-01-31
        #[arg(long, value_name = "DAY")]
        from: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// List prices
    List {
        /// Only this model's, as they name it
        #[arg(long)]
        model: Option<String>,
    },
    /// Withdraw a price
    Withdraw {
        /// Which, by its id
        id: String,
    },
}
