//! A real PostgreSQL of the test's own, in a directory of its own.
//!
//! It asks for a password, so that a test sees where one leaks. It can be stopped, killed, started again and hung: every
//! process of it, as when its machine freezes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::free_port;

/// A start takes about a second; a busy test machine is given more.
const READY_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const USER: &str = "app";

/// A server. Dropping ends it.
pub struct Postgres {
    home: TempDir,
    programs: PathBuf,
    /// PostgreSQL refuses to run as root: whom to run as then.
    owner: Option<(u32, u32)>,
    port: u16,
    server: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// The password of its user. It must be seen nowhere.
    pub const PASSWORD: &str = "canary-in-the-url";

    /// Makes one and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, saying what installs it, or when it does not start.
    #[must_use]
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let owner = is_root().then(owner);
        let password = home.path().join("password");
        fs::write(&password, Self::PASSWORD).expect("a writable directory");
        if let Some((user, group)) = owner {
            chown(home.path(), Some(user), Some(group)).expect("root may give it away");
            chown(&password, Some(user), Some(group)).expect("root may give it away");
        }
        let port = free_port();
        let mut postgres = Self { home, programs: programs(), owner, port, server: None, databases: AtomicU32::new(0) };
        let mut init = postgres.command("initdb");
        init.arg("-D").arg(postgres.data()).args(["-U", USER, "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]);
        init.arg("--pwfile").arg(password).env("LC_ALL", "C.UTF-8");
        run(&mut init);
        postgres.launch();
        postgres
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port with the same data.
    ///
    /// # Panics
    /// When it runs, or does not get ready.
    pub fn launch(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a writable directory");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.home.path()).args(["-p", &self.port.to_string()]);
        // What survives a crash of the machine is not what these tests are about.
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "max_connections=60"] {
            command.args(["-c", setting]);
        }
        self.server = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres runs"));
        let deadline = Instant::now() + READY_WITHIN;
        while !self.answers() {
            assert!(Instant::now() < deadline, "not ready:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
            sleep(LOOK_EVERY);
        }
    }

    /// Makes an empty database; returns its URL.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut create = self.command("createdb");
        create.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-T", "template0", &name]);
        run(create.env("PGPASSWORD", Self::PASSWORD));
        format!("postgres://{USER}:{}@127.0.0.1:{}/{name}", Self::PASSWORD, self.port)
    }

    /// Shuts it down, ending its connections.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Kills it without a goodbye: what was committed is there at the next start.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill(&mut self) {
        self.end("QUIT");
    }

    /// Stops every process of it (SIGSTOP): connections stay open, connecting works, and nothing is answered.
    ///
    /// # Panics
    /// When it does not run.
    pub fn hang(&self) {
        // The first one first: it can then make no others.
        let first = self.pid();
        signal("STOP", &[first]);
        signal("STOP", &children(first));
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        let first = self.pid();
        signal("CONT", &children(first));
        signal("CONT", &[first]);
    }

    fn end(&mut self, how: &str) {
        let first = self.pid();
        signal(how, &[first]);
        let mut server = self.server.take().expect("it runs");
        let deadline = Instant::now() + END_WITHIN;
        while server.try_wait().expect("our own child").is_none() {
            assert!(Instant::now() < deadline, "PostgreSQL does not end");
            sleep(LOOK_EVERY);
        }
    }

    fn answers(&self) -> bool {
        let mut ask = self.command("pg_isready");
        ask.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", "postgres"]);
        ask.status().expect("pg_isready runs").success()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.home.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").id()
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.resume();
            self.end("QUIT");
        }
    }
}

/// Where PostgreSQL's programs are: Debian keeps those of the server off the path.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let whole = |folder: &PathBuf| {
        ["initdb", "postgres", "createdb", "pg_isready"].iter().all(|name| is_file(&folder.join(name)))
    };
    let newest = found.into_iter().rev().find(whole);
    newest
        .expect("PostgreSQL is not installed, or not its server: run tests/install.sh, which installs what tests need")
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

fn is_root() -> bool {
    output("id", ["-u"]) == "0"
}

/// The user Debian's package makes.
fn owner() -> (u32, u32) {
    let id =
        |which| output("id", [which, "postgres"]).parse().expect("root needs the user `postgres` to run a server as");
    (id("-u"), id("-g"))
}

fn output<const N: usize>(program: &str, arguments: [&str; N]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("")).to_owned();
    assert!(output.status.success(), "{name:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn children(of: u32) -> Vec<u32> {
    let list =
        fs::read_to_string(format!("/proc/{of}/task/{of}/children")).expect("Linux lists the children of a process");
    list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

fn signal(name: &str, processes: &[u32]) {
    // The shell's own kill: calling the system directly would need unsafe code. One that has just ended is no fault.
    let mut kill = Command::new("sh");
    kill.args(["-c", "name=$0; for one; do kill -s \"$name\" \"$one\" 2>&-; done; :", name]);
    kill.args(processes.iter().map(u32::to_string));
    assert!(kill.status().expect("sh runs").success(), "kill -s {name}");
}
