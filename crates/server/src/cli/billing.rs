//! The commands about money: usage, invoices, balances.

use clap::{Args, Subcommand};

use super::ControlArgs;

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    /// Whose; default: everybody's, which only operators may ask for
    #[arg(short, long)]
    pub(crate) tenant: Option<String>,
    /// Split by these: tenant, key, model, tag, plan, price, and one of hour, day, month
    #[arg(long, value_name = "NAME,NAME", default_value = "model")]
    pub(crate) by: String,
    /// Of this month, as in 2026-11; default: this month
    #[arg(long)]
    pub(crate) month: Option<String>,
    /// From when, as in 2026-11-25 or 2026-11-25T13:00:00Z
    #[arg(long, value_name = "WHEN", conflicts_with = "month")]
    pub(crate) from: Option<String>,
    /// Until when, left out
    #[arg(long, value_name = "WHEN", conflicts_with = "month")]
    pub(crate) until: Option<String>,
    /// Only with this key, by its id
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only for this model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Only under this tag
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Print CSV; at most 10000 rows
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InvoiceArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(subcommand)]
    pub(crate) command: InvoiceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InvoiceCommand {
    /// Issue an invoice; for a time that is over
    Issue {
        /// Whose; default: everybody's
        #[arg(short, long)]
        tenant: Option<String>,
        #[command(flatten)]
        time: TimeArgs,
    },
    /// Show an invoice as it would be issued now
    Draft {
        /// Whose
        #[arg(short, long)]
        tenant: String,
        #[command(flatten)]
        time: TimeArgs,
        #[command(flatten)]
        form: FormArgs,
    },
    /// List a tenant's invoices
    List {
        /// Whose
        #[arg(short, long)]
        tenant: String,
    },
    /// Show an issued invoice
    Show {
        /// Its number
        id: String,
        #[command(flatten)]
        form: FormArgs,
    },
    /// List the charges behind a line
    Charges {
        /// The invoice's number
        id: String,
        /// The line's number
        line: u32,
    },
    /// Reckon an issued invoice once more, from its charges; exit 1 where it differs
    Verify {
        /// Its number
        id: String,
    },
}

/// For which time, and in which currency.
#[derive(Debug, Args)]
pub(crate) struct TimeArgs {
    /// A month, as in 2026-11
    #[arg(long, required_unless_present = "from")]
    pub(crate) month: Option<String>,
    /// The first day, as in 2026-11-25
    #[arg(long, value_name = "DAY", conflicts_with = "month", requires = "until")]
    pub(crate) from: Option<String>,
    /// The day after the last
    #[arg(long, value_name = "DAY", conflicts_with = "month", requires = "from")]
    pub(crate) until: Option<String>,
    /// In which currency; default: that of the tenant's plan
    #[arg(long)]
    pub(crate) currency: Option<String>,
}

/// In which form.
#[derive(Debug, Args)]
pub(crate) struct FormArgs {
    /// Print CSV
    #[arg(long, conflicts_with = "html")]
    pub(crate) csv: bool,
    /// Print an HTML page, to be printed on paper
    #[arg(long)]
    pub(crate) html: bool,
    /// The page's language: en or zh
    #[arg(long, default_value = "en")]
    pub(crate) lang: String,
}

#[derive(Debug, Args)]
pub(crate) struct BalanceArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(subcommand)]
    pub(crate) command: BalanceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BalanceCommand {
    /// Show what a tenant has to spend, or owes
    Show {
        /// Whose
        tenant: String,
        /// In which currency; default: that of its plan
        #[arg(long)]
        currency: Option<String>,
    },
    /// List a tenant's budgets and those of its keys, and what is left of them
    Budgets {
        /// Whose
        tenant: String,
    },
    /// Enter money that a tenant paid
    TopUp(DepositArgs),
    /// Give a tenant credit
    Grant(DepositArgs),
    /// Take a transfer back
    Reverse {
        /// Whose
        tenant: String,
        /// Which, by its id
        transfer: String,
        /// Why, in words
        #[arg(long)]
        note: Option<String>,
    },
    /// List what moved on a tenant's account
    Transfers {
        /// Whose
        tenant: String,
        /// With those of calls
        #[arg(long)]
        calls: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DepositArgs {
    /// Whose account
    pub(crate) tenant: String,
    /// How much, as in 100 or 12.50
    pub(crate) amount: String,
    /// In which currency; default: that of the tenant's plan
    #[arg(long)]
    pub(crate) currency: Option<String>,
    /// Any text, another one for each payment: the same again moves nothing. A bank's reference, a receipt's number
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) idempotency_key: String,
    /// Why, in words
    #[arg(long)]
    pub(crate) note: Option<String>,
}
