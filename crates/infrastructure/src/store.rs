//! The store: tenants, keys, plans, prices and the ledger, in SQLite or PostgreSQL.
//!
//! One schema and one SQL for both; what differs is a screen of words in `engine`. The module keeps rows, and what must be
//! unique; it judges nothing, caches nothing and never retries for long: whoever calls it knows how long it can wait.
//! Everything it does has a hard time-out and ends as one of the port's faults.
//!
//! A server that is down or hangs costs the caller that time-out and nothing else: connections that did not bring their
//! work to its end are closed, the next call opens new ones, and the schema is looked after on the first contact.

mod bulk;
mod columns;
mod connections;
mod engine;
mod failure;
mod ledger;
mod migrate;
mod packed;
mod registry;
mod session;
mod settings;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernel::store::Fault;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::connections::Connections;
use self::engine::Engine;
use self::failure::Failure;
use self::session::{Session, Task};
use self::settings::Place;
pub use self::settings::{OnLoss, StorageSettings, StorageUrl};

/// A store of either kind. Cheap to share: it is used behind an `Arc`.
pub struct Store {
    engine: Engine,
    /// What it is called in messages: its URL without a password.
    place: String,
    write: Arc<Connections>,
    read: Arc<Connections>,
    /// For adding up, which whoever asks may give up: SQLite reads on all the same, and small questions must find a place.
    sum: Arc<Connections>,
    /// For what may read much and that somebody waits for at leisure: it never takes the place of anything else.
    report: Arc<Connections>,
    /// Set once the schema is known to be there.
    migrated: OnceCell<()>,
    times: Times,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// What somebody waits for: a row or a page of them, a change, a batch of postings.
    short: Duration,
    /// What reads or writes much: everything there is, sums over years, an audit, a migration.
    long: Duration,
}

/// Bound: SQLite writes one at a time whatever is done; a second connection would only wait in another place.
const SQLITE_WRITERS: u32 = 1;
/// Bound: questions that read little: each connection is a thread and a cache of some megabytes.
const SQLITE_READERS: u32 = 2;
/// Bound: sums at once, those included that nobody waits for any more.
const SQLITE_SUMS: u32 = 4;
/// Bound: reports at once: each may read and sort millions of rows, and two keep two cores busy. Further ones wait, as long
/// as a report may take.
const REPORTS: u32 = 2;
/// Bound: for a server to answer when the store is opened. One that does not counts as down, and the process starts by
/// what it knows; the schema is then looked after on the first contact.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// How long to stand back when others were in the way; twice as long each time.
const STAND_BACK: Duration = Duration::from_millis(5);
/// Bound: then the caller is told that the store is down, and tries later.
const TRIES: u32 = 8;

// === impl Store ===

impl Store {
    /// Opens the store; `data_dir` is where a relative path of SQLite begins.
    ///
    /// A PostgreSQL that cannot be reached, or does not answer within a second, is no error: the store is there and says
    /// `Down` until it can.
    ///
    /// # Errors
    /// `Broken` where the settings or the schema make no sense, `Down` where SQLite's file cannot be opened.
    pub async fn open(settings: &StorageSettings, data_dir: &Path) -> Result<Arc<Self>, Fault> {
        sqlx::any::install_default_drivers();
        let place = settings.url.place(data_dir).map_err(Fault::Broken)?;
        let times = Times { short: settings.timeout_ms.duration(), long: settings.report_timeout_ms.duration() };
        let connect = |engine: Engine, url: &str, most: u32, read_only: bool| {
            let greeting = engine.greeting(times, read_only);
            Connections::new(engine, url, greeting, most as usize).map(Arc::new).map_err(Fault::from)
        };
        let (engine, write, [read, sum], report) = match &place {
            Place::Sqlite(file) => {
                settings::prepare(file)?;
                let url = settings::file_url(file);
                let write = connect(Engine::Sqlite, &url, SQLITE_WRITERS, false)?;
                let read = connect(Engine::Sqlite, &url, SQLITE_READERS, true)?;
                let sum = connect(Engine::Sqlite, &url, SQLITE_SUMS, true)?;
                (Engine::Sqlite, write, [read, sum], connect(Engine::Sqlite, &url, REPORTS, true)?)
            }
            Place::Postgres(url) => {
                // Together no more than the config says.
                let reports = REPORTS.min(settings.connections / 2);
                let both = connect(Engine::Postgres, url, settings.connections - reports, false)?;
                let each = [&both, &both].map(Arc::clone);
                (Engine::Postgres, both, each, connect(Engine::Postgres, url, reports, false)?)
            }
        };
        let place = settings.url.to_string();
        let store = Self { engine, place, write, read, sum, report, migrated: OnceCell::new(), times };
        let ready = match engine {
            Engine::Sqlite => store.ready().await,
            Engine::Postgres => match timeout(OPEN_WITHIN, store.ready()).await {
                Ok(Err(Fault::Down(_))) | Err(_) => Ok(()),
                Ok(ready) => ready,
            },
        };
        ready.map(|()| Arc::new(store))
    }

