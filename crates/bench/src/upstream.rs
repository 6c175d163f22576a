//! The stub upstream: an OpenAI-compatible model server that costs next to nothing.
//!
//! Every target is measured against it, so what it costs is the same for all. It answers chat completions
//! (a ready-made 1.5 KB body, or a stream of numbered chunks at an interval), `/health` and `/v1/models`. It
//! is a measuring device, not a simulator: it has no latency model and never fails.

pub(crate) mod answers;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::codec::{Asked, Inbox, Progress};
use answers::{Answers, Chunk};

/// Bound: connections that may wait to be accepted; ten thousand clients arrive within seconds.
const BACKLOG: u32 = 4096;

/// Bound: the longest stream one request may ask for.
const MAX_CHUNKS: u32 = 100_000;

/// The fields of a request that the stub looks at.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: u32,
    #[serde(default)]
    x_interval_ms: u64,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Serves on 127.0.0.1:`port` until the process ends.
pub(crate) async fn serve(port: u16) -> Result<()> {
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    serve_on(listener).await
}

/// Opens a listener with the stub's backlog.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

/// Serves every connection of `listener`.
pub(crate) async fn serve_on(listener: TcpListener) -> Result<()> {
    let answers = Arc::new(Answers::new());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        // A proxy that goes away in the middle is its own business: its connection ends, and that is all.
        tokio::spawn(async move { converse(socket, &answers).await.ok() });
    }
}

async fn converse(mut socket: TcpStream, answers: &Answers) -> Result<()> {
    let mut inbox = Inbox::default();
    let mut body = Vec::new();
    loop {
        let asked = loop {
            if let Some(asked) = inbox.request_head()? {
                break asked;
            }
            if socket.read_buf(inbox.room()).await? == 0 {
                return Ok(());
            }
        };
        body.clear();
        while inbox.drain(|piece| body.extend_from_slice(piece))? == Progress::More {
            if socket.read_buf(inbox.room()).await? == 0 {
                return Ok(());
            }
        }
        match asked {
            Asked::Chat => chat(&mut socket, answers, &body).await?,
            Asked::Health => socket.write_all(&answers.health).await?,
            Asked::Models => socket.write_all(&answers.models).await?,
            Asked::Unknown => socket.write_all(&answers.unknown).await?,
        }
    }
}

async fn chat(socket: &mut TcpStream, answers: &Answers, body: &[u8]) -> Result<()> {
    let Ok(wanted) = serde_json::from_slice::<Wanted>(body) else {
        return Ok(socket.write_all(&answers.bad).await?);
    };
    if wanted.stream {
        stream(socket, answers, &wanted).await
    } else {
        Ok(socket.write_all(&answers.completion).await?)
    }
}

async fn stream(socket: &mut TcpStream, answers: &Answers, wanted: &Wanted) -> Result<()> {
    let mut chunk = Chunk::new();
    let period = Duration::from_millis(wanted.x_interval_ms);
    let mut ticks = (!period.is_zero()).then(|| {
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    for number in 0..wanted.max_tokens.min(MAX_CHUNKS) {
        if number == 0 {
            // Head and first chunk leave together, as a server's do that waits for its first token.
            let first = [&answers.stream_head, chunk.numbered(number)].concat();
            socket.write_all(&first).await?;
            continue;
        }
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        socket.write_all(chunk.numbered(number)).await?;
    }
    let usage = wanted.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let end = if usage { &answers.stream_end_with_usage } else { &answers.stream_end };
    Ok(socket.write_all(end).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Connection;
    use crate::client::transcript::Transcript;
    use crate::request::{self, StreamShape};
    use crate::target::Target;

    async fn start() -> Target {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let target = Target::direct(listener.local_addr().unwrap());
        tokio::spawn(serve_on(listener));
        target
    }

    #[tokio::test]
    async fn an_answer_is_about_one_and_a_half_kilobytes_and_the_connection_lives_on() {
        let target = start().await;
        let mut connection = Connection::open(target.address, None).await.unwrap();
        for _ in 0..3 {
            let answer = connection.call(&request::call(&target)).await.unwrap();
            assert_eq!(answer.head.status, 200);
            assert!((1_400..1_700).contains(&answer.body_bytes), "{}", answer.body_bytes);
        }
    }

    #[tokio::test]
    async fn a_stream_arrives_whole_and_can_be_followed_by_another() {
        let target = start().await;
        let shape = StreamShape { chunks: 20, interval_ms: 1 };
        let mut connection = Connection::open(target.address, None).await.unwrap();
        for _ in 0..2 {
            let mut transcript = Transcript::default();
            connection.stream(&request::stream(&target, shape), &mut transcript, |_| ()).await.unwrap();
            assert_eq!(transcript.fault(shape.chunks), None);
        }
    }

    #[tokio::test]
    async fn the_usage_chunk_comes_only_when_asked_for() {
        let answers = Answers::new();
        let usage = b"\"usage\"";
        assert!(memchr::memmem::find(&answers.stream_end_with_usage, usage).is_some());
        assert!(memchr::memmem::find(&answers.stream_end, usage).is_none());
    }
}
