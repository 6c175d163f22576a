//! `sluice plan`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, part};
use super::output::say;
use super::table;
use crate::cli::{PlanArgs, PlanCommand};

const COLUMNS: &[(&str, &str)] =
    &[("PLAN", "/name"), ("VERSION", "/id"), ("SOURCE", "/source"), ("SINCE", "/created"), ("RETIRED", "/retired")];

pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(&args.control)?;
    let path = |name: &str| format!("/admin/v1/plans/{}", part(name));
    let list = |path: &str, name: &str| -> anyhow::Result<()> {
        let answer = control.get(path)?;
        if control.json {
            say!("{answer}");
        } else {
            table::rows(answer.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice), COLUMNS);
        }
        Ok(())
    };
    let shown = match &args.command {
        PlanCommand::List => {
            list("/admin/v1/plans", "plans")?;
            return Ok(ExitCode::SUCCESS);
        }
        PlanCommand::Versions { name } => {
            list(&format!("{}/versions", path(name)), "versions")?;
            return Ok(ExitCode::SUCCESS);
        }
        PlanCommand::Put { name, settings } => control.ask("PUT", &path(name), Some(&settings.fields()?.into()))?,
        PlanCommand::Show { name } => control.get(&path(name))?,
        PlanCommand::Retire { name } => {
            control.ask("DELETE", &path(name), None)?;
            json!({ "name": name, "state": "retired" })
        }
    };
    if control.json {
        say!("{shown}");
    } else {
        table::one(&shown);
    }
    Ok(ExitCode::SUCCESS)
}
