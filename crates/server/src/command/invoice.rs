//! `sluice invoice`.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::control::{Control, part};
use super::output::{self, say};
use super::table;
use crate::cli::{FormArgs, InvoiceArgs, InvoiceCommand, TimeArgs};

const HEADS: &[(&str, &str)] = &[
    ("INVOICE", "/id"),
    ("FROM", "/from"),
    ("UNTIL", "/until"),
    ("LINES", "/lines"),
    ("TOTAL", "/total"),
    ("CURRENCY", "/currency"),
];
const LINES: &[(&str, &str)] = &[
    ("LINE", "/line"),
    ("MONTH", "/month"),
    ("KIND", "/kind"),
    ("CLASS", "/class"),
    ("MODEL", "/model"),
    ("PLAN", "/plan"),
    ("EARLIER", "/earlier"),
    ("QUANTITY", "/quantity"),
    ("UNIT", "/unit"),
    ("UNIT PRICE", "/unit_price"),
    ("PER", "/per"),
    ("AMOUNT", "/amount"),
];
const CHARGES: &[(&str, &str)] = &[
    ("CHARGE", "/id"),
    ("AT", "/at"),
    ("REQUEST", "/request"),
    ("MODEL", "/model"),
    ("READ", "/input_tokens"),
    ("GENERATED", "/output_tokens"),
    ("ENDING", "/ending"),
    ("AMOUNT", "/amount"),
];
const DIFFERENCES: &[(&str, &str)] =
    &[("WHAT", "/what"), ("WHICH", "/id"), ("ABOUT", "/about"), ("BILLED", "/billed"), ("RE-RATED", "/rerated")];

pub(crate) fn run(args: &InvoiceArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(&args.control)?;
    match &args.command {
        InvoiceCommand::Issue { tenant, time } => issue(&control, tenant.as_deref(), time)?,
        InvoiceCommand::Draft { tenant, time, form } => {
            let path = format!("{}/draft?{}", of(tenant), query(time));
            show(&control, &path, form)?;
        }
        InvoiceCommand::List { tenant } => {
            let answer = control.get(&format!("{}/invoices", of(tenant)))?;
            if control.json {
                say!("{}", answer.get("invoices").cloned().unwrap_or_default());
            } else {
                table::rows(list(&answer, "invoices"), HEADS);
            }
        }
        InvoiceCommand::Show { id, form } => show(&control, &format!("{}?", one(id)?), form)?,
        InvoiceCommand::Charges { id, line } => {
            let path = format!("{}/charges?invoice={}&line={line}", of(tenant_of(id)?), part(id));
            let rows = control.all(&path, "charges")?;
            if control.json {
                say!("{}", Value::from(rows));
            } else {
                table::rows(&rows, CHARGES);
            }
        }
        InvoiceCommand::Verify { id } => return verify(&control, id),
    }
    Ok(ExitCode::SUCCESS)
}

/// Issues one tenant's, or everybody's, one after another.
fn issue(control: &Control, tenant: Option<&str>, time: &TimeArgs) -> anyhow::Result<()> {
    let tenants = match tenant {
        Some(tenant) => vec![json!({ "id": tenant })],
        None => control.all("/admin/v1/tenants", "tenants")?,
    };
    let said = [("month", &time.month), ("from", &time.from), ("until", &time.until), ("currency", &time.currency)];
    let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value.clone()?))));
    let body = Value::Object(said.collect::<Map<_, _>>());
    let mut issued = Vec::new();
    for tenant in &tenants {
        let id = tenant.get("id").and_then(Value::as_str).unwrap_or_default();
        let invoice = control.ask("POST", &format!("{}/invoices", of(id)), Some(&body));
        let invoice = invoice.with_context(|| format!("tenant {id}"))?;
        // Nothing happened, so there is nothing to pay.
        if !invoice.is_null() {
            issued.push(invoice);
        }
    }
    if control.json {
        say!("{}", Value::from(issued));
        return Ok(());
    }
    for invoice in &mut issued {
        let lines = list(invoice, "lines").len();
        if let Value::Object(fields) = invoice {
            fields.insert("lines".into(), lines.into());
        }
    }
    table::rows(&issued, HEADS);
    Ok(())
}

/// Shows an invoice; `path` ends with `?` or with parameters.
fn show(control: &Control, path: &str, form: &FormArgs) -> anyhow::Result<()> {
    if form.csv || form.html {
        let form = if form.csv { "format=csv".into() } else { format!("format=html&lang={}", part(&form.lang)) };
        output::print(format_args!("{}", control.text(&format!("{path}&{form}"))?));
        return Ok(());
    }
    let invoice = control.get(path)?;
    if control.json {
        say!("{invoice}");
        return Ok(());
    }
    table::rows(list(&invoice, "lines"), LINES);
    let word = |name: &str| invoice.get(name).and_then(Value::as_str).unwrap_or("draft").to_owned();
    say!(
        "\n{}: {} to {}, total {} {} ({} before rounding)",
        word("id"),
        word("from"),
        word("until"),
        word("total"),
        word("currency"),
        word("exact")
    );
    if let Some(after) = invoice.pointer("/statement/after").and_then(Value::as_str) {
        say!("balance after it: {after}");
    }
    Ok(())
}

fn verify(control: &Control, id: &str) -> anyhow::Result<ExitCode> {
    let verdict = control.ask("POST", &format!("{}/verify", one(id)?), None)?;
    let agrees = verdict.get("agrees") == Some(&Value::Bool(true));
    let count = |name: &str| verdict.get(name).and_then(Value::as_u64).unwrap_or_default();
    if control.json {
        say!("{verdict}");
    } else if agrees {
        say!("{id} agrees: {} lines, re-rated from {} charges", count("lines"), count("charges"));
    } else {
        table::rows(list(&verdict, "differences"), DIFFERENCES);
        let differences = list(&verdict, "differences").len() as u64 + count("more");
        say!("\n{id} differs in {differences} places; {} charges were read", count("charges"));
    }
    if !control.json && count("outstanding") > 0 {
        say!("{} charges became known after it was issued: the next invoice has them", count("outstanding"));
    }
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of(tenant: &str) -> String {
    format!("/admin/v1/tenants/{}", part(tenant))
}

fn one(id: &str) -> anyhow::Result<String> {
    Ok(format!("{}/invoices/{}", of(tenant_of(id)?), part(id)))
}

/// A number is the tenant's id and a count.
fn tenant_of(id: &str) -> anyhow::Result<&str> {
    let tenant = id.rsplit_once('-').filter(|(_, count)| count.bytes().all(|digit| digit.is_ascii_digit()));
    tenant.map(|(tenant, _)| tenant).with_context(|| format!("`{id}` is no number of an invoice, as in acme-0001"))
}

fn query(time: &TimeArgs) -> String {
    let said = [("month", &time.month), ("from", &time.from), ("until", &time.until), ("currency", &time.currency)];
    let said = said.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", part(value.as_deref()?))));
    said.collect::<Vec<_>>().join("&")
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
