//! `sluice key`.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tenancy::NewKey;

use super::control::{Control, NotRunning, part};
use super::output::{complain, say};
use super::{settings, table};
use crate::cli::{ControlArgs, KeyArgs, KeyCommand, KeyCreateArgs, OneKey};
use crate::environment;

const COLUMNS: &[(&str, &str)] = &[
    ("KEY", "/id"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("SCOPES", "/scopes"),
    ("SOURCE", "/source"),
    ("EXPIRES", "/expires"),
    ("USED", "/used"),
];
const HOUR: u64 = 3_600_000;

pub(crate) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeyCommand::Create(create) => self::create(create, &args.control),
        KeyCommand::SigningSecret { id } => signing_secret(id, &args.control),
        asked => ask(asked, &args.control),
    }
}

/// What only a server can answer.
fn ask(command: &KeyCommand, control: &ControlArgs) -> anyhow::Result<ExitCode> {
    let control = Control::new(control)?;
    let shown = match command {
        KeyCommand::Create(_) | KeyCommand::SigningSecret { .. } => Value::Null,
        KeyCommand::List { tenant } => {
            let answer = control.get(&keys(tenant))?;
            if !control.json {
                let rows = answer.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                table::rows(rows, COLUMNS);
                return Ok(ExitCode::SUCCESS);
            }
            answer
        }
        KeyCommand::Show(key) => control.get(&path(key))?,
        KeyCommand::Change { key, name, expires, unset, settings } => {
            let mut fields = settings.changes(unset)?;
            settings::flag(&mut fields, "name", name.as_deref());
            settings::flag(&mut fields, "expires", expires.as_deref());
            control.ask("PATCH", &path(key), Some(&fields.into()))?
        }
        KeyCommand::Rotate { key, overlap_hours } => {
            let body = json!({ "overlap_ms": overlap_hours.saturating_mul(HOUR) });
            let made = control.ask("POST", &format!("{}/rotate", path(key)), Some(&body))?;
            if !control.json {
                print_made(&made);
                let until = made.get("old_expires").and_then(Value::as_str).unwrap_or_default();
                say!("The old key, {}, goes on until {until}.", key.id);
                return Ok(ExitCode::SUCCESS);
            }
            made
        }
        KeyCommand::Revoke(key) => {
            control.ask("DELETE", &path(key), None)?;
            if !control.json {
                say!("{} is revoked.", key.id);
                return Ok(ExitCode::SUCCESS);
            }
            json!({ "id": key.id, "tenant": key.tenant, "state": "revoked" })
        }
    };
    if control.json {
        say!("{shown}");
    } else {
        table::one(&shown);
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a key at a server; where none runs and none was named, for the config.
fn create(args: &KeyCreateArgs, control: &ControlArgs) -> anyhow::Result<ExitCode> {
    if args.offline {
        return offline(args, control);
    }
    let named = control.admin.is_some() || control.token.is_some();
    let asked = Control::new(control).and_then(|control| {
        let mut fields = args.settings.fields()?;
        settings::flag(&mut fields, "name", Some(&args.name));
        settings::flag(&mut fields, "expires", args.expires.as_deref());
        settings::list(&mut fields, "scopes", &args.scope);
        settings::list(&mut fields, "models", &args.model);
        settings::list(&mut fields, "networks", &args.network);
        control.ask("POST", &keys(&args.tenant), Some(&fields.into()))
    });
    match asked {
        Ok(made) if control.json => say!("{made}"),
        Ok(made) => {
            print_made(&made);
            if let Some(secret) = made.get("signing_secret").and_then(Value::as_str).filter(|_| args.signing) {
                say!(
                    "\nRequests are signed as {} with\n\n{secret}",
                    made.get("id").and_then(Value::as_str).unwrap_or_default()
                );
            }
        }
        Err(fault) if named || !nobody_there(&fault, control) => return Err(fault),
        Err(_) => {
            complain(format_args!(
                "No server runs here: this key is for a config file, and known to nobody until it is in one.\n"
            ));
            return offline(args, control);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether no server was ever asked: none has kept a token here, or none answers.
fn nobody_there(fault: &anyhow::Error, control: &ControlArgs) -> bool {
    fault.is::<NotRunning>() || !control.data_dir.join(environment::ADMIN_TOKEN).exists()
}

/// Makes a key for the config.
fn offline(args: &KeyCreateArgs, control: &ControlArgs) -> anyhow::Result<ExitCode> {
    let pepper = environment::pepper(&control.data_dir)?;
    let made = NewKey::generate(&pepper).context("cannot make a key")?;
    let key = made.key.expose();
    if control.json {
        let mut shown =
            json!({ "tenant": args.tenant, "name": args.name, "id": made.id.as_str(), "key": key, "hash": made.hash });
        if let (true, Some(fields)) = (args.signing, shown.as_object_mut()) {
            fields.insert("signing_secret".into(), pepper.signing_secret(made.id.as_str()).expose().into());
        }
        say!("{shown}");
    } else {
        say!("{key}\n");
        if args.signing {
            let secret = pepper.signing_secret(made.id.as_str());
            say!("Requests are signed as {} with\n\n{}\n", made.id, secret.expose());
        }
        say!("This is the only time the key is shown. To let it in, put its hash into sluice.yaml:\n");
        say!(
            "tenants:\n  - id: {}\n    keys:\n      - {{ name: {}, hash: \"{}\" }}",
            args.tenant,
            args.name,
            made.hash
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_made(made: &Value) {
    let of = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
    say!("{}\n", of("key"));
    say!("This is the only time the key is shown. Its id is {}, its tenant {}.", of("id"), of("tenant"));
}

fn keys(tenant: &str) -> String {
    format!("/admin/v1/tenants/{}/keys", part(tenant))
}

fn path(key: &OneKey) -> String {
    format!("{}/{}", keys(&key.tenant), part(&key.id))
}

/// Prints what requests of a key are signed with.
fn signing_secret(id: &str, control: &ControlArgs) -> anyhow::Result<ExitCode> {
    let pepper = environment::pepper(&control.data_dir)?;
    say!("{}", pepper.signing_secret(id).expose());
    Ok(ExitCode::SUCCESS)
}