    /// Closes its connections; whatever is asked of it from now on fails.
    pub async fn close(&self) {
        self.write.close(self.short("close")).await;
        self.read.close(self.short("close")).await;
        self.sum.close(self.short("close")).await;
        self.report.close(self.short("close")).await;
    }

    /// Whether it can be reached now, and the schema is there.
    ///
    /// # Errors
    /// As any operation.
    pub async fn ready(&self) -> Result<(), Fault> {
        self.migrated().await.map_err(|failure| self.fault(failure))
    }

    async fn migrated(&self) -> Result<(), Failure> {
        let migrate = || async {
            // A server that is down must not hold anybody up for as long as a migration may take.
            // Two that begin a new file of SQLite at once get in each other's way here already.
            let connect = || async { Session::begin(&self.write, self.short("connect"), None).await };
            again(self.times, connect).await?.done();
            let (connections, times) = (Arc::clone(&self.write), self.times);
            let migrate =
                async move { again(times, || migrate::migrate(&connections, Task::new("migrate", times.long))).await };
            // A task of its own: whoever waits for it may have to give up before a long one is through.
            tokio::spawn(migrate).await.map_err(|_| Failure::broken("the migration was given up"))?
        };
        self.migrated.get_or_try_init(migrate).await.map(drop)
    }

    fn short(&self, name: &'static str) -> Task {
        Task::new(name, self.times.short)
    }

    fn long(&self, name: &'static str) -> Task {
        Task::new(name, self.times.long)
    }

    /// A connection that reads; no transaction.
    async fn reading(&self, task: Task) -> Result<Session<'_>, Failure> {
        task.bound(self.migrated()).await?;
        Session::begin(&self.read, task, None).await
    }

    /// A transaction that sees all as it is at one moment.
    async fn viewing(&self, task: Task) -> Result<Session<'_>, Failure> {
        task.bound(self.migrated()).await?;
        Session::begin(&self.read, task, Some(self.engine.begin_reading())).await
    }

    /// A transaction to add up in, which sees all as it is at one moment.
    async fn summing(&self, task: Task) -> Result<Session<'_>, Failure> {
        task.bound(self.migrated()).await?;
        Session::begin(&self.sum, task, Some(self.engine.begin_reading())).await
    }

    /// A connection for a report, when there is a place.
    async fn reporting(&self, task: Task) -> Result<Session<'_>, Failure> {
        task.bound(self.migrated()).await?;
        Session::begin(&self.report, task, None).await
    }

    /// A report that sees all as it is at one moment.
    async fn surveying(&self, task: Task) -> Result<Session<'_>, Failure> {
        task.bound(self.migrated()).await?;
        Session::begin(&self.report, task, Some(self.engine.begin_reading())).await
    }

    /// A transaction that writes.
    async fn writing(&self, task: Task) -> Result<Session<'_>, Failure> {
        task.bound(self.migrated()).await?;
        Session::begin(&self.write, task, Some(self.engine.begin())).await
    }

    /// Does something that others can get in the way of, some times over if they do; what it ends as, as the port says it.
    async fn persist<T, F>(&self, work: impl Fn() -> F + Send + Sync) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        again(self.times, work).await.map_err(|failure| self.fault(failure))
    }

    /// As the port says it, and where it was.
    fn fault(&self, failure: Failure) -> Fault {
        match Fault::from(failure) {
            Fault::Down(why) => Fault::Down(format!("{}: {why}", self.place)),
            Fault::Broken(why) => Fault::Broken(format!("{}: {why}", self.place)),
            other => other,
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Does something again while others are in the way. What began in time may end; what is begun again must end within the
/// time somebody waits.
async fn again<T, F>(times: Times, work: impl Fn() -> F + Send + Sync) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>> + Send,
{
    let until = Instant::now() + times.short;
    let mut outcome = work().await;
    for tries in 0..TRIES {
        let Err(Failure::Contended(_)) = &outcome else { break };
        sleep(STAND_BACK * 2_u32.pow(tries)).await;
        match timeout_at(until, work()).await {
            Ok(next) => outcome = next,
            Err(_) => break,
        }
    }
    outcome
}
