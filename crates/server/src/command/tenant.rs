//! `sluice tenant`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, part};
use super::output::say;
use super::{settings, table};
use crate::cli::{TenantArgs, TenantCommand};

const COLUMNS: &[(&str, &str)] = &[
    ("TENANT", "/id"),
    ("PLAN", "/plan"),
    ("SUSPENDED", "/suspended"),
    ("SOURCE", "/source"),
    ("CREATED", "/created"),
];

pub(crate) fn run(args: &TenantArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(&args.control)?;
    let path = |id: &str| format!("/admin/v1/tenants/{}", part(id));
    let shown = match &args.command {
        TenantCommand::List => {
            let rows = control.all("/admin/v1/tenants", "tenants")?;
            if control.json {
                say!("{}", Value::from(rows));
            } else {
                table::rows(&rows, COLUMNS);
            }
            return Ok(ExitCode::SUCCESS);
        }
        TenantCommand::Subscriptions { id } => {
            let answer = control.get(&format!("{}/subscriptions", path(id)))?;
            if control.json {
                say!("{answer}");
            } else {
                let rows = answer.get("subscriptions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                table::rows(rows, &[("PLAN", "/plan"), ("FROM", "/from"), ("UNTIL", "/until")]);
            }
            return Ok(ExitCode::SUCCESS);
        }
        TenantCommand::Create { id, plan, settings } => {
            let mut fields = settings.fields()?;
            settings::flag(&mut fields, "id", Some(id));
            settings::flag(&mut fields, "plan", plan.as_deref());
            control.ask("POST", "/admin/v1/tenants", Some(&fields.into()))?
        }
        TenantCommand::Show { id } => control.get(&path(id))?,
        TenantCommand::Change { id, plan, unset, settings } => {
            let mut fields = settings.changes(unset)?;
            settings::flag(&mut fields, "plan", plan.as_deref());
            control.ask("PATCH", &path(id), Some(&fields.into()))?
        }
        TenantCommand::Suspend { id } => control.ask("PATCH", &path(id), Some(&json!({ "suspended": true })))?,
        TenantCommand::Resume { id } => control.ask("PATCH", &path(id), Some(&json!({ "suspended": false })))?,
    };
    if control.json {
        say!("{shown}");
    } else {
        table::one(&shown);
    }
    Ok(ExitCode::SUCCESS)
}
