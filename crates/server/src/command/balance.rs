//! `sluice balance`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::control::{Control, part};
use super::output::say;
use super::table;
use crate::cli::{BalanceArgs, BalanceCommand, DepositArgs};

const COLUMNS: &[(&str, &str)] = &[
    ("TRANSFER", "/id"),
    ("AT", "/at"),
    ("CAUSE", "/cause"),
    ("AMOUNT", "/amount"),
    ("CURRENCY", "/currency"),
    ("INVOICE", "/invoice"),
    ("REVERSES", "/reverses"),
    ("NOTE", "/note"),
];

const BUDGETS: &[(&str, &str)] = &[
    ("OF", "/scope"),
    ("KEYS", "/keys"),
    ("MODELS", "/models"),
    ("PER", "/per"),
    ("HARD", "/hard"),
    ("LIMIT", "/limit"),
    ("SPENT", "/spent"),
    ("RESERVED", "/reserved"),
    ("LEFT", "/left"),
    ("CURRENCY", "/currency"),
    ("ANEW", "/renews"),
];

pub(crate) fn run(args: &BalanceArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(&args.control)?;
    let of = |tenant: &str| format!("/admin/v1/tenants/{}", part(tenant));
    let shown = match &args.command {
        BalanceCommand::Show { tenant, currency } => {
            let currency = currency.as_deref().map(|currency| format!("?currency={}", part(currency)));
            control.get(&format!("{}/balance{}", of(tenant), currency.unwrap_or_default()))?
        }
        BalanceCommand::Budgets { tenant } => {
            let shown = control.get(&format!("{}/budgets", of(tenant)))?;
            if control.json {
                say!("{shown}");
            } else {
                let rows = shown.get("budgets").and_then(Value::as_array);
                table::rows(rows.map_or(&[], Vec::as_slice), BUDGETS);
            }
            return Ok(ExitCode::SUCCESS);
        }
        BalanceCommand::TopUp(deposit) => {
            control.ask("POST", &format!("{}/top-ups", of(&deposit.tenant)), Some(&body(deposit)))?
        }
        BalanceCommand::Grant(deposit) => {
            control.ask("POST", &format!("{}/grants", of(&deposit.tenant)), Some(&body(deposit)))?
        }
        BalanceCommand::Reverse { tenant, transfer, note } => {
            let body = note.as_ref().map_or_else(|| json!({}), |note| json!({ "note": note }));
            let path = format!("{}/transfers/{}/reversal", of(tenant), part(transfer));
            control.ask("POST", &path, Some(&body))?
        }
        BalanceCommand::Transfers { tenant, calls } => {
            let rows = control.all(&format!("{}/transfers?calls={calls}", of(tenant)), "transfers")?;
            if control.json {
                say!("{}", Value::from(rows));
            } else {
                table::rows(&rows, COLUMNS);
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    if control.json {
        say!("{shown}");
    } else {
        table::one(&shown);
    }
    Ok(ExitCode::SUCCESS)
}

fn body(deposit: &DepositArgs) -> Value {
    let mut fields = Map::new();
    fields.insert("amount".into(), deposit.amount.clone().into());
    fields.insert("idempotency_key".into(), deposit.idempotency_key.clone().into());
    for (name, value) in [("currency", &deposit.currency), ("note", &deposit.note)] {
        if let Some(value) = value {
            fields.insert(name.into(), value.clone().into());
        }
    }
    Value::Object(fields)
}
