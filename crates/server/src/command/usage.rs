//! `sluice usage`.

use std::process::ExitCode;

use serde_json::Value;

use super::control::{Control, part};
use super::output::{self, say};
use super::table;
use crate::cli::UsageArgs;

/// Rows of a page: the most the server gives of these.
const ROWS: u32 = 10_000;

/// What follows what it is split by.
const COUNTS: &[(&str, &str)] = &[
    ("CALLS", "/calls"),
    ("ESTIMATED", "/estimated_calls"),
    ("READ", "/input_tokens"),
    ("CACHED", "/cached_input_tokens"),
    ("GENERATED", "/output_tokens"),
    ("REASONING", "/reasoning_tokens"),
    ("COST", "/cost"),
    ("CURRENCY", "/currency"),
];

pub(crate) fn run(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(&args.control)?;
    let base = args
        .tenant
        .as_deref()
        .map_or_else(|| "/admin/v1/usage".into(), |tenant| format!("/admin/v1/tenants/{}/usage", part(tenant)));
    let mut path = format!("{base}?limit={ROWS}&by={}", part(&args.by));
    let said = [
        ("month", &args.month),
        ("from", &args.from),
        ("until", &args.until),
        ("key", &args.key),
        ("model", &args.model),
        ("tag", &args.tag),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", part(value)));
        }
    }
    if args.csv {
        output::print(format_args!("{}", control.text(&format!("{path}&format=csv"))?));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let mut page = control.get(&format!("{path}{after}"))?;
        if let Some(Value::Array(more)) = page.get_mut("rows").map(Value::take) {
            rows.extend(more);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={}", part(next)),
            None => break,
        }
    }
    if control.json {
        say!("{}", Value::from(rows));
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = args.by.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let titles: Vec<(String, String)> =
        names.iter().map(|name| (name.to_ascii_uppercase(), format!("/{name}"))).collect();
    let split = titles.iter().map(|(title, path)| (title.as_str(), path.as_str()));
    let columns: Vec<(&str, &str)> = split.chain(COUNTS.iter().copied()).collect();
    table::rows(&rows, &columns);
    Ok(ExitCode::SUCCESS)
}
