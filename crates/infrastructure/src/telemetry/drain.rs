//! A queue of finished lines before an output that may block.
//!
//! Standard output and standard error may be pipes nobody reads. So whoever has lines offers them here and goes on at
//! once; a thread of the drain's own writes them. What finds the queue full, and what the output refuses, is lost
//! and counted. Knows nothing of what the lines say.

use std::io::{ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bound: how long the end of the process waits for an output that does not take the rest.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two tries at an output that is in non-blocking mode (its other users may have set that) and full.
const PAUSE: Duration = Duration::from_millis(5);

/// How much may wait, what is being written included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Pieces offered.
    pub(super) pieces: usize,
    /// Bytes of memory they occupy.
    pub(super) bytes: usize,
}

/// Where lines are offered. Cheap to clone; all clones share one queue.
#[derive(Clone)]
pub(super) struct Drain(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    bounds: Bounds,
    /// Something came in, or nothing more will.
    filled: Condvar,
    /// Everything is out.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Piece>,
    /// Waiting or being written.
    pieces: usize,
    bytes: usize,
    lost: u64,
    closed: bool,
}

struct Piece {
    text: Vec<u8>,
    lines: u64,
}

// === impl Drain ===

impl Drain {
    /// A drain into `output`, and the thread that writes.
    pub(super) fn start(thread: &str, output: impl Write + Send + 'static, bounds: Bounds) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), bounds, filled: Condvar::new(), emptied: Condvar::new() });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name(thread.into()).spawn(move || writer.write_all(output))?;
        Ok(Self(shared))
    }

    /// Hands a piece of so many whole lines on, or loses it. Never waits for the output.
    pub(super) fn offer(&self, text: Vec<u8>, lines: u64) {
        let mut queue = self.0.lock();
        let (pieces, bytes) = (queue.pieces + 1, queue.bytes.saturating_add(text.capacity()));
        if queue.closed || pieces > self.0.bounds.pieces || bytes > self.0.bounds.bytes {
            queue.lost += lines;
            return;
        }
        (queue.pieces, queue.bytes) = (pieces, bytes);
        queue.waiting.push(Piece { text, lines });
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Whether a piece of this size would be taken now: lines that would be lost need not be written first.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let queue = self.0.lock();
        !queue.closed && queue.pieces < self.0.bounds.pieces && queue.bytes + bytes <= self.0.bounds.bytes
    }

    /// Counts lines that were not even offered.
    pub(super) fn lose(&self, lines: u64) {
        self.0.lock().lost += lines;
    }

    /// Lines lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Waits until everything is out, or until patience ends.
    pub(super) fn flush(&self) {
        let queue = self.0.lock();
        let waited = self.0.emptied.wait_timeout_while(queue, PATIENCE, |queue| queue.pieces > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes nothing more, and writes what is left; unless the output is stuck, for the process must be able to end.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
        self.flush();
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work, until the drain is closed and empty.
    fn write_all(&self, mut output: impl Write) {
        loop {
            let empty = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closed;
            let waited = self.filled.wait_while(self.lock(), empty);
            let taken = std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).waiting);
            if taken.is_empty() {
                return;
            }
            for piece in taken {
                let written = write(&mut output, &piece.text);
                let mut queue = self.lock();
                queue.pieces -= 1;
                queue.bytes -= piece.text.capacity();
                // A full disk may have room again and a named pipe a new reader: later pieces are tried all the same.
                queue.lost += if written.is_ok() { 0 } else { piece.lines };
                if queue.pieces == 0 {
                    self.emptied.notify_all();
                }
            }
        }
    }
}

fn write(output: &mut impl Write, mut text: &[u8]) -> std::io::Result<()> {
    while !text.is_empty() {
        match output.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    /// An output that keeps what it is given; perhaps only after it has been let.
    #[derive(Clone, Default)]
    pub(crate) struct Output {
        text: Arc<Mutex<Vec<u8>>>,
        gate: Option<Arc<Mutex<Receiver<()>>>>,
    }

    impl Output {
        /// An output that blocks until the other half is dropped.
        pub(crate) fn blocked() -> (Self, Sender<()>) {
            let (open, gate) = channel();
            (Self { gate: Some(Arc::new(Mutex::new(gate))), ..Self::default() }, open)
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Output {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            if let Some(gate) = &self.gate {
                assert!(gate.lock().unwrap().recv().is_err(), "nothing is ever sent: the gate is dropped");
            }
            self.text.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const BOUNDS: Bounds = Bounds { pieces: 8, bytes: 1024 };

    fn drain(output: impl Write + Send + 'static) -> Drain {
        Drain::start("test", output, BOUNDS).unwrap()
    }

    #[test]
    fn what_was_taken_is_written_in_order_before_a_drain_is_closed() {
        let output = Output::default();
        let drain = drain(output.clone());
        (0..5).for_each(|i| drain.offer(format!("{i}\n").into_bytes(), 1));
        drain.close();
        assert_eq!((output.text().as_str(), drain.lost()), ("0\n1\n2\n3\n4\n", 0));
        drain.offer(b"late\n".to_vec(), 1);
        assert_eq!(drain.lost(), 1);
    }

    #[test]
    fn a_stuck_output_is_owed_no_more_pieces_than_the_bound() {
        let (output, open) = Output::blocked();
        let drain = drain(output.clone());
        (0..20).for_each(|_| drain.offer(b"a\nb\n".to_vec(), 2));
        assert_eq!(drain.lost(), 2 * (20 - 8));
        assert!(!drain.has_room(0));
        drop(open);
        drain.close();
        assert_eq!(output.text(), "a\nb\n".repeat(8));
    }

    #[test]
    fn a_stuck_output_is_owed_no_more_bytes_than_the_bound() {
        let (output, open) = Output::blocked();
        let drain = drain(output.clone());
        let line = [vec![b'x'; 399], vec![b'\n']].concat();
        (0..5).for_each(|_| drain.offer(line.clone(), 1));
        assert_eq!(drain.lost(), 3);
        assert!(drain.has_room(224) && !drain.has_room(225));
        drop(open);
        drain.close();
        assert_eq!(output.text().len(), 800);
    }

    #[test]
    fn a_stuck_output_does_not_keep_the_process_from_ending() {
        let (output, open) = Output::blocked();
        let drain = drain(output);
        drain.offer(b"never\n".to_vec(), 1);
        let start = Instant::now();
        drain.close();
        let took = start.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE * 4, "{took:?}");
        drop(open);
    }

    /// Takes three bytes at most, and of these only every second time.
    struct Grudging(Output, Vec<std::io::Error>);

    impl Write for Grudging {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            match self.1.pop() {
                Some(error) => Err(error),
                None => self.0.write(text.get(..3).unwrap_or(text)),
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_little_at_a_time_gets_everything() {
        let output = Output::default();
        let errors = [ErrorKind::WouldBlock, ErrorKind::Interrupted].map(Into::into).into();
        let drain = drain(Grudging(output.clone(), errors));
        drain.offer(b"12345678\n".to_vec(), 1);
        drain.close();
        assert_eq!((output.text().as_str(), drain.lost()), ("12345678\n", 0));
    }

    #[test]
    fn an_output_that_fails_loses_what_it_refused_and_nothing_else() {
        let output = Output::default();
        let drain = drain(Grudging(output.clone(), vec![ErrorKind::StorageFull.into()]));
        drain.offer(b"a\nb\n".to_vec(), 2);
        drain.flush();
        drain.offer(b"c\n".to_vec(), 1);
        drain.close();
        assert_eq!((output.text().as_str(), drain.lost()), ("c\n", 2));
    }
}
