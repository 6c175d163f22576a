//! What counts once among all processes: one key each in Redis, set by whoever comes first.
//!
//! Calls ask from any thread over one connection, which a task on the runtime it was started on keeps and renews. A call
//! waits for an answer, or for a connection that is being made, and for nothing else: while the server is away it is told
//! so at once. A question is never asked twice, or the second answer would be that somebody else was first.

use std::sync::Arc;
use std::time::Duration;

use kernel::share::Once;
use kernel::store::{Fault, Stored};
use redis::Client;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use super::{ANSWER_WITHIN, CONNECT_WITHIN, Failed, RedisSettings, client, connect, within};

/// Before every key.
const PREFIX: &str = "sluice:once:";
/// Between two tries to reach what could not be reached.
const RETRY: Duration = Duration::from_millis(500);

/// A Redis server that knows what has happened.
pub struct Spent {
    client: Client,
    line: watch::Sender<Line>,
    broken: Notify,
}

/// How it stands with the connection.
enum Line {
    /// It is being made.
    Opening,
    /// The server was there when last asked. Which connection this is, counted from the first.
    Up(u64, MultiplexedConnection),
    /// It was not.
    Away,
}

// === impl Spent ===

impl Spent {
    /// Prepares for a server; [`keep`](Self::keep) connects.
    ///
    /// # Errors
    /// When the URL is none. The message does not hold it.
    pub fn new(settings: &RedisSettings) -> Result<Arc<Self>, Fault> {
        let line = watch::Sender::new(Line::Opening);
        Ok(Arc::new(Self { client: client(settings)?, line, broken: Notify::new() }))
    }

    /// Keeps the connection. Never returns.
    pub async fn keep<T>(&self) -> T {
        let mut away = false;
        for nth in 0.. {
            match self.open().await {
                Ok(connection) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("nonces are shared again");
                    }
                    self.line.send_replace(Line::Up(nth, connection));
                    self.broken.notified().await;
                    self.line.send_replace(Line::Opening);
                }
                Err(fault) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%fault, "nonces cannot be shared: each process knows its own");
                    }
                    self.line.send_replace(Line::Away);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        std::future::pending().await
    }

    /// Connects, and sees whether anybody answers.
    async fn open(&self) -> Result<MultiplexedConnection, Fault> {
        let mut connection = connect(&self.client).await?;
        within(CONNECT_WITHIN, redis::cmd("PING").query_async::<()>(&mut connection)).await.map_err(Failed::fault)?;
        Ok(connection)
    }

    /// The connection, once it is there.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Fault> {
        let mut line = self.line.subscribe();
        let known = line.wait_for(|line| !matches!(line, Line::Opening)).await;
        match known.as_deref() {
            Ok(Line::Up(nth, connection)) => Ok((*nth, connection.clone())),
            _ => Err(Fault::Down("Redis is away".to_owned())),
        }
    }

    async fn ask(&self, name: &str, keep: Duration) -> Result<bool, Fault> {
        let (nth, mut connection) = within_answer(self.connection()).await?;
        let mut set = redis::cmd("SET");
        let millis = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).max(1);
        set.arg(format!("{PREFIX}{name}")).arg(1).arg("NX").arg("PX").arg(millis);
        match within(ANSWER_WITHIN, set.query_async::<Option<()>>(&mut connection)).await {
            Ok(set) => Ok(set.is_some()),
            Err(failed) => {
                if matches!(failed, Failed::Down(_)) && matches!(*self.line.borrow(), Line::Up(now, _) if now == nth) {
                    self.broken.notify_one();
                }
                Err(failed.fault())
            }
        }
    }
}

impl Once for Spent {
    fn first<'a>(&'a self, name: &'a str, keep: Duration) -> Stored<'a, bool> {
        Box::pin(self.ask(name, keep))
    }
}

async fn within_answer<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Err(Fault::Down("Redis is not connected yet".to_owned()));
    tokio::time::timeout(ANSWER_WITHIN, work).await.unwrap_or_else(late)
}
