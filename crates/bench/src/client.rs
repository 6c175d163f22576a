//! The load client: one keep-alive connection that sends ready-made requests and reads answers.
//!
//! It is written by hand over a TCP stream because the client must never be the bottleneck: one write per
//! request, usually one read per answer, no allocation in between. It does not retry; a failure is a figure.

pub(crate) mod transcript;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::codec::{AnswerHead, Inbox, Progress};
use transcript::Transcript;

/// One connection to a target.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    inbox: Inbox,
}

/// What came back for a non-streaming request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) head: AnswerHead,
    pub(crate) body_bytes: usize,
}

// === impl Connection ===

impl Connection {
    /// Connects to `to`. A source address may be named, to have more ephemeral ports than one address gives.
    pub(crate) async fn open(to: SocketAddr, from: Option<Ipv4Addr>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(address) = from {
            socket.bind(SocketAddr::from((address, 0)))?;
        }
        let socket = socket.connect(to).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, inbox: Inbox::default() })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<Answer> {
        let head = self.send(request).await?;
        let mut body_bytes = 0;
        while self.inbox.drain(|piece| body_bytes += piece.len())? == Progress::More {
            if self.read().await? == 0 {
                break;
            }
        }
        Ok(Answer { head, body_bytes })
    }

    /// Sends a request and reads its stream of events into `transcript`, telling `on_piece` after each read.
    /// An error is any end other than the body's proper one.
    pub(crate) async fn stream(
        &mut self,
        request: &[u8],
        transcript: &mut Transcript,
        mut on_piece: impl FnMut(&Transcript),
    ) -> Result<AnswerHead> {
        let head = self.send(request).await?;
        if head.status != 200 {
            bail!("status {}", head.status);
        }
        loop {
            let progress = self.inbox.drain(|piece| transcript.feed(piece))?;
            on_piece(transcript);
            if progress == Progress::End {
                return Ok(head);
            }
            if self.read().await? == 0 {
                return Ok(head);
            }
        }
    }

    async fn send(&mut self, request: &[u8]) -> Result<AnswerHead> {
        self.socket.write_all(request).await?;
        loop {
            if let Some(head) = self.inbox.answer_head()? {
                return Ok(head);
            }
            if self.read().await? == 0 {
                bail!("the connection was closed before an answer");
            }
        }
    }

    /// Reads once. Zero is a close where a body may end by one; any other close is an error.
    async fn read(&mut self) -> Result<usize> {
        let read = self.socket.read_buf(self.inbox.room()).await?;
        if read == 0 && !self.inbox.may_end() {
            bail!("the connection was closed within an answer");
        }
        Ok(read)
    }
}
