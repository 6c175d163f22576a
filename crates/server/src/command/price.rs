//! `sluice price`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, part};
use super::output::say;
use super::{settings, table};
use crate::cli::{PriceArgs, PriceCommand};

const COLUMNS: &[(&str, &str)] = &[
    ("PRICE", "/id"),
    ("MODEL", "/model"),
    ("FROM", "/from"),
    ("CURRENCY", "/currency"),
    ("INPUT/1M", "/input_per_1m_tokens"),
    ("CACHED/1M", "/cached_input_per_1m_tokens"),
    ("OUTPUT/1M", "/output_per_1m_tokens"),
    ("PER CALL", "/per_call"),
    ("SOURCE", "/source"),
    ("WITHDRAWN", "/withdrawn"),
];

pub(crate) fn run(args: &PriceArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(&args.control)?;
    let shown = match &args.command {
        PriceCommand::List { model } => {
            let query = model.as_ref().map(|model| format!("?model={}", part(model))).unwrap_or_default();
            let answer = control.get(&format!("/admin/v1/prices{query}"))?;
            if !control.json {
                table::rows(answer.get("prices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice), COLUMNS);
                return Ok(ExitCode::SUCCESS);
            }
            answer
        }
        PriceCommand::Add { model, from, settings } => {
            let mut fields = settings.fields()?;
            settings::flag(&mut fields, "model", Some(model));
            settings::flag(&mut fields, "from", Some(from));
            // `--set per_call=0.5` reads as a number, and amounts are text.
            for (name, value) in &mut fields {
                if name.contains("per_") && value.is_number() {
                    *value = value.to_string().into();
                }
            }
            control.ask("POST", "/admin/v1/prices", Some(&fields.into()))?
        }
        PriceCommand::Withdraw { id } => {
            control.ask("DELETE", &format!("/admin/v1/prices/{}", part(id)), None)?;
            json!({ "id": id, "state": "withdrawn" })
        }
    };
    if control.json {
        say!("{shown}");
    } else {
        table::one(&shown);
    }
    Ok(ExitCode::SUCCESS)
}
