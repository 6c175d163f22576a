//! The real `sluice`: built, asked, and served for a moment.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, bail, ensure};
use cargo_metadata::{Message, TargetKind};
use tempfile::TempDir;

/// Promised is 150 ms; a busy machine is given more.
const BANNER_WITHIN: Duration = Duration::from_secs(10);
/// For one exchange with a server on this machine that simulates.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Of an answer; the metrics of two models are some 30 KiB.
const ANSWER_MAX: u64 = 4 << 20;

/// A `sluice` to ask.
pub(super) struct Binary(PathBuf);

/// A running `sluice serve`. Dropping ends it.
pub(super) struct Serving {
    child: Child,
    /// Host and port of the data plane.
    pub(super) data: String,
    /// Host and port of the control plane.
    pub(super) control: String,
    _home: TempDir,
}

// === impl Binary ===

impl Binary {
    /// One that was built before.
    pub(super) fn at(path: &Path) -> anyhow::Result<Self> {
        let path = fs::canonicalize(path).with_context(|| format!("no binary at {}", path.display()))?;
        Ok(Self(path))
    }

    /// The one these sources make, in the development profile.
    pub(super) fn build(root: &Path) -> anyhow::Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo)
            .args(["build", "--quiet", "--package", "server", "--message-format", "json-render-diagnostics"])
            .current_dir(root)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run cargo")?;
        let output = build.stdout.take().context("cargo has no output")?;
        let mut built = None;
        for message in Message::parse_stream(BufReader::new(output)) {
            if let Message::CompilerArtifact(artifact) = message?
                && artifact.target.name == "sluice"
                && artifact.target.kind.contains(&TargetKind::Bin)
            {
                built = artifact.executable;
            }
        }
        ensure!(build.wait()?.success(), "`cargo build --package server` failed");
        Ok(Self(built.context("`cargo build --package server` made no `sluice`")?.into_std_path_buf()))
    }

    /// What it writes when it is run with these arguments.
    pub(super) fn output(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command().args(arguments).output().context("cannot run sluice")?;
        let asked = arguments.join(" ");
        ensure!(
            output.status.success(),
            "`sluice {asked}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        String::from_utf8(output.stdout).with_context(|| format!("`sluice {asked}` wrote no UTF-8"))
    }

    /// Starts `sluice serve` with this config, which should ask for ports 0.
    pub(super) fn serve(&self, config: &str) -> anyhow::Result<Serving> {
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("sluice.yaml"), config)?;
        let mut child = self
            .command()
            .args(["serve", "--config", "sluice.yaml"])
            .current_dir(home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run sluice")?;
        let lines = lines(child.stderr.take().context("sluice has no standard error")?);
        let mut serving = Serving { child, data: String::new(), control: String::new(), _home: home };
        let mut said = String::new();
        while serving.data.is_empty() || serving.control.is_empty() {
            let Ok(line) = lines.recv_timeout(BANNER_WITHIN) else {
                bail!("`sluice serve` did not say where it listens:\n{said}");
            };
            if let Some(address) = address_in(&line, "data plane") {
                serving.data = address.into();
            } else if let Some(address) = address_in(&line, "control plane") {
                serving.control = address.into();
            }
            said.push_str(&line);
            said.push('\n');
        }
        Ok(serving)
    }

    /// The reference must not depend on who writes it: no variable of theirs gets through.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.env_clear().env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }
}

/// Reads to the end in the background, so that the server never waits for us.
fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    // Bound: none waits unread for long; a few dozen lines come at the start.
    let (to, lines) = mpsc::sync_channel(1024);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = to.try_send(line);
        }
    });
    lines
}

/// The host and port of the URL in a line of the banner.
fn address_in<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let url = line.trim_start().strip_prefix(name)?.split_whitespace().next()?;
    url.strip_prefix("http://")?.split('/').next()
}

// === impl Serving ===

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP exchange on a connection of its own: the status and the body, as it came.
pub(super) fn ask(address: &str, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let exchange = || -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
        let status =
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer has no status")?;
        Ok((status, body.to_owned()))
    };
    exchange().with_context(|| format!("{method} http://{address}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_where_to_connect() {
        let line = "  data plane     http://127.0.0.1:40679/v1   (no key needed; this machine only)";
        assert_eq!(address_in(line, "data plane"), Some("127.0.0.1:40679"));
        assert_eq!(address_in(line, "control plane"), None);
    }
}
