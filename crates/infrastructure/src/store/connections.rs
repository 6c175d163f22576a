//! A bounded set of connections.
//!
//! sqlx's own pool waits for a server that refuses connections, and says in the end that it waited; here whoever asks
//! learns at once what is wrong. A connection goes back only after its work was brought to its end: what failed, hung or
//! was given up is closed. One of SQLite's is a thread, which hangs with its disk: its place is free when it has ended, so
//! that no more hang than there are places.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::store::Fault;
use sqlx::AnyConnection;
use sqlx::any::AnyConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, raw_sql};
use tokio::runtime::Handle;
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
    /// There until it is given back.
    held: Option<(AnyConnection, OwnedSemaphorePermit)>,
    engine: Engine,
    /// Whether it was used before: then its other end may be gone.
    pub(super) used: bool,
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
            Some(Idle { connection, .. }) => {
                Ok(Taken { held: Some((connection, place)), engine: self.engine, used: true })
            }
            None => self.connect(task, place).await,
        }
    }

    /// A new one in the place of one that turned out to be dead. Those that idle are then likely dead as well.
    pub(super) async fn replace(&self, task: Task, mut dead: Taken) -> Result<Taken, Failure> {
        let idle = std::mem::take(&mut *self.lock());
        let (connection, place) = dead.held.take().ok_or_else(gone)?;
        drop((idle, connection));
        self.connect(task, place).await
    }

    /// Takes one back that is as it was when it was taken.
    pub(super) fn give_back(&self, mut taken: Taken) {
        if self.places.is_closed() {
            return;
        }
        if let Some((connection, place)) = taken.held.take() {
            self.lock().push(Idle { connection, since: Instant::now() });
            drop(place);
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
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| gone())
    }

    async fn connect(&self, task: Task, place: OwnedSemaphorePermit) -> Result<Taken, Failure> {
        let (engine, options, greeting) = (self.engine, self.options.clone(), Arc::clone(&self.greeting));
        let connect = async move {
            let mut taken = Taken { held: Some((options.connect().await?, place)), engine, used: false };
            raw_sql(AssertSqlSafe(greeting)).execute(taken.connection()?).await?;
            Ok::<_, Failure>(taken)
        };
        match engine {
            Engine::Postgres => task.bound(connect).await,
            // A file that hangs when it is opened keeps its place, too.
            Engine::Sqlite => {
                let connecting = tokio::spawn(connect);
                task.bound(async { connecting.await.map_err(|_| gone())? }).await
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Taken ===

impl Taken {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut AnyConnection, Failure> {
        self.held.as_mut().map(|(connection, _)| connection).ok_or_else(gone)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some((connection, place)) = self.held.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        if self.engine == Engine::Sqlite {
            runtime.spawn(async move {
                // However it ends, it has ended.
                let _ = connection.close().await;
                drop(place);
            });
        }
    }
}

fn gone() -> Failure {
    Failure::Fault(Fault::Down("it was closed".into()))
}
