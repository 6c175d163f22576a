//! A way to a server that takes its time: what goes through it, either way, comes later.
//!
//! For servers that are slow and well: they answer everything, and late.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often one that waits looks whether it still must.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A loopback port that leads to another. It lives as long as the test.
pub struct Detour {
    port: u16,
    /// In milliseconds.
    delay: Arc<AtomicU64>,
}

impl Detour {
    /// Leads to a loopback port, at first without any delay.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound socket").port();
        let delay = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&delay);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                carry(&near, &far, &shared);
                carry(&far, &near, &shared);
            }
        });
        Self { port, delay }
    }

    /// Where it begins.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// So long takes what is sent, each way, from now on: an exchange takes twice that.
    ///
    /// # Panics
    /// When that is longer than anybody's life.
    pub fn delay(&self, time: Duration) {
        self.delay.store(u64::try_from(time.as_millis()).expect("short"), Ordering::Relaxed);
    }
}

/// Brings what comes from one to the other, in a thread of its own.
fn carry(from: &TcpStream, to: &TcpStream, delay: &Arc<AtomicU64>) {
    let (mut from, mut to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    to.set_nodelay(true).expect("a TCP socket");
    let delay = Arc::clone(delay);
    thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut piece) {
            let came = Instant::now();
            while came.elapsed() < Duration::from_millis(delay.load(Ordering::Relaxed)) {
                thread::sleep(LOOK_EVERY);
            }
            if to.write_all(&piece[..len]).is_err() {
                break;
            }
        }
        // Either may be closed already.
        let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_through_comes_later_and_whole() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let detour = Detour::to(server.local_addr().unwrap().port());
        thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut asked = [0; 3];
            while stream.read_exact(&mut asked).is_ok() {
                stream.write_all(&asked).unwrap();
            }
        });
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, detour.port())).unwrap();
        for delay in [0, 50] {
            detour.delay(Duration::from_millis(delay));
            let since = Instant::now();
            client.write_all(b"abc").unwrap();
            let mut answer = [0; 3];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"abc");
            assert!(since.elapsed() >= Duration::from_millis(2 * delay));
        }
    }
}
