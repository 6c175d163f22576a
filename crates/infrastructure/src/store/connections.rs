//! A bounded set of connections.
//!
//! sqlx's own pool waits for a server that refuses connections, and says in the end that it waited; here whoever asks
//! learns at once what is wrong. A connection goes back only after its work was brought to its end: what failed, hung or
//! was given up is closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::store::Fault;
use sqlx::AnyConnection;
use sqlx::any::AnyConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, raw_sql};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::engine::Engine;
use super::failure::Failure;
use super::session::Task;

/// Connections to one database, at most so many.
pub(super) struct Connections {
    /// Which database it is.
    pub(super) engine: Engine,
    options: AnyConnectOptions,
    /// What a new one is told.
    greeting: Arc<str>,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AnyConnection,
    since: Instant,
}

/// A connection in use, and its place among them.
pub(super) struct Taken {
    pub(super) connection: AnyConnection,
    /// Whether it was used before: then its other end may be gone.
    pub(super) used: bool,
    place: OwnedSemaphorePermit,
}

/// Bound: a connection nobody used for so long is not used again: what stands between may have forgotten it, and a server
/// has only so many.
const IDLE: Duration = Duration::from_secs(120);

// === impl Connections ===

impl Connections {
    /// None yet. Statements are not logged: slow ones are told by their time-outs, and values are nobody's business.
    pub(super) fn new(engine: Engine, url: &str, greeting: String, most: usize) -> Result<Self, Failure> {
        let options: AnyConnectOptions = url.parse()?;
        Ok(Self {
            engine,
            options: options.disable_statement_logging(),
            greeting: greeting.into(),
            places: Arc::new(Semaphore::new(most)),
            idle: Mutex::default(),
        })
    }

    /// One that is idle, else a new one, when there is a place.
    pub(super) async fn take(&self, task: Task) -> Result<Taken, Failure> {
        let place = task.bound(self.place()).await?;
        let idle = self.lock().pop().filter(|idle| idle.since.elapsed() < IDLE);
        match idle {
            Some(Idle { connection, .. }) => Ok(Taken { connection, used: true, place }),
            None => self.connect(task, place).await,
        }
    }

    /// A new one in the place of one that turned out to be dead. Those that idle are then likely dead as well.
    pub(super) async fn replace(&self, task: Task, dead: Taken) -> Result<Taken, Failure> {
        let idle = std::mem::take(&mut *self.lock());
        drop((idle, dead.connection));
        self.connect(task, dead.place).await
    }

    /// Takes one back that is as it was when it was taken.
    pub(super) fn give_back(&self, taken: Taken) {
        if !self.places.is_closed() {
            self.lock().push(Idle { connection: taken.connection, since: Instant::now() });
        }
    }

    /// Closes those that idle; the others are closed when they are given back.
    pub(super) async fn close(&self, task: Task) {
        self.places.close();
        let idle = std::mem::take(&mut *self.lock());
        for Idle { connection, .. } in idle {
            // One that cannot be closed properly is closed all the same.
            let _ = task.bound(connection.close()).await;
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let closed = |_| Failure::Fault(Fault::Down("it was closed".into()));
        Arc::clone(&self.places).acquire_owned().await.map_err(closed)
    }

    async fn connect(&self, task: Task, place: OwnedSemaphorePermit) -> Result<Taken, Failure> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            raw_sql(AssertSqlSafe(Arc::clone(&self.greeting))).execute(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        Ok(Taken { connection: task.bound(connect).await?, used: false, place })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
