//! What an upstream does with one request, byte by byte.
//!
//! A script is a list of steps; the words of HTTP and SSE below only add steps, so every fault is a
//! script that stops, waits or lies at some place. Scripts know no sockets; `connection` performs them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Request;

/// One thing done on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes these bytes in one call (TCP_NODELAY is on; only a pause after it keeps them apart for sure).
    Send(Bytes),
    /// Does nothing for so long.
    Pause(Duration),
    /// Does nothing until the peer closes.
    Hang,
    /// Ends the connection in order (FIN).
    Close,
    /// Ends the connection with a reset (RST).
    Reset,
    /// The answer is over; when the next request has arrived on this connection, ends it in order.
    CloseOnNext,
    /// The answer is over; when the next request has arrived on this connection, resets it.
    ResetOnNext,
}

/// What to do with one request. After the last step the connection is kept alive for the next.
#[derive(Debug, Clone, Default)]
pub struct Script {
    steps: Vec<Step>,
    chunked: bool,
}

/// A script, or a function that makes one from the request.
#[derive(Clone)]
pub enum Plan {
    /// The same for every request.
    Fixed(Script),
    /// Made on arrival.
    Made(Arc<dyn Fn(&Request) -> Script + Send + Sync>),
}

// === impl Script: steps ===

impl Script {
    /// Does nothing: the request gets no answer and the connection waits for the next.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Writes exactly these bytes, unframed.
    #[must_use]
    pub fn send(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Send(bytes.into()))
    }

    /// Waits.
    #[must_use]
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// Hangs until the peer closes.
    #[must_use]
    pub fn hang(self) -> Self {
        self.step(Step::Hang)
    }

    /// Closes the connection (FIN) without having announced it.
    #[must_use]
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// Resets the connection (RST).
    #[must_use]
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Keeps the connection until the next request arrives on it, then closes it unanswered.
    #[must_use]
    pub fn close_on_next(self) -> Self {
        self.step(Step::CloseOnNext)
    }

    /// Keeps the connection until the next request arrives on it, then resets it.
    #[must_use]
    pub fn reset_on_next(self) -> Self {
        self.step(Step::ResetOnNext)
    }

    /// Does all of `next` afterwards.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self.chunked = next.chunked;
        self
    }

    /// The same bytes cut at exactly these offsets (counted over all bytes sent), with a pause
    /// between the pieces. The script's own pauses go; the step that ends it stays.
    #[must_use]
    pub fn cut_at(self, offsets: &[usize], gap: Duration) -> Self {
        let bytes = self.bytes();
        let mut cuts: Vec<usize> = offsets.iter().copied().filter(|at| *at > 0 && *at < bytes.len()).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts.push(bytes.len());
        let mut pieces = Self { steps: Vec::new(), chunked: self.chunked };
        let mut from = 0;
        for to in cuts {
            pieces = pieces.send(bytes.slice(from..to));
            if to < bytes.len() {
                pieces = pieces.pause(gap);
            }
            from = to;
        }
        pieces.steps.extend(self.steps.into_iter().filter(|step| !matches!(step, Step::Send(_) | Step::Pause(_))));
        pieces
    }

    /// The same bytes as a slow trickle of `size` bytes at a time.
    #[must_use]
    pub fn in_pieces(self, size: usize, gap: Duration) -> Self {
        let length = self.bytes().len();
        let offsets: Vec<usize> = (size..length).step_by(size.max(1)).collect();
        self.cut_at(&offsets, gap)
    }

    /// All bytes the script sends.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let sent = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_ref()),
            _ => None,
        });
        sent.collect::<Vec<_>>().concat().into()
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

// === impl Script: the words of HTTP and SSE ===

impl Script {
    /// A head and its empty line. `transfer-encoding: chunked` among the headers makes
    /// [`data`](Self::data) write chunks.
    #[must_use]
    pub fn head(self, status: u16, headers: &[(&str, &str)]) -> Self {
        self.head_of("HTTP/1.1", status, headers)
    }

    fn head_of(mut self, version: &str, status: u16, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("{version} {status} {}\r\n", reason(status));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
        self.send(head)
    }

    /// Body bytes: one chunk when the head said chunked, else as they are.
    #[must_use]
    pub fn data(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        if !self.chunked {
            return self.send(bytes.to_vec());
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk)
    }

    /// One SSE event with this data.
    #[must_use]
    pub fn event(self, data: impl AsRef<str>) -> Self {
        self.data(format!("data: {}\n\n", data.as_ref()))
    }

    /// One SSE event per item.
    #[must_use]
    pub fn events<D: AsRef<str>>(self, all: impl IntoIterator<Item = D>) -> Self {
        all.into_iter().fold(self, |script, data| script.event(data))
    }

