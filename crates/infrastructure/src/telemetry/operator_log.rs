//! The operator's log, on standard error, written without anybody waiting for it.
//!
//! Any thread may have something to say to the operator, those that move clients' bytes included; and standard error
//! may be a pipe nobody reads. So lines are handed to a thread of their own; when it is behind they are lost and
//! counted. What the lines say, and how, is decided by whoever writes them: this is only an [`std::io::Write`].

use std::io::Write;

use super::drain::{Bounds, Drain};

/// Bound: what waits to be written. A start or a storm of failing instances says some hundred lines at once.
const BACKLOG: Bounds = Bounds { pieces: 4096, bytes: 1024 * 1024 };
/// Bound: bytes of a line kept until its end comes; a longer one is handed on in parts.
const LINE_MAX: usize = 16 * 1024;

/// The operator's log. Dropping it writes what is left, for half a second at most, and ends it: drop it last.
pub struct OperatorLog(Drain);

/// A writer of lines into the operator's log. Each clone puts its own lines together; none ever waits or fails.
pub struct OperatorLines {
    drain: Drain,
    /// A line that has not ended yet.
    begun: Vec<u8>,
}

// === impl OperatorLog ===

impl OperatorLog {
    /// A log that writes to `output`.
    ///
    /// # Errors
    /// When its thread cannot be made.
    pub fn to(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        Ok(Self(Drain::start("sluice-log", output, BACKLOG)?))
    }

    /// A writer into the log. Writers outlive the log without harm: what they write then is lost and counted.
    pub fn lines(&self) -> OperatorLines {
        OperatorLines { drain: self.0.clone(), begun: Vec::new() }
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.0
    }
}

impl Drop for OperatorLog {
    fn drop(&mut self) {
        self.0.close();
    }
}

// === impl OperatorLines ===

impl OperatorLines {
    fn hand_on(&self, text: Vec<u8>) {
        let lines = text.iter().filter(|byte| **byte == b'\n').count().max(1);
        self.drain.offer(text, lines as u64);
    }
}

impl Clone for OperatorLines {
    fn clone(&self) -> Self {
        Self { drain: self.drain.clone(), begun: Vec::new() }
    }
}

impl Write for OperatorLines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (ended, begun) = text.split_at_checked(end).unwrap_or((text, &[]));
        if !ended.is_empty() {
            let mut whole = std::mem::take(&mut self.begun);
            whole.extend_from_slice(ended);
            self.hand_on(whole);
        }
        self.begun.extend_from_slice(begun);
        if self.begun.len() > LINE_MAX {
            let part = std::mem::take(&mut self.begun);
            self.hand_on(part);
        }
        Ok(text.len())
    }

    /// Does nothing: the thread writes as soon as it can.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for OperatorLines {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            let mut line = std::mem::take(&mut self.begun);
            line.push(b'\n');
            self.hand_on(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::drain::tests::Output;
    use super::*;

    #[test]
    fn a_line_comes_out_whole_however_it_was_written() {
        let output = Output::default();
        let log = OperatorLog::to(output.clone()).unwrap();
        let (mut one, mut other) = (log.lines(), log.lines());
        one.write_all(b"the first ").unwrap();
        other.write_all(b"the second line\nand the ").unwrap();
        one.write_all(b"line\n").unwrap();
        drop(other);
        drop(log);
        assert_eq!(output.text(), "the second line\nthe first line\nand the \n");
    }

    #[test]
    fn a_blocked_standard_error_stops_nobody_and_what_is_lost_is_counted() {
        const LINES: u64 = 20_000;
        let (output, open) = Output::blocked();
        let log = OperatorLog::to(output.clone()).unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mut lines = log.lines();
                scope.spawn(move || (0..LINES / 4).for_each(|i| writeln!(lines, "{thread} says {i}").unwrap()));
            }
        });
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let lost = log.drain().lost();
        assert!(lost >= LINES - BACKLOG.pieces as u64, "{lost}");
        drop(open);
        drop(log);
        let text = output.text();
        assert_eq!(text.lines().count() as u64 + lost, LINES);
        assert!(text.lines().all(|line| line.contains(" says ")), "lines were torn");
    }

    #[test]
    fn a_line_without_end_is_not_kept_without_end() {
        let output = Output::default();
        let log = OperatorLog::to(output.clone()).unwrap();
        let mut lines = log.lines();
        (0..10).for_each(|_| lines.write_all(&[b'x'; LINE_MAX]).unwrap());
        assert!(lines.begun.len() <= LINE_MAX);
        log.drain().flush();
        assert!(output.text().len() >= 8 * LINE_MAX);
    }

    #[test]
    fn what_is_said_after_the_end_of_the_log_is_lost_and_counted() {
        let log = OperatorLog::to(Output::default()).unwrap();
        let (mut lines, drain) = (log.lines(), log.drain().clone());
        drop(log);
        lines.write_all(b"too late\n").unwrap();
        assert_eq!(drain.lost(), 1);
    }
}
