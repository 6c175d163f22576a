//! What a client has heard of one stream, and whether it is whole.
//!
//! The stub upstream numbers its chunks; a transcript is whole when every number came once, in order,
//! followed by `[DONE]`. Comments and chunks without content (usage) are allowed anywhere: a gateway may add
//! or strip them.

use bytes::{Buf, BytesMut};

/// What stands before the number in a chunk's content. `upstream::answers` writes it.
pub(crate) const NUMBER_MARK: &[u8] = b"\"content\":\" w";

/// Digits of a chunk's number: fixed, so that every chunk has the same size.
pub(crate) const NUMBER_DIGITS: usize = 6;

/// The events of one stream, as far as they have come.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pending: BytesMut,
    chunks: u32,
    out_of_order: bool,
    done: bool,
}

// === impl Transcript ===

impl Transcript {
    /// Takes the next bytes of the body.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        // A read is nearly always exactly one event: then nothing is copied.
        if self.pending.is_empty() {
            while let Some((event, rest)) = split_event(piece) {
                self.hear(event);
                piece = rest;
            }
            self.pending.extend_from_slice(piece);
            return;
        }
        self.pending.extend_from_slice(piece);
        while let Some(end) = memchr::memmem::find(&self.pending, b"\n\n") {
            let event = self.pending.split_to(end);
            self.pending.advance(2);
            self.hear(&event);
        }
    }

    /// Chunks with content heard so far.
    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// What is wrong with this stream now that it has ended, if anything is.
    pub(crate) fn fault(&self, expected: u32) -> Option<String> {
        if self.out_of_order {
            Some("chunks lost, doubled or out of order".to_owned())
        } else if self.chunks != expected {
            Some(format!("{} chunks of {expected}", self.chunks))
        } else if !self.done {
            Some("no [DONE]".to_owned())
        } else if !self.pending.is_empty() {
            Some("bytes after the last event".to_owned())
        } else {
            None
        }
    }

    fn hear(&mut self, event: &[u8]) {
        if event == b"data: [DONE]" {
            self.done = true;
        } else if let Some(number) = number_of(event) {
            self.out_of_order |= number != self.chunks || self.done;
            self.chunks += 1;
        }
    }
}

fn split_event(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memmem::find(bytes, b"\n\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 2..)?))
}

fn number_of(event: &[u8]) -> Option<u32> {
    let start = memchr::memmem::find(event, NUMBER_MARK)? + NUMBER_MARK.len();
    let digits = event.get(start..start + NUMBER_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(body: &str, split: usize, expected: u32) -> Option<String> {
        let mut transcript = Transcript::default();
        transcript.feed(&body.as_bytes()[..split]);
        transcript.feed(&body.as_bytes()[split..]);
        transcript.fault(expected)
    }

    fn chunk(number: u32) -> String {
        format!("data: {{\"delta\":{{\"content\":\" w{number:06}\"}}}}\n\n")
    }

    #[test]
    fn a_whole_stream_has_no_fault_wherever_it_is_cut() {
        let body = format!(": ping\n\n{}{}data: {{}}\n\ndata: [DONE]\n\n", chunk(0), chunk(1));
        for split in 0..=body.len() {
            assert_eq!(fault_of(&body, split, 2), None, "split at {split}");
        }
    }

    #[test]
    fn a_lost_a_doubled_or_a_missing_chunk_is_a_fault() {
        let done = "data: [DONE]\n\n";
        for (what, body) in [
            ("lost", format!("{}{}{done}", chunk(0), chunk(2))),
            ("doubled", format!("{}{}{done}", chunk(0), chunk(0))),
            ("missing", format!("{}{done}", chunk(0))),
            ("no end", format!("{}{}", chunk(0), chunk(1))),
            ("cut event", format!("{}{}{done}data: ", chunk(0), chunk(1))),
        ] {
            assert!(fault_of(&body, 5, 2).is_some(), "{what}");
        }
    }
}
