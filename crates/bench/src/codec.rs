//! Reading HTTP/1.1 messages out of a buffer, for both ends of the bench: the client's answers and the
//! stub upstream's requests.
//!
//! It does no I/O, so that the same code serves the asynchronous client, the blocking open-loop client
//! and the upstream. It trusts its peers more than a product may: it exists to cost little, not to defend.

use anyhow::{Result, bail};
use bytes::{Buf, BytesMut};

/// Bound: more header lines than any proxy under test adds to an answer.
const MAX_HEADERS: usize = 64;

/// How much room is kept for one read. A whole answer of the bench (head and 1.5 KB) fits, and ten thousand
/// open streams still cost the client no more than 40 MB.
pub(crate) const READ_ROOM: usize = 4096;

/// The head of an answer, as far as the bench cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    /// The peer will close the connection after this answer.
    pub(crate) close: bool,
}

/// What a request asks of the stub upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Chat,
    Health,
    Models,
    Unknown,
}

/// Whether a body has been read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    End,
}

/// Bytes received and not yet consumed, and where in the current body they stand.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: BytesMut,
    body: Body,
}

#[derive(Debug, Clone, Copy, Default)]
enum Body {
    #[default]
    Done,
    Length(usize),
    UntilClose,
    ChunkSize,
    ChunkData(usize),
    Trailer,
}

// === impl Inbox ===

impl Inbox {
    /// The buffer to read into, with room for one read.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.bytes.reserve(READ_ROOM);
        &mut self.bytes
    }

    /// Appends bytes that were read elsewhere.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the peer may close now without cutting a message in two.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self.body, Body::UntilClose) || (matches!(self.body, Body::Done) && self.bytes.is_empty())
    }

    /// Takes the head of an answer off the front, if it is complete.
    pub(crate) fn answer_head(&mut self) -> Result<Option<AnswerHead>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = answer.parse(&self.bytes)? else {
            return Ok(None);
        };
        let framing = Framing::of(answer.headers);
        let head = AnswerHead { status: answer.code.unwrap_or(0), close: framing.close };
        self.body = framing.body.unwrap_or(Body::UntilClose);
        self.bytes.advance(length);
        Ok(Some(head))
    }

    /// Takes the head of a request off the front, if it is complete.
    pub(crate) fn request_head(&mut self) -> Result<Option<Asked>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(&self.bytes)? else {
            return Ok(None);
        };
        let path = request.path.unwrap_or_default();
        let asked = match request.method {
            Some("POST") if path.ends_with("/chat/completions") => Asked::Chat,
            Some("GET") if path.ends_with("/v1/models") => Asked::Models,
            Some("GET") if path.ends_with("/health") || path.ends_with("/ready") => Asked::Health,
            _ => Asked::Unknown,
        };
        self.body = Framing::of(request.headers).body.unwrap_or(Body::Done);
        self.bytes.advance(length);
        Ok(Some(asked))
    }

    /// Hands every body byte that has arrived to `sink` and says whether that was the last.
    pub(crate) fn drain(&mut self, mut sink: impl FnMut(&[u8])) -> Result<Progress> {
        loop {
            self.body = match self.body {
                Body::Done => return Ok(Progress::End),
                Body::Length(0) => Body::Done,
                Body::Length(left) => match self.take(left, &mut sink) {
                    0 => return Ok(Progress::More),
                    taken => Body::Length(left - taken),
                },
                Body::UntilClose => {
                    self.take(usize::MAX, &mut sink);
                    return Ok(Progress::More);
                }
                Body::ChunkSize => match self.chunk_size()? {
                    None => return Ok(Progress::More),
                    Some(0) => Body::Trailer,
                    Some(size) => Body::ChunkData(size),
                },
                Body::ChunkData(0) if self.bytes.len() < 2 => return Ok(Progress::More),
                Body::ChunkData(0) => {
                    if !self.bytes.starts_with(b"\r\n") {
                        bail!("a chunk does not end where its size says");
                    }
                    self.bytes.advance(2);
                    Body::ChunkSize
                }
                Body::ChunkData(left) => match self.take(left, &mut sink) {
                    0 => return Ok(Progress::More),
                    taken => Body::ChunkData(left - taken),
                },
                Body::Trailer => match memchr::memmem::find(&self.bytes, b"\r\n") {
                    None => return Ok(Progress::More),
                    Some(0) => {
                        self.bytes.advance(2);
                        Body::Done
                    }
                    Some(line) => {
                        self.bytes.advance(line + 2);
                        Body::Trailer
                    }
                },
            };
        }
    }

    fn take(&mut self, most: usize, sink: &mut impl FnMut(&[u8])) -> usize {
        let taken = most.min(self.bytes.len());
        if let Some(piece) = self.bytes.get(..taken)
            && taken > 0
        {
            sink(piece);
            self.bytes.advance(taken);
        }
        taken
    }

    fn chunk_size(&mut self) -> Result<Option<usize>> {
        match httparse::parse_chunk_size(&self.bytes) {
            Ok(httparse::Status::Complete((line, size))) => {
                self.bytes.advance(line);
                Ok(Some(usize::try_from(size)?))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(_) => bail!("a chunk size that is no number"),
        }
    }
}

/// What the headers say about the body's end.
struct Framing {
    body: Option<Body>,
    close: bool,
}

// === impl Framing ===

impl Framing {
    fn of(headers: &[httparse::Header<'_>]) -> Self {
        let mut framing = Self { body: None, close: false };
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
                framing.body = length.map(Body::Length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing.body = Some(Body::ChunkSize);
            } else if header.name.eq_ignore_ascii_case("connection") {
                framing.close = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        framing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `message` in two pieces and returns the status and body that were read.
    fn read_split(message: &[u8], at: usize) -> (Option<AnswerHead>, Vec<u8>, bool) {
        let (mut inbox, mut head, mut body) = (Inbox::default(), None, Vec::new());
        let mut ended = false;
        for piece in [&message[..at], &message[at..]] {
            inbox.extend(piece);
            if head.is_none() {
                head = inbox.answer_head().unwrap();
            }
            if head.is_some() {
                let progress = inbox.drain(|bytes| body.extend_from_slice(bytes)).unwrap();
                ended = progress == Progress::End;
            }
        }
        (head, body, ended)
    }

    #[test]
    fn a_chunked_answer_reads_the_same_wherever_it_is_cut() {
        let message =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\nb\r\n more bytes\r\n0\r\nx: y\r\n\r\n";
        for at in 0..message.len() {
            let (head, body, ended) = read_split(message, at);
            assert_eq!(head.map(|head| head.status), Some(200));
            assert_eq!(body, b"data more bytes", "cut at {at}");
            assert!(ended, "cut at {at}");
        }
    }

    #[test]
    fn an_answer_with_a_length_ends_exactly_there() {
        let message = b"HTTP/1.1 503 No\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        for at in 0..message.len() {
            let (head, body, ended) = read_split(message, at);
            let expected = AnswerHead { status: 503, close: true };
            assert_eq!((head, &body[..], ended), (Some(expected), &b"hello"[..], true));
        }
    }

    #[test]
    fn a_chunk_longer_than_its_size_is_refused() {
        let mut inbox = Inbox::default();
        inbox.extend(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntoo long\r\n");
        inbox.answer_head().unwrap();
        assert!(inbox.drain(|_| ()).is_err());
    }
}
