//! `sluice sign`: a request's signature, made as a client makes it.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use access::credential::signature::{self, Request, Signed};
use anyhow::{Context, bail};
use kernel::Timestamp;
use kernel::settings::Secret;

use super::output::say;
use crate::cli::SignArgs;
use crate::environment;

pub(crate) fn run(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let secret = secret(args)?;
    let body = args.body.as_deref().map(read).transpose()?;
    let signed = signature::sign(&Request {
        method: &args.method,
        url: &args.url,
        body: body.as_deref(),
        key_id: &args.key_id,
        secret: &secret,
        created: args.created.unwrap_or_else(|| Timestamp::now().millis() / 1000),
        lifetime: args.lifetime,
        nonce: args.nonce.as_deref(),
    })?;
    if args.base {
        say!("{}", signed.base);
    } else if args.curl {
        say!("{}", curl(args, &signed)?);
    } else {
        signed.headers.iter().for_each(|(name, value)| say!("{name}: {value}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn secret(args: &SignArgs) -> anyhow::Result<Secret> {
    let text = match &args.secret_file {
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?),
        None => environment::variable(&args.secret_env),
    };
    match text.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => Ok(Secret::new(text)),
        None => bail!(
            "there is no signing secret: put what `sluice key signing-secret` prints into a file for --secret-file, or \
             into {}",
            args.secret_env
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body).context("cannot read the body from the standard input")?;
        return Ok(body);
    }
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn curl(args: &SignArgs, signed: &Signed) -> anyhow::Result<String> {
    let mut words = vec!["curl".to_owned(), "-X".to_owned(), quoted(&args.method), quoted(&args.url)];
    for (name, value) in &signed.headers {
        words.extend(["-H".to_owned(), quoted(&format!("{name}: {value}"))]);
    }
    if let Some(path) = &args.body {
        if path == Path::new("-") {
            bail!("--curl needs the body in a file: curl would have to read the standard input again");
        }
        words.extend(["-H", "'content-type: application/json'", "--data-binary"].map(str::to_owned));
        words.push(quoted(&format!("@{}", path.display())));
    }
    Ok(words.join(" "))
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
