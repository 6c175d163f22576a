//! What processes share through Redis: counters here, and what counts once in [`Spent`].
//!
//! One key per counter, its tenant as the hash tag, changed by one script in one step on Redis's own clock. Everything is
//! under a time-out: a server that hangs is given up like one that is gone. Whoever calls decides when to try again.

mod settings;
mod spent;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kernel::share::{GONE_AFTER, Grant, HELD_FOR, Order, Share, Wish};
use kernel::store::{Fault, Stored};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisError, Script};
use tokio::sync::Mutex;

pub use self::settings::RedisSettings;
pub use self::spent::Spent;

/// For an exchange. Bound: fifty times what a server nearby takes, and shorter than leases last, so that one late answer
/// holds nobody up.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);
/// For a connection, with TLS and a password. Bound: a few round trips to a server nearby, and short enough that leases
/// outlast it where the server hangs.
const CONNECT_WITHIN: Duration = Duration::from_millis(100);
/// Before every key, so that others may use the same server.
const PREFIX: &str = "sluice:limit:";

/// A Redis server with shared counters.
pub struct Redis {
    client: Client,
    /// This process's name there.
    node: String,
    exchange: Script,
    beat: Script,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// Prepares for a server; connects when first asked for something.
    ///
    /// # Errors
    /// When the URL is none. The message does not hold it.
    pub fn new(settings: &RedisSettings) -> Result<Arc<Self>, Fault> {
        Ok(Arc::new(Self {
            client: client(settings)?,
            node: name(),
            exchange: Script::new(include_str!("redis/exchange.lua")),
            beat: Script::new(include_str!("redis/beat.lua")),
            connection: Mutex::default(),
        }))
    }

    /// Runs a script with each of some lists of keys and arguments, in one round trip. A connection on which an answer did
    /// not come in time is given up: what comes later nobody waits for.
    async fn run<T: FromRedisValue>(&self, script: &Script, calls: &[Invocation]) -> Result<Vec<T>, Fault> {
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => connect(&self.client).await?,
        };
        let pipeline = pipeline(script, calls);
        let mut answer = within(ANSWER_WITHIN, pipeline.query_async(&mut connection)).await;
        if let Err(Failed::Unknown) = answer {
            // The server is new, or has started anew.
            within(ANSWER_WITHIN, script.load_async(&mut connection)).await.map_err(Failed::fault)?;
            answer = within(ANSWER_WITHIN, pipeline.query_async(&mut connection)).await;
        }
        if !matches!(answer, Err(Failed::Down(_))) {
            *place = Some(connection);
        }
        answer.map_err(Failed::fault)
    }
}

fn client(settings: &RedisSettings) -> Result<Client, Fault> {
    Client::open(settings.0.expose()).map_err(|_| Fault::Broken("its URL cannot be read".to_owned()))
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, Fault> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(None);
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    within(CONNECT_WITHIN, connect).await.map_err(Failed::fault)
}

/// Keys and arguments of one run of a script.
#[derive(Default)]
struct Invocation {
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Invocation {
    fn by(node: &str) -> Self {
        Self { keys: Vec::new(), arguments: vec![node.to_owned()] }
    }

    fn add(&mut self, order: &Order) {
        let tenant = &order.tenant;
        // The tenant's length says where its name ends, whatever is in it.
        self.keys.push(format!("{PREFIX}{}:{{{tenant}}}:{}", tenant.as_str().len(), order.counter));
        let held_for = || HELD_FOR.as_micros().to_string();
        match order.wish {
            Wish::Rate { units, period, want, owed } => {
                self.say("rate", [units.to_string(), period.to_string(), want.to_string(), owed.to_string()]);
            }
            Wish::Places { limit, want, busy } => {
                self.say("places", [limit.to_string(), want.to_string(), busy.to_string(), held_for()]);
            }
            Wish::Funds { limit, mine, known, want, busy } => {
                let amounts = [limit, mine, known, want, busy].map(|amount| amount.to_string());
                self.say("funds", amounts);
                self.arguments.push(held_for());
            }
        }
    }

    fn say<const N: usize>(&mut self, kind: &str, words: [String; N]) {
        self.arguments.push(kind.to_owned());
        self.arguments.extend(words);
    }
}

impl Share for Redis {
    fn exchange<'a>(&'a self, orders: &'a [Order]) -> Stored<'a, Vec<Grant>> {
        Box::pin(async move {
            if orders.is_empty() {
                return Ok(Vec::new());
            }
            let tenants = orders.chunk_by(|one, next| one.tenant == next.tenant).map(|orders| {
                let mut call = Invocation::by(&self.node);
                orders.iter().for_each(|order| call.add(order));
                call
            });
            let answers: Vec<Vec<u64>> = self.run(&self.exchange, &tenants.collect::<Vec<_>>()).await?;
            let grants: Vec<Grant> = answers.concat().chunks_exact(3).filter_map(grant).collect();
            if grants.len() == orders.len() {
                return Ok(grants);
            }
            Err(Fault::Broken("Redis gave another number of answers than there were orders".to_owned()))
        })
    }

    fn beat(&self) -> Stored<'_, u32> {
        Box::pin(async move {
            let mut call = Invocation::by(&self.node);
            call.keys.push(format!("{PREFIX}nodes"));
            call.arguments.push(GONE_AFTER.as_micros().to_string());
            let answers: Vec<u32> = self.run(&self.beat, &[call]).await?;
            answers.first().copied().ok_or_else(|| Fault::Broken("Redis gave no number of processes".to_owned()))
        })
    }
}

/// A name no other process has: nobody starts with the same number at the same nanosecond on two machines.
fn name() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{since:x}", std::process::id())
}

fn grant(three: &[u64]) -> Option<Grant> {
    let [units, left, next] = *three else { return None };
    Some(Grant { units, left, next: Duration::from_micros(next) })
}

fn pipeline(script: &Script, calls: &[Invocation]) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for call in calls {
        pipeline.cmd("EVALSHA").arg(script.get_hash()).arg(call.keys.len()).arg(&call.keys).arg(&call.arguments);
    }
    pipeline
}

/// Why there is no answer.
enum Failed {
    /// The server does not know the script.
    Unknown,
    /// It does not answer.
    Down(String),
    /// It answers with an error.
    Broken(String),
}

impl Failed {
    fn fault(self) -> Fault {
        match self {
            Self::Unknown => Fault::Broken("Redis does not keep scripts".to_owned()),
            Self::Down(why) => Fault::Down(why),
            Self::Broken(why) => Fault::Broken(why),
        }
    }
}

async fn within<T>(span: Duration, work: impl Future<Output = Result<T, RedisError>>) -> Result<T, Failed> {
    let Ok(answer) = tokio::time::timeout(span, work).await else {
        return Err(Failed::Down(format!("no answer within {} ms", span.as_millis())));
    };
    answer.map_err(|error| match error.code() {
        Some("NOSCRIPT") => Failed::Unknown,
        Some(_) => Failed::Broken(error.to_string()),
        None => Failed::Down(error.to_string()),
    })
}
