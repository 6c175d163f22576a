//! A client that sends exactly the bytes it is told to, and keeps exactly the bytes it gets.

mod body;
mod sse;

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout_at};

use body::Framing;
pub use sse::{Event, sse_events};

/// How long the one-line calls wait: longer than any time-out the tests configure.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const MAX_HEADERS: usize = 128;

/// One connection.
pub struct Wire {
    writer: OwnedWriteHalf,
    reader: Reader,
}

struct Reader {
    stream: OwnedReadHalf,
    /// Received, not yet taken.
    buffer: BytesMut,
    /// All that was received since the last answer began.
    raw: Vec<u8>,
    framing: Framing,
    /// Body bytes of the event that is not complete, and how far they were searched for its end.
    event: Vec<u8>,
    searched: usize,
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct Head {
    /// The version's minor number: 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The status code.
    pub status: u16,
    /// Names as sent, in order, repeated ones repeated; values read as Latin-1 where no UTF-8.
    pub headers: Vec<(String, String)>,
    /// The status codes of the interim heads before it.
    pub interim: Vec<u16>,
}

/// A response as far as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
    /// Head and body as they were on the wire.
    pub raw: Vec<u8>,
    /// How it ended.
    pub ended: Ended,
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Where its framing said (or at the close, when the head gave no length).
    Complete,
    /// The peer closed (FIN) before that.
    Closed,
    /// The peer reset the connection before that.
    Reset,
    /// Time ran out.
    TimedOut,
    /// What came is no HTTP.
    Malformed,
}

// === impl Wire: sending ===

impl Wire {
    /// Connects to `host:port` or to the host of a URL.
    ///
    /// # Errors
    /// When refused.
    pub async fn connect(to: &str) -> io::Result<Self> {
        let (authority, _) = split_url(to);
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { writer, reader: Reader::new(reader) })
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.writer.write_all(bytes.as_ref()).await
    }

    /// Sends the pieces one by one with a gap between them.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn send_pieces<P: AsRef<[u8]>>(&mut self, pieces: &[P], gap: Duration) -> io::Result<()> {
        for piece in pieces {
            self.send(piece).await?;
            sleep(gap).await;
        }
        Ok(())
    }

    /// Ends the sending side (FIN) and goes on reading.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn finish_sending(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }

    /// Sends while reading, so that an answer given before the request was read to its end is seen.
    /// A failed send is no error: the answer tells.
    ///
    /// # Errors
    /// When no head came.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>, within: Duration) -> Result<Answer, Ended> {
        let Self { writer, reader } = self;
        let sending = async {
            let _ = writer.write_all(bytes.as_ref()).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = sending => unreachable!("sending never returns"),
            answer = reader.answer(within) => answer,
        }
    }

    /// Closes in order (FIN). Dropping does the same.
    pub fn close(self) {}

    /// Closes with a reset (RST).
    pub fn reset(self) {
        let linger = socket2::SockRef::from(self.writer.as_ref()).set_linger(Some(Duration::ZERO));
        linger.expect("an open socket");
        // Without this the writer's drop would send a FIN first.
        self.writer.forget();
    }
}

// === impl Wire: reading ===

impl Wire {
    /// Reads all that comes until the close or for so long.
    pub async fn read_to_end(&mut self, within: Duration) -> (Vec<u8>, Ended) {
        let deadline = Instant::now() + within;
        let ended = loop {
            if let Err(ended) = self.reader.fill(deadline).await {
                break ended;
            }
        };
        (self.reader.buffer.split().to_vec(), ended)
    }

    /// Reads one response to its end.
    ///
    /// # Errors
    /// When no head came; a body that broke off is told by [`Answer::ended`].
    pub async fn answer(&mut self, within: Duration) -> Result<Answer, Ended> {
        self.reader.answer(within).await
    }

    /// Reads a response's head and no further.
    ///
    /// # Errors
    /// How the reading ended instead.
    pub async fn head(&mut self, within: Duration) -> Result<Head, Ended> {
        self.reader.head(Instant::now() + within).await
    }

    /// After [`head`](Self::head): the next event of the body.
    ///
    /// # Errors
    /// How the reading ended instead: `Complete` after the last event.
    pub async fn event(&mut self, within: Duration) -> Result<Event, Ended> {
        self.reader.event(Instant::now() + within).await
    }
}

// === impl Reader ===

impl Reader {
    fn new(stream: OwnedReadHalf) -> Self {
        let (buffer, raw, event) = (BytesMut::new(), Vec::new(), Vec::new());
        Self { stream, buffer, raw, framing: Framing::Done, event, searched: 0 }
    }

