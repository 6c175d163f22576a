//! The real `sluice` binary, as an operator starts it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Metrics, free_port, request};

/// Promised is 150 ms; a busy test machine is given more.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Past the 30 s of grace a stopping server gives its calls.
const STOP_WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of each of stdout and stderr; more is a flood and is dropped from the front.
const OUTPUT_MAX: usize = 64 << 20;

/// What to start. Owns the directory the config and the data are in.
pub struct Launch {
    program: Vec<OsString>,
    home: TempDir,
    http: u16,
    admin: u16,
    config: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    until: Until,
}

/// When a start counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// `GET /ready` is 200: a model can answer.
    Ready,
    /// `GET /health` is 200: the process serves.
    Healthy,
}

/// A key as `sluice key create` makes it.
#[derive(Debug, Clone)]
pub struct Key {
    /// What the client sends.
    pub key: String,
    /// What the config keeps.
    pub hash: String,
}

/// A running server. Dropping kills it.
pub struct Sluice {
    launch: Launch,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

/// A server that has ended.
#[derive(Debug)]
pub struct Exit {
    /// How.
    pub status: ExitStatus,
    /// All it wrote.
    pub stdout: String,
    /// All it wrote there.
    pub stderr: String,
    /// From the signal (or the start) to the end.
    pub took: Duration,
}

/// Output being read in the background, so that the server never waits for us.
struct Captured {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    reader: Option<JoinHandle<()>>,
}

// === impl Launch ===

impl Launch {
    /// The config's text. Without a `listen:` of its own it gets one with free loopback ports.
    #[must_use]
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// Runs this instead of the binary cargo built: an older one, or a stand-in with its arguments.
    #[must_use]
    pub fn program<P: Into<OsString>>(mut self, words: impl IntoIterator<Item = P>) -> Self {
        self.program = words.into_iter().map(Into::into).collect();
        self
    }

    /// Further arguments after `serve`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A variable of the server's environment, which otherwise has only `PATH` and `HOME`.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// What the start waits for.
    #[must_use]
    pub fn until(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    /// Where the config, the data and whatever a test needs are; removed in the end.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The directory given as `--data-dir`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The config file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.home.path().join("sluice.yaml")
    }

