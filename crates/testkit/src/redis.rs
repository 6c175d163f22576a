//! A real Redis server, to be stopped, hung and killed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::free_port;

const READY_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A server on a loopback port that keeps nothing on disk. Dropping kills it.
pub struct Redis {
    home: TempDir,
    port: u16,
    server: Child,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When there is no `redis-server` on this machine, or it does not answer within ten seconds.
    #[must_use]
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let redis = Self { server: spawn(port, &home), home, port };
        redis.ready();
        redis
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Hangs: connections stay open and nothing is answered.
    pub fn hang(&self) {
        self.signal("STOP");
    }

    /// Goes on.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Dies, as if killed.
    pub fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts anew on the same port, with nothing in it.
    pub fn restart(&mut self) {
        self.kill();
        self.server = spawn(self.port, &self.home);
        self.ready();
    }

    /// How often clients sent a command so far, by its name in lower case.
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.ask("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// Sends a command as text, gives the answer as it comes.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).expect("redis-server answers")
    }

    fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), READY_WITHIN)?;
        stream.set_read_timeout(Some(READY_WITHIN))?;
        // It closes after QUIT, so that the end is the end.
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn ready(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.try_ask("PING").is_ok_and(|answer| answer.contains("PONG")) {
            assert!(Instant::now() < deadline, "redis-server does not answer on port {}", self.port);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn signal(&self, name: &str) {
        // The shell's own kill: calling the system directly would need unsafe code.
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &self.server.id().to_string()]);
        assert!(kill.status().expect("sh runs").success(), "kill -s {name} {}", self.server.id());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, home: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    command.arg(home.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|fault| panic!("redis-server does not start ({fault}): run tests/install.sh"))
}
