//! Server-sent events as bytes: where one event ends and the next begins (WHATWG HTML §9.2.6).
//!
//! The framer never changes a byte. It cuts a stream into events wherever the reads happened to fall, so
//! that its owner may look at an event, drop it, or pass it on. An event larger than [`EVENT_MAX`] is passed
//! on as it comes, unseen, so that memory stays flat whatever a backend sends.

use bytes::{Bytes, BytesMut};

/// Bound: events beyond this are not held back to be looked at. The events Sluice looks for (usage, errors,
/// the end mark) are a few hundred bytes.
pub const EVENT_MAX: usize = 64 * 1024;

/// What its owner decides about one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Keep,
    /// Take it out.
    Drop,
}

/// Cuts a byte stream into events.
#[derive(Debug, Default)]
pub struct Framer {
    /// The beginning of an event whose end has not come yet.
    held: Bytes,
    /// How much of `held` has been scanned.
    scanned: usize,
    /// Whether something stands on the current line already.
    line_begun: bool,
    /// Whether the last byte was a carriage return: a line feed after it ends no second line.
    after_return: bool,
    /// Whether we are inside an event too large to hold.
    oversized: bool,
}

impl Framer {
    /// Takes the next read; shows every event that is now complete to `judge`; returns what to pass on.
    pub fn feed(&mut self, read: Bytes, mut judge: impl FnMut(&[u8]) -> Verdict) -> Bytes {
        let buffer = self.join(read);
        let mut kept = Kept::new(&buffer);
        let mut start = 0;
        let mut at = std::mem::take(&mut self.scanned);
        while let Some(end) = self.boundary(&buffer, at) {
            let unseen = std::mem::take(&mut self.oversized) || end - start > EVENT_MAX;
            let event = buffer.get(start..end).unwrap_or_default();
            if !unseen && judge(event) == Verdict::Drop {
                kept.skip(start, end);
            }
            (start, at) = (end, end);
        }
        let tail = buffer.len() - start;
        if self.oversized || tail > EVENT_MAX {
            self.oversized = tail > 0 || self.oversized;
            return kept.until(buffer.len());
        }
        self.scanned = tail;
        self.held = if tail == 0 { Bytes::new() } else { buffer.slice(start..) };
        kept.until(start)
    }

    /// At the end of the stream: the bytes of an event that never ended.
    pub fn finish(&mut self) -> Bytes {
        self.scanned = 0;
        std::mem::take(&mut self.held)
    }

    fn join(&mut self, read: Bytes) -> Bytes {
        if self.held.is_empty() {
            return read;
        }
        let mut joined = BytesMut::with_capacity(self.held.len() + read.len());
        joined.extend_from_slice(&std::mem::take(&mut self.held));
        joined.extend_from_slice(&read);
        joined.freeze()
    }

    /// The end of the event in progress, looking from `at`: just behind the terminator of an empty line. A line feed
    /// that follows a terminating carriage return belongs to the next event, so that the cut does not
    /// depend on whether it has been read yet.
    fn boundary(&mut self, buffer: &[u8], mut at: usize) -> Option<usize> {
        while let Some(rest) = buffer.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(found) = memchr::memchr2(b'\n', b'\r', rest) else {
                (self.line_begun, self.after_return) = (true, false);
                return None;
            };
            let end = at + found + 1;
            let is_return = rest.get(found) == Some(&b'\r');
            if found == 0 && !is_return && self.after_return {
                self.after_return = false; // the second half of CR LF
            } else {
                let empty = found == 0 && !self.line_begun;
                (self.line_begun, self.after_return) = (false, is_return);
                if empty {
                    return Some(end);
                }
            }
            at = end;
        }
        None
    }
}

/// Collects what is kept of a buffer: one slice of it unless something in the middle was dropped.
struct Kept<'a> {
    buffer: &'a Bytes,
    from: usize,
    before: Option<BytesMut>,
}

impl<'a> Kept<'a> {
    fn new(buffer: &'a Bytes) -> Self {
        Self { buffer, from: 0, before: None }
    }

    fn skip(&mut self, start: usize, end: usize) {
        if start > self.from {
            self.before
                .get_or_insert_default()
                .extend_from_slice(self.buffer.get(self.from..start).unwrap_or_default());
        }
        self.from = end;
    }

