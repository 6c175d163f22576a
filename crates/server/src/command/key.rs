//! `sluice key`.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use tenancy::NewKey;

use crate::cli::{KeyCreateArgs, SigningSecretArgs};
use crate::environment;

pub(crate) fn create(args: &KeyCreateArgs) -> anyhow::Result<ExitCode> {
    let pepper = environment::pepper(&args.data_dir)?;
    let made = NewKey::generate(&pepper).context("cannot make a key")?;
    let key = made.key.expose();
    if args.json {
        let mut shown =
            json!({ "tenant": args.tenant, "name": args.name, "id": made.id.as_str(), "key": key, "hash": made.hash });
        if let (true, Some(fields)) = (args.signing, shown.as_object_mut()) {
            fields.insert("signing_secret".into(), pepper.signing_secret(made.id.as_str()).expose().into());
        }
        println!("{shown}");
    } else {
        println!("{key}\n");
        if args.signing {
            let secret = pepper.signing_secret(made.id.as_str());
            println!("Requests are signed as {} with\n\n{}\n", made.id, secret.expose());
        }
        println!("This is the only time the key is shown. To let it in, put its hash into sluice.yaml:\n");
        println!(
            "tenants:\n  - id: {}\n    keys:\n      - {{ name: {}, hash: \"{}\" }}",
            args.tenant, args.name, made.hash
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn signing_secret(args: &SigningSecretArgs) -> anyhow::Result<ExitCode> {
    let pepper = environment::pepper(&args.data_dir)?;
    println!("{}", pepper.signing_secret(&args.id).expose());
    Ok(ExitCode::SUCCESS)
}
