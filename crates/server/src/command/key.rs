//! `sluice key`.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use tenancy::NewKey;

use crate::cli::KeyCreateArgs;
use crate::environment;

pub(crate) fn create(args: &KeyCreateArgs) -> anyhow::Result<ExitCode> {
    let pepper = environment::pepper(&args.data_dir)?;
    let made = NewKey::generate(&pepper).context("cannot make a key")?;
    let key = made.key.expose();
    if args.json {
        let shown =
            json!({ "tenant": args.tenant, "name": args.name, "id": made.id.as_str(), "key": key, "hash": made.hash });
        println!("{shown}");
    } else {
        println!("{key}\n");
        println!("This is the only time the key is shown. To let it in, put its hash into sluice.yaml:\n");
        println!(
            "tenants:\n  - id: {}\n    keys:\n      - {{ name: {}, hash: \"{}\" }}",
            args.tenant, args.name, made.hash
        );
    }
    Ok(ExitCode::SUCCESS)
}