    fn until(self, end: usize) -> Bytes {
        match self.before {
            None if self.from == end => Bytes::new(),
            None => self.buffer.slice(self.from..end),
            Some(mut before) => {
                before.extend_from_slice(self.buffer.get(self.from..end).unwrap_or_default());
                before.freeze()
            }
        }
    }
}

/// The data of an event with a single `data:` line, which is all that model servers send; `None` for
/// comments and other shapes.
pub fn data(event: &[u8]) -> Option<&[u8]> {
    event
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .find_map(|line| line.strip_prefix(b"data:"))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `stream` cut at `cuts`; drops events that contain "drop"; gives what is passed on, and the events seen.
    fn run(stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut framer, mut out, mut seen) = (Framer::default(), Vec::new(), Vec::new());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let read = Bytes::copy_from_slice(&stream[pair[0]..pair[1]]);
            out.extend_from_slice(&framer.feed(read, |event| {
                seen.push(event.to_vec());
                if memchr::memmem::find(event, b"drop").is_some() { Verdict::Drop } else { Verdict::Keep }
            }));
        }
        out.extend_from_slice(&framer.finish());
        (out, seen)
    }

    fn check(stream: &str, passed: &str, events: &[&str]) {
        let (out, seen) = run(stream.as_bytes(), &[]);
        assert_eq!(String::from_utf8(out).unwrap(), passed);
        assert_eq!(seen.iter().map(|e| std::str::from_utf8(e).unwrap()).collect::<Vec<_>>(), events);
    }

    #[test]
    fn every_line_ending_of_the_standard_ends_an_event() {
        check("data: a\n\ndata: b\n\n", "data: a\n\ndata: b\n\n", &["data: a\n\n", "data: b\n\n"]);
        check("data: a\r\rdata: b\r\r", "data: a\r\rdata: b\r\r", &["data: a\r\r", "data: b\r\r"]);
        check(
            "data: a\r\n\r\ndata: b\r\n\r\n",
            "data: a\r\n\r\ndata: b\r\n\r\n",
            &["data: a\r\n\r", "\ndata: b\r\n\r"],
        );
        check("data: drop\r\n\r\ndata: b\r\n\r\n", "\ndata: b\r\n\r\n", &["data: drop\r\n\r", "\ndata: b\r\n\r"]);
    }

    #[test]
    fn an_event_cut_off_by_the_end_is_passed_on_as_it_is() {
        check("data: a\n\ndata: dro", "data: a\n\ndata: dro", &["data: a\n\n"]);
    }

    #[test]
    fn an_event_too_large_to_hold_is_passed_on_unseen_and_the_next_is_seen_again() {
        let stream = format!("data: {}drop\n\ndata: drop\n\ndata: x\n\n", "y".repeat(EVENT_MAX));
        let expected = stream.replace("data: drop\n\n", "");
        for cuts in [vec![], vec![EVENT_MAX / 2, EVENT_MAX + 3], (0..200).map(|i| i * 333).collect()] {
            let (out, seen) = run(stream.as_bytes(), &cuts);
            assert_eq!(out, expected.as_bytes());
            assert_eq!(seen.len(), 2);
        }
    }

    #[test]
    fn data_is_found_behind_other_fields_and_absent_from_comments() {
        assert_eq!(data(b"event: x\ndata: {\"a\":1}\n\n"), Some(&b"{\"a\":1}"[..]));
        assert_eq!(data(b"\ndata:[DONE]\r\n\r"), Some(&b"[DONE]"[..]));
        assert_eq!(data(b": keep-alive\n\n"), None);
    }

    proptest! {
        #[test]
        fn what_is_passed_on_does_not_depend_on_how_the_stream_was_read(
            lines in proptest::collection::vec(prop_oneof!["data: [a-z]{0,12}", Just("data: drop".to_string()), Just(String::new()), Just(": c".to_string())], 0..24),
            ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let stream: String = lines.iter().flat_map(|line| [line.as_str(), ending]).collect();
            prop_assert_eq!(run(stream.as_bytes(), &cuts), run(stream.as_bytes(), &[]));
        }

        #[test]
        fn arbitrary_bytes_lose_nothing_when_nothing_is_dropped(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            prop_assume!(memchr::memmem::find(&bytes, b"drop").is_none());
            prop_assert_eq!(run(&bytes, &cuts).0, bytes);
        }
    }
}