    /// The end of the body: the last chunk, or a close where the head gave no length.
    #[must_use]
    pub fn finish(self) -> Self {
        if self.chunked { self.send("0\r\n\r\n") } else { self.close() }
    }

    /// `data: [DONE]` and the end of the body.
    #[must_use]
    pub fn done(self) -> Self {
        self.event("[DONE]").finish()
    }
}

// === impl Script: whole answers, whole faults ===

impl Script {
    /// An answer with these headers and a right `content-length`.
    #[must_use]
    pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len().to_string();
        let headers = [headers, &[("content-length", length.as_str())]].concat();
        // One write, as servers do: a head sent alone would meet the peer's delayed acknowledgement.
        let mut bytes = Self::new().head(status, &headers).bytes().to_vec();
        bytes.extend_from_slice(body.as_ref());
        Self::new().send(bytes)
    }

    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::answer(status, &[("content-type", "application/json")], body)
    }

    /// The page a reverse proxy before a dead model server shows.
    #[must_use]
    pub fn html_502() -> Self {
        let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n";
        Self::answer(502, &[("content-type", "text/html")], page)
    }

    /// 429 with `retry-after` in seconds and an OpenAI error body.
    #[must_use]
    pub fn too_many(retry_after: u32) -> Self {
        let body = crate::openai_error("slow down", "requests", "rate_limit_exceeded");
        let seconds = retry_after.to_string();
        Self::answer(429, &[("content-type", "application/json"), ("retry-after", &seconds)], body)
    }

    /// A chunked event stream's head; events follow.
    #[must_use]
    pub fn sse_head() -> Self {
        Self::new().head(200, &[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
    }

    /// An event stream's head without length or chunks: its end is the connection's.
    #[must_use]
    pub fn sse_head_until_close() -> Self {
        Self::new().head(200, &[("content-type", "text/event-stream"), ("connection", "close")])
    }

    /// A whole event stream: these events, `[DONE]`, the end.
    #[must_use]
    pub fn sse<D: AsRef<str>>(events: impl IntoIterator<Item = D>) -> Self {
        Self::sse_head().events(events).done()
    }

    /// An HTTP/1.0 answer without length, ended by the close.
    #[must_use]
    pub fn http10(content_type: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new().head_of("HTTP/1.0", 200, &[("content-type", content_type)]).data(body).close()
    }

    /// An interim (1xx) head; the answer must follow with [`then`](Self::then).
    #[must_use]
    pub fn interim(status: u16) -> Self {
        Self::new().head(status, &[("link", "</x>; rel=preload")])
    }

    /// A JSON answer whose `content-length` is `missing` more than the bytes sent before the close.
    #[must_use]
    pub fn too_short(body: impl AsRef<[u8]>, missing: usize) -> Self {
        Self::claiming(body.as_ref(), body.as_ref().len() + missing).close()
    }

    /// A JSON answer whose `content-length` leaves out the last `extra` bytes sent.
    #[must_use]
    pub fn too_long(body: impl AsRef<[u8]>, extra: usize) -> Self {
        Self::claiming(body.as_ref(), body.as_ref().len() - extra)
    }

    fn claiming(body: &[u8], length: usize) -> Self {
        let length = length.to_string();
        Self::new().head(200, &[("content-type", "application/json"), ("content-length", &length)]).data(body)
    }
}

// === impl Plan ===

impl Plan {
    /// A script made from the request.
    pub fn made(make: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        Self::Made(Arc::new(make))
    }

    pub(super) fn script(&self, request: &Request) -> Script {
        match self {
            Self::Fixed(script) => script.clone(),
            Self::Made(make) => make(request),
        }
    }
}

impl From<Script> for Plan {
    fn from(script: Script) -> Self {
        Self::Fixed(script)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_changes_no_byte_and_keeps_the_end() {
        let whole = Script::sse_head().event("a").event("b").reset();
        let bytes = whole.bytes();
        let cut = whole.cut_at(&[0, 3, 3, 90, 9999], Duration::from_millis(1));
        assert_eq!(cut.bytes(), bytes);
        assert_eq!(cut.steps.iter().filter(|step| matches!(step, Step::Send(_))).count(), 3);
        assert_eq!(cut.steps.last(), Some(&Step::Reset));
    }

    #[test]
    fn an_event_is_one_chunk() {
        let bytes = Script::sse_head().event("hi").finish().bytes();
        assert!(bytes.ends_with(b"\r\n\r\na\r\ndata: hi\n\n\r\n0\r\n\r\n"));
    }
}