    /// Makes a key in the data directory, before or after the start.
    ///
    /// # Panics
    /// When the command fails or prints something else than a key.
    #[must_use]
    pub fn key(&self, tenant: &str) -> Key {
        let mut command = self.command();
        command.args(["key", "create", "--offline", "--tenant", tenant, "--json", "--data-dir"]).arg(self.data_dir());
        let output = command.output().expect("sluice runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sluice key create: {}\n{text}{complaint}", output.status);
        let printed: Value = serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{fault} in {text}"));
        let field = |name: &str| printed[name].as_str().unwrap_or_else(|| panic!("no {name} in {text}")).to_owned();
        Key { key: field("key"), hash: field("hash") }
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before, or is not ready within 10 seconds; its output is printed.
    pub async fn start(self) -> Sluice {
        let url = format!("http://127.0.0.1:{}", self.http);
        let path = if self.until == Until::Ready { "/ready" } else { "/health" };
        let mut sluice = self.spawn();
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let probe = tokio::time::timeout(READY_WITHIN, request("GET", &format!("{url}{path}"), &[], "")).await;
            if matches!(&probe, Ok(Ok(answer)) if answer.status() == 200) {
                return sluice;
            }
            let ended = sluice.child.try_wait().expect("our own child");
            if ended.is_some() || Instant::now() >= deadline {
                sluice.kill();
                let (stdout, stderr) = (sluice.stdout.finish(), sluice.stderr.finish());
                let last = probe.map(|answer| answer.map(|answer| answer.text()));
                panic!("no 200 at {path} ({ended:?}, {last:?})\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Starts the server and waits for its end: for configs and arguments it must refuse.
    ///
    /// # Panics
    /// When it runs for more than 10 seconds.
    pub async fn fails(self) -> Exit {
        self.spawn().ended(READY_WITHIN, Instant::now()).await
    }

    /// Starts the server and waits for nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(self) -> Sluice {
        let mut command = self.command();
        command.arg("serve").arg("--data-dir").arg(self.data_dir());
        if let Some(text) = &self.config {
            fs::write(self.config_path(), self.with_listen(text)).expect("a writable directory");
            command.arg("--config").arg(self.config_path());
        } else {
            command.args([
                "--http",
                &format!("127.0.0.1:{}", self.http),
                "--admin",
                &format!("127.0.0.1:{}", self.admin),
            ]);
        }
        command.args(&self.arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sluice runs");
        let stdout = Captured::read(child.stdout.take().expect("piped"));
        let stderr = Captured::read(child.stderr.take().expect("piped"));
        Sluice { launch: self, child, stdout, stderr }
    }

    fn with_listen(&self, text: &str) -> String {
        if text.lines().any(|line| line.starts_with("listen:")) {
            return text.to_owned();
        }
        format!("listen: {{ http: \"127.0.0.1:{}\", admin: \"127.0.0.1:{}\" }}\n{text}", self.http, self.admin)
    }

    /// A clean environment: a developer's provider keys or proxies must not change a test.
    fn command(&self) -> Command {
        let built = || vec![binary().into_os_string()];
        let words = if self.program.is_empty() { built() } else { self.program.clone() };
        let (program, arguments) = words.split_first().expect("never empty");
        let mut command = Command::new(program);
        command.args(arguments);
        command.env_clear().current_dir(self.home.path()).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.home.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

// === impl Sluice ===

impl Sluice {
    /// Prepares a start: ports, a directory, nothing run yet.
    ///
    /// # Panics
    /// When there is no room for a temporary directory.
    #[must_use]
    pub fn launch() -> Launch {
        Launch {
            program: Vec::new(),
            home: tempfile::tempdir().expect("a temporary directory"),
            http: free_port(),
            admin: free_port(),
            config: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            until: Until::Ready,
        }
    }

    /// Starts the server with this config and waits until it is ready.
    pub async fn start(config: impl Into<String>) -> Self {
        Self::launch().config(config).start().await
    }

    /// A URL of the data plane.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.launch.http)
    }

    /// A URL of the control plane.
    #[must_use]
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.launch.admin)
    }

    /// What it was started with.
    #[must_use]
    pub fn launched(&self) -> &Launch {
        &self.launch
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in KiB.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// Replaces the config file in one step (by rename), as an editor or a deployment does.
    pub fn rewrite_config(&self, text: &str) {
        let fresh = self.launch.home().join("sluice.yaml.new");
        fs::write(&fresh, self.launch.with_listen(text)).expect("a writable directory");
        fs::rename(&fresh, self.launch.config_path()).expect("a writable directory");
    }

    /// Sends a signal by name: `TERM`, `HUP`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, name: &str) {
        // The shell's own kill: calling the system directly would need unsafe code.
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()]);
        assert!(kill.status().expect("sh runs").success(), "kill -s {name} {}", self.pid());
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When it does not end within 40 seconds.
    pub async fn stop(self) -> Exit {
        self.signal("TERM");
        let since = Instant::now();
        self.ended(STOP_WITHIN, since).await
    }

    /// Kills it; gives what starts it again over the same config and data, differently perhaps.
    #[must_use]
    pub fn relaunched(&mut self) -> Launch {
        self.kill();
        // What is dropped with the old one is a start that never happens.
        std::mem::replace(&mut self.launch, Self::launch())
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again over the same config and data.
    pub async fn restarted(mut self) -> Self {
        self.relaunched().start().await
    }

    /// Stops it with SIGTERM and starts it again over the same config and data.
    ///
    /// # Panics
    /// When it does not end within 40 seconds.
    pub async fn stopped_and_started(self) -> Self {
        self.stopped_to_be_started().await.0.start().await
    }

    /// Stops it with SIGTERM; gives what starts it again over the same config and data, and how long the stop took.
    ///
    /// # Panics
    /// When it does not end within 40 seconds, or not as it should.
    pub async fn stopped_to_be_started(mut self) -> (Launch, Duration) {
        let launch = std::mem::replace(&mut self.launch, Self::launch());
        let exit = self.stop().await;
        assert!(exit.status.success(), "{:?}\n{}", exit.status, exit.stderr);
        (launch, exit.took)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come within so long; its output is printed.
    pub async fn ended(mut self, within: Duration, since: Instant) -> Exit {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                let took = since.elapsed();
                return Exit { status, stdout: self.stdout.finish(), stderr: self.stderr.finish(), took };
            }
            if Instant::now() >= deadline {
                self.kill();
                let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
                panic!("still running after {within:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What it has written to stdout.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The JSON lines of stdout: the access log. Other lines (the banner) are passed over.
    ///
    /// # Panics
    /// On a line that begins as JSON and is none.
    #[must_use]
    pub fn log_lines(&self) -> Vec<Value> {
        let text = self.stdout();
        // What follows the last line end is a line still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let json = whole.lines().filter(|line| line.starts_with('{'));
        json.map(|line| serde_json::from_str(line).unwrap_or_else(|fault| panic!("{fault} in {line}"))).collect()
    }

    /// Scrapes `/metrics`.
    ///
    /// # Panics
    /// When it does not answer 200.
    pub async fn metrics(&self) -> Metrics {
        let answer = crate::get(&self.admin_url("/metrics")).await;
        assert_eq!(answer.status(), 200, "/metrics: {}", answer.text());
        Metrics::parse(&answer.text())
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            // What a failed test needs most.
            eprintln!("--- sluice stdout\n{}\n--- sluice stderr\n{}", self.stdout(), self.stderr());
        }
    }
}

// === impl Exit ===

impl Exit {
    /// The exit code; none when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

// === impl Captured ===

impl Captured {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(VecDeque::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut piece = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                let mut bytes = sink.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend(&piece[..read]);
                let surplus = bytes.len().saturating_sub(OUTPUT_MAX);
                bytes.drain(..surplus);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(bytes.make_contiguous()).into_owned()
    }

    /// All of it, once the process has ended.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// `SLUICE_BIN`, or the binary cargo built beside the running test.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running program has a path");
    // target/debug/deps/test-0123 -> target/debug/sluice
    let found = test.ancestors().skip(1).take(3).map(|folder| folder.join("sluice")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no sluice near {}: run `cargo build -p server` first", test.display()))
}
