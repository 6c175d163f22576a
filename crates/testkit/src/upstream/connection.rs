//! One connection of an upstream: reads requests, performs scripts, notices the peer's leaving.
//!
//! While a script runs the read side is watched all the time, so that the moment the peer goes is
//! known to the millisecond and not at the next write.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::record::{Entry, Gone, Outcome, Record, Request};
use super::script::Step;

/// Above any body a test sends (the gateway's own limit is 32 MiB).
const MAX_REQUEST: usize = 64 << 20;
const MAX_HEADERS: usize = 128;

/// How a script ended.
enum Ending {
    KeepAlive,
    Close,
    Reset,
    CloseOnNext,
    ResetOnNext,
}

/// Why no further request came.
struct NoRequest(Gone);

/// A request's head, before it has a body.
struct Head {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    length: usize,
    framing: Framing,
}

enum Framing {
    Length(usize),
    Chunked,
}

pub(super) async fn converse(mut stream: TcpStream, record: &Record) {
    let Ok(peer) = stream.peer_addr() else { return };
    // An error here only costs exactness of the pieces; the next read tells what is wrong.
    let _ = stream.set_nodelay(true);
    let connection = record.opened(peer);
    let mut buffer = BytesMut::new();
    let mut on_next = None;
    loop {
        let request = match read_request(&mut stream, &mut buffer, connection).await {
            Ok(request) => request,
            Err(NoRequest(gone)) => return record.closed(connection, gone, buffer.len()),
        };
        let (entry, script) = record.arrived(request);
        if let Some(ending) = on_next.take() {
            record.outcome(entry, Outcome::Finished(Instant::now()));
            return end(stream, &ending).await;
        }
        let (mut reader, mut writer) = stream.split();
        let performed = tokio::select! {
            gone = until_gone(&mut reader, &mut buffer) => Err(gone),
            performed = perform(&mut writer, script.into_steps(), record, entry) => performed.map_err(|_| Gone::Reset),
        };
        match performed {
            Err(gone) => {
                return record.abandoned(entry, connection, gone, buffer.len());
            }
            Ok(ending) => {
                record.outcome(entry, Outcome::Finished(Instant::now()));
                match ending {
                    Ending::KeepAlive => {}
                    Ending::CloseOnNext => on_next = Some(Ending::Close),
                    Ending::ResetOnNext => on_next = Some(Ending::Reset),
                    Ending::Close | Ending::Reset => return end(stream, &ending).await,
                }
            }
        }
    }
}

async fn perform(writer: &mut WriteHalf<'_>, steps: Vec<Step>, record: &Record, entry: Entry) -> io::Result<Ending> {
    for step in steps {
        match step {
            Step::Send(bytes) => writer.write_all(&bytes).await?,
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Hang => {
                record.outcome(entry, Outcome::Hanging);
                std::future::pending::<()>().await;
            }
            Step::Close => return Ok(Ending::Close),
            Step::Reset => return Ok(Ending::Reset),
            Step::CloseOnNext => return Ok(Ending::CloseOnNext),
            Step::ResetOnNext => return Ok(Ending::ResetOnNext),
        }
    }
    Ok(Ending::KeepAlive)
}

async fn end(mut stream: TcpStream, ending: &Ending) {
    if matches!(ending, Ending::Reset) {
        // A linger of nothing makes the close a reset.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    } else {
        let _ = stream.shutdown().await;
    }
}

/// Reads on (a pipelined request is kept for later) until the peer is gone.
async fn until_gone(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> Gone {
    loop {
        match reader.read_buf(buffer).await {
            Ok(0) => return Gone::Closed,
            Ok(_) if buffer.len() <= MAX_REQUEST => {}
            Ok(_) | Err(_) => return Gone::Reset,
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut BytesMut, connection: usize) -> Result<Request, NoRequest> {
    let head = loop {
        if let Some(head) = parse_head(buffer)? {
            break head;
        }
        read_more(stream, buffer).await?;
    };
    let head_at = Instant::now();
    let expects = head.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("expect"));
    if expects && buffer.len() == head.length {
        let go_on = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        go_on.map_err(|_| NoRequest(Gone::Reset))?;
    }
    let (body, used) = loop {
        if let Some(whole) = parse_body(&buffer[head.length..], &head.framing)? {
            break whole;
        }
        read_more(stream, buffer).await?;
    };
    buffer.advance(head.length + used);
    let Head { method, target, headers, .. } = head;
    let arrived = Instant::now();
    Ok(Request { connection, method, target, headers, body, head_at, arrived, outcome: Outcome::Open })
}

async fn read_more(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), NoRequest> {
    match stream.read_buf(buffer).await {
        Ok(0) => Err(NoRequest(Gone::Closed)),
        Ok(_) if buffer.len() <= MAX_REQUEST => Ok(()),
        Ok(_) | Err(_) => Err(NoRequest(Gone::Reset)),
    }
}

/// `None` while incomplete. What is no HTTP ends the connection as a reset would.
fn parse_head(buffer: &[u8]) -> Result<Option<Head>, NoRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NoRequest(Gone::Reset)),
    };
    let headers: Vec<_> = parsed.headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect();
    let text = |name: &str| {
        let found = headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let framing = match (text("transfer-encoding"), text("content-length")) {
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length.trim().parse().map_err(|_| NoRequest(Gone::Reset))?),
        (None, None) => Framing::Length(0),
    };
    let method = parsed.method.unwrap_or_default().to_owned();
    let target = parsed.path.unwrap_or_default().to_owned();
    Ok(Some(Head { method, target, headers, length, framing }))
}

/// The body and how many bytes it took on the wire; `None` while incomplete.
fn parse_body(bytes: &[u8], framing: &Framing) -> Result<Option<(Bytes, usize)>, NoRequest> {
    match framing {
        Framing::Length(length) => Ok(bytes.get(..*length).map(|body| (Bytes::copy_from_slice(body), *length))),
        Framing::Chunked => parse_chunks(bytes),
    }
}

fn parse_chunks(bytes: &[u8]) -> Result<Option<(Bytes, usize)>, NoRequest> {
    let mut body = BytesMut::new();
    let mut at = 0;
    loop {
        let (line, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(NoRequest(Gone::Reset)),
        };
        let size = usize::try_from(size).map_err(|_| NoRequest(Gone::Reset))?;
        at += line;
        // Invariant: `at + 2` is the end of an empty line, of the last chunk (trailers are not sent
        // by anybody here) or of the data before it.
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body.freeze(), at)));
        }
    }
}
