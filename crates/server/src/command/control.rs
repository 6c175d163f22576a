//! A client of the admin API.

use std::fmt::Write;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::http::{Request, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, Error};

use crate::cli::{ADMIN, ControlArgs};
use crate::environment;

/// Bound: for a connection. A server nearby takes milliseconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Bound: the server itself gives up after ten seconds, and with a report when its config says; this is for one that hangs.
const WITHIN: Duration = Duration::from_secs(900);
/// Bound: a page of a thousand rows is below a megabyte.
const ANSWER_MAX: u64 = 16 << 20;
/// Rows of a page: the most the server gives.
const PAGE: u32 = 1000;

/// A server's admin API.
pub(super) struct Control {
    agent: Agent,
    url: String,
    bearer: String,
    /// Whether to print JSON.
    pub(super) json: bool,
}

/// Nobody listens there.
#[derive(Debug, thiserror::Error)]
#[error(
    "no server answers at {url} ({fault}).\nIs it running? Start it with `sluice serve`, or name its control plane with --admin URL"
)]
pub(super) struct NotRunning {
    url: String,
    fault: String,
}

impl Control {
    /// A client by what the command line says. Asks nothing yet.
    pub(super) fn new(args: &ControlArgs) -> anyhow::Result<Self> {
        let url = args.admin.as_deref().unwrap_or(ADMIN).trim_end_matches('/').to_owned();
        let uri: Uri = url.parse().with_context(|| format!("--admin {url} is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            bail!("--admin {url} is no URL: write it as {ADMIN}");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_global(Some(WITHIN))
            .http_status_as_error(false)
            // The token is for this server, and for no other that it names.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build();
        Ok(Self { agent: config.into(), url, bearer: format!("Bearer {}", token(args)?), json: args.json })
    }

    /// Reads.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None)
    }

    /// Does something; `body` as JSON.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let text = self.send(method, path, body)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("{} is no Sluice: its answer is no JSON", self.url))
    }

    /// Reads what is no JSON: a table, a page.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<String> {
        self.send("GET", path, None)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", &self.bearer)
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .context("the address or the token has characters that cannot be sent")?;
        let mut answer = match self.agent.run(request) {
            Ok(answer) => answer,
            Err(Error::Io(fault)) => return Err(self.not_running(fault.to_string())),
            Err(fault @ (Error::ConnectionFailed | Error::HostNotFound | Error::Timeout(_))) => {
                return Err(self.not_running(fault.to_string()));
            }
            Err(fault) => return Err(anyhow::Error::new(fault).context(self.url.clone())),
        };
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string().context(self.url.clone())?;
        if (200..300).contains(&status) {
            return Ok(text);
        }
        bail!(refused(status, &text))
    }

    /// Reads a list to its end, page by page.
    pub(super) fn all(&self, path: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let mut page = self.get(&format!("{path}{joint}limit={PAGE}{after}"))?;
            if let Some(Value::Array(rows)) = page.get_mut(name).map(Value::take) {
                all.extend(rows);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = format!("&after={}", part(next)),
                None => return Ok(all),
            }
        }
    }

    fn not_running(&self, fault: String) -> anyhow::Error {
        NotRunning { url: self.url.clone(), fault }.into()
    }
}

/// The token given, else the one a server keeps in its data directory.
fn token(args: &ControlArgs) -> anyhow::Result<String> {
    if let Some(token) = args.token.as_ref().filter(|token| !token.is_empty()) {
        return Ok(token.clone());
    }
    let path = args.data_dir.join(environment::ADMIN_TOKEN);
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "no admin token: there is none in {}.\nName the server's data directory with --data-dir, or give the token with SLUICE_ADMIN_TOKEN",
            path.display()
        )
    })?;
    Ok(text.trim().to_owned())
}

/// A part of a path or query, as it must be written there.
pub(super) fn part(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// What the server said, for people.
fn refused(status: u16, text: &str) -> String {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let of = |name: &str| answer.get("error").and_then(|error| error.get(name)).and_then(Value::as_str);
    match (of("message"), of("field")) {
        (Some(message), Some(field)) => format!("{field}: {message}"),
        (Some(message), None) if status == 401 => format!(
            "{message}\nThe token comes from --token, SLUICE_ADMIN_TOKEN, or the data directory (--data-dir) in that order"
        ),
        (Some(message), None) => message.to_owned(),
        (None, _) => {
            format!("the server answered {status}, which is nothing Sluice says: is it Sluice's control plane?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_path_is_written_so_that_it_does_not() {
        assert_eq!(part("a-b.c_1~"), "a-b.c_1~");
        assert_eq!(part("../x?y=1 é"), "..%2Fx%3Fy%3D1%20%C3%A9");
    }

    #[test]
    fn a_refusal_names_the_field_and_what_is_no_refusal_is_told_from_one() {
        assert_eq!(
            refused(400, r#"{"error":{"message":"is wrong","code":"invalid","field":"plan"}}"#),
            "plan: is wrong"
        );
        assert!(refused(502, "<html>").contains("502"));
    }
}