    async fn fill(&mut self, deadline: Instant) -> Result<(), Ended> {
        let before = self.buffer.len();
        match timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await {
            Err(_) => Err(Ended::TimedOut),
            Ok(Ok(0)) => Err(Ended::Closed),
            Ok(Ok(_)) => {
                self.raw.extend_from_slice(&self.buffer[before..]);
                Ok(())
            }
            Ok(Err(_)) => Err(Ended::Reset),
        }
    }

    async fn head(&mut self, deadline: Instant) -> Result<Head, Ended> {
        // What was read ahead belongs to this answer.
        self.raw = self.buffer.to_vec();
        self.event.clear();
        self.searched = 0;
        let mut interim = Vec::new();
        loop {
            match parse_head(&self.buffer)? {
                None => self.fill(deadline).await?,
                Some((head, used)) => {
                    drop(self.buffer.split_to(used));
                    if head.status < 200 {
                        interim.push(head.status);
                        continue;
                    }
                    self.framing = Framing::of(&head);
                    return Ok(Head { interim, ..head });
                }
            }
        }
    }

    /// The next piece of the body; `None` at its right end.
    async fn piece(&mut self, deadline: Instant) -> Result<Option<Bytes>, Ended> {
        loop {
            match self.framing.take(&mut self.buffer) {
                Err(body::Malformed) => return Err(Ended::Malformed),
                Ok(Some(piece)) => return Ok(Some(piece)),
                Ok(None) if self.framing == Framing::Done => return Ok(None),
                Ok(None) => match self.fill(deadline).await {
                    Err(Ended::Closed) if self.framing == Framing::UntilClose => return Ok(None),
                    filled => filled?,
                },
            }
        }
    }

    async fn answer(&mut self, within: Duration) -> Result<Answer, Ended> {
        let deadline = Instant::now() + within;
        let head = self.head(deadline).await?;
        let mut body = Vec::new();
        let ended = loop {
            match self.piece(deadline).await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break Ended::Complete,
                Err(ended) => break ended,
            }
        };
        Ok(Answer { head, body, raw: std::mem::take(&mut self.raw), ended })
    }

    async fn event(&mut self, deadline: Instant) -> Result<Event, Ended> {
        loop {
            while let Some(used) = sse::event_end(&self.event, self.searched) {
                let lines: Vec<u8> = self.event.drain(..used).collect();
                self.searched = 0;
                if let Some(event) = sse::parse(&lines) {
                    return Ok(event);
                }
            }
            self.searched = self.event.len();
            match self.piece(deadline).await? {
                Some(piece) => self.event.extend_from_slice(&piece),
                None => return Err(Ended::Complete),
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Ended> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let used = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Ended::Malformed),
    };
    let text = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().map(|byte| char::from(*byte)).collect(),
    };
    let head = Head {
        minor_version: parsed.version.unwrap_or_default(),
        status: parsed.code.unwrap_or_default(),
        headers: parsed.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        interim: Vec::new(),
    };
    Ok(Some((head, used)))
}

// === impl Head, Answer ===

impl Head {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Answer {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text, with a mark for what is no UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|fault| panic!("{fault} in {} {:?}", self.status(), self.text()))
    }

    /// The whole events in the body.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        sse_events(&self.body)
    }

    /// Whether it came whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended == Ended::Complete
    }
}

// === one call, one connection ===

/// Posts a body (as JSON unless a header says otherwise) and reads the answer.
///
/// # Panics
/// When there is no answer within 20 seconds.
pub async fn post(url: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    let answer = request("POST", url, headers, body).await;
    answer.unwrap_or_else(|ended| panic!("POST {url}: no answer: {ended:?}"))
}

/// Gets a page.
///
/// # Panics
/// When there is no answer within 20 seconds.
pub async fn get(url: &str) -> Answer {
    let answer = request("GET", url, &[], "").await;
    answer.unwrap_or_else(|ended| panic!("GET {url}: no answer: {ended:?}"))
}

/// Sends one request on a connection of its own and reads the answer.
///
/// # Errors
/// When no head came: a refused connection counts as `Closed`.
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Result<Answer, Ended> {
    let (_, path) = split_url(url);
    let mut wire = Wire::connect(url).await.map_err(|_| Ended::Closed)?;
    let headers = [headers, &[("connection", "close")]].concat();
    wire.exchange(request_bytes(method, path, &headers, body), ANSWER_WITHIN).await
}

/// A well-formed request: host, a JSON content type and a content length are added where missing.
#[must_use]
pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let has = |name: &str| headers.iter().any(|(found, _)| found.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let mut add = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    };
    if !has("host") {
        add("host", "localhost");
    }
    if !body.is_empty() && !has("content-type") {
        add("content-type", "application/json");
    }
    if method != "GET" && !has("content-length") && !has("transfer-encoding") {
        add("content-length", &body.len().to_string());
    }
    for (name, value) in headers {
        add(name, value);
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Host and port, and the path.
fn split_url(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}
