//! `sluice serve`: from the config to the last byte.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use access::listener::Tls;
use access::{Cores, Door, Listener, admin, credential};
use anyhow::Context;
use arc_swap::ArcSwap;
use infrastructure::fetch::Fetcher;
use infrastructure::redis::{Redis, Spent};
use infrastructure::store::{OnLoss, StorageSettings};
use infrastructure::telemetry::{AccessLog, Format, Metrics, OperatorLog, Recorder};
use kernel::Moment;
use kernel::fetch::Fetch;
use kernel::store::{Ledger, Registry};
use scheduling::Pool;
use tenancy::invoice::Books;
use tokio_util::sync::CancellationToken;

use crate::assemble::{State, assemble};
use crate::cli::ServeArgs;
use crate::money::Money;
use crate::reload::Running;
use crate::shutdown::{self, Signals};
use crate::source::{self, Source};
use crate::{banner, enrolment, environment};

/// How often those who wait for a slot are looked after.
const TEND: Duration = Duration::from_millis(100);
/// Bound: for what blocks a thread when everything else has ended.
const LEFT_OVER: Duration = Duration::from_millis(500);

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    // The control plane: everything that is not a client's connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("sluice-control")
        .build()?;
    let ended = runtime.block_on(serve(args));
    // A name that is still looked up, or a file on a disk that hangs, holds the end up for so long at most.
    runtime.shutdown_timeout(LEFT_OVER);
    ended
}

async fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::take()?;
    let Source { loaded, about } = source::find(args).await?;
    let config = &loaded.config;
    // Ends last of all, so that nothing said on the way out is lost.
    let operator = start_log(config.telemetry.log)?;
    environment::raise_file_limit();

    let threads = config.listen.threads.map_or_else(cores_available, usize::from);
    let (store, register) = enrolment::open(config, &args.data_dir).await?;
    let ledger = Arc::clone(&store) as Arc<dyn Ledger>;
    let plans = Arc::clone(&store) as Arc<dyn Registry>;
    let money = Money::open(&config.storage, &args.data_dir, threads, ledger, plans)
        .context("cannot make the daybook in the data directory")?;
    money.price(&register);
    let (credentials, nonces) = credentials(&config.storage)?;
    let state = State::new(credentials, money);
    let admin_token = environment::admin_token(config.admin.token.as_ref(), &args.data_dir);
    let fetch: Arc<dyn Fetch> = Arc::new(Fetcher::new(config.issuers.ca.as_deref()).context("issuers.ca")?);
    let (machine, stages) = assemble(&loaded, 1, &state, &register, admin_token, &fetch);

    let (machine_has_token, open) = (machine.admin_token.is_some(), machine.open());

    let mut metrics = Metrics::new();
    let live: Arc<OnceLock<std::sync::Weak<Running>>> = Arc::default();
    let shown = Arc::clone(&live);
    metrics.watch(move || {
        shown.get().and_then(std::sync::Weak::upgrade).map_or_else(Vec::new, |running| running.gauges())
    });
    metrics.reloaded(&machine.version);
    let metrics = Arc::new(metrics);
    let log = config.telemetry.access_log.then(|| AccessLog::to(std::io::stdout())).transpose()?;
    let recorder = Recorder::new(threads, Arc::clone(&metrics), log, &operator);
    let rounds = recorder.start()?;

    let workers = Arc::new(Pool::start(config.scheduling.workers.map_or(cores_available() / 2, usize::from))?);
    let door = Door::new(machine, Arc::clone(&recorder) as _, Arc::clone(&workers) as _);
    let tls = config.listen.tls.as_ref().map(Tls::load).transpose().context("listen.tls")?;
    let listener = Listener::bind(config.address(), config.limits.connections_max)
        .with_context(|| busy("listen.http", config.address()))?;
    let control = admin::bind(config.listen.admin).await.with_context(|| busy("listen.admin", config.listen.admin))?;
    let cores = Arc::new(Cores::start(threads, &door, tls)?);
    let made =
        (config.admin.token.is_none() && machine_has_token).then(|| args.data_dir.join(environment::ADMIN_TOKEN));
    let banner = banner::text(config, &about, open, (listener.address()?, control.local_addr()?), made.as_deref());

    let running = Arc::new(Running {
        door,
        cores,
        stages: ArcSwap::from_pointee(stages),
        workers,
        state,
        metrics,
        register,
        data_dir: args.data_dir.clone(),
        fetch,
        listen: args.listen(),
    });
    live.get_or_init(|| Arc::downgrade(&running));
    let (accepting, stopping) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = tokio::task::JoinSet::new();
    look_after(&running, &mut tasks);
    tasks.spawn({
        let running = Arc::clone(&running);
        async move {
            running.state.money.follow(&running.register).await;
            Ok(())
        }
    });
    if let Some(redis) = &config.storage.redis {
        let (limits, share) = (Arc::clone(&running.state.limits), Redis::new(redis).context("storage.redis")?);
        let (purse, others, also) = (Arc::clone(&running.state.money.purse), Arc::clone(&limits), Arc::clone(&share));
        tasks.spawn(async move { tenancy::limit::sharing::share(limits, share).await });
        tasks.spawn(async move { tenancy::purse::sharing::share(purse, others, also).await });
    }
    if let Some(nonces) = nonces {
        tasks.spawn(async move { nonces.keep().await });
    }
    let (keeper, stop) = (Arc::clone(&running.state.money.keeper), stopping.clone());
    let mut kept = tokio::spawn(async move { keeper.run(stop.cancelled_owned()).await });
    let (shown, stop) = (Arc::clone(&recorder), stopping.clone());
    let door = Arc::clone(&running.door);
    let plane = admin::Plane {
        door,
        register: Arc::clone(&running.register),
        purse: Arc::clone(&running.state.money.purse),
        report_within: config.storage.report_timeout_ms.duration(),
        books: Books::new(Arc::clone(&store) as _, Arc::clone(&store) as _),
        metrics: Box::new(move || shown.show()),
        lines: Box::new(running.state.queues.clone()),
        decisions: Box::new(running.state.queues.clone()),
    };
    tasks.spawn(async move { admin::serve(control, plane, stop).await });
    tasks.spawn({
        let (cores, accepting) = (Arc::clone(&running.cores), accepting.clone());
        async move {
            listener.run(cores, accepting).await;
            std::future::pending().await
        }
    });
    match args.config.clone() {
        Some(path) => {
            let (running, loaded) = (Arc::clone(&running), loaded.clone());
            tasks.spawn(async move { running.follow(path, loaded).await });
        }
        None => drop(tasks.spawn(Running::ignore_hangups())),
    }
    crate::command::output::complain(format_args!("{}", banner.to_string().trim_end()));

    let ended = wait(&mut signals, &mut tasks, &mut kept).await;
    let closing = || running.state.money.till.stop();
    shutdown::finish(&config.shutdown, &running.door, &running.cores, &accepting, &mut signals, closing).await;
    running.cores.stop();
    stopping.cancel();
    let kept = match ended {
        // What the last calls cost.
        Ended::Asked => kept.await.is_ok(),
        Ended::Unkept => false,
    };
    enrolment::close(&store, &running.register).await;
    drop(rounds);
    tracing::info!("stopped");
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is remembered of credentials, and what it shares with other processes.
fn credentials(storage: &StorageSettings) -> anyhow::Result<(credential::State, Option<Arc<Spent>>)> {
    let Some(redis) = &storage.redis else { return Ok(Default::default()) };
    let nonces = Spent::new(redis).context("storage.redis")?;
    let strict = storage.on_redis_loss == OnLoss::Refuse;
    Ok((credential::State::sharing(Arc::clone(&nonces) as _, strict), Some(nonces)))
}

/// Why a server stops.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// By a signal.
    Asked,
    /// Nobody posts any more what calls cost.
    Unkept,
}

/// Waits for the signal to stop. A task that ends before it is a fault worth knowing; calls go on without it. But for the
/// bookkeeper: what it had read and not posted only the next start reads again, so this process makes way for it.
async fn wait(
    signals: &mut Signals,
    tasks: &mut tokio::task::JoinSet<std::io::Result<()>>,
    kept: &mut tokio::task::JoinHandle<()>,
) -> Ended {
    loop {
        tokio::select! {
            () = signals.asked() => return Ended::Asked,
            ended = &mut *kept => {
                let fault = ended.err().map_or_else(|| "it has ended".to_owned(), |fault| fault.to_string());
                tracing::error!(fault, "nobody posts what calls cost any more: stopping; what is in the daybook is posted after the next start");
                return Ended::Unkept;
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => tracing::error!("a background task has ended"),
                Ok(Err(fault)) => tracing::error!(%fault, "a background task has ended"),
                Err(fault) => tracing::error!(%fault, "a background task has broken down"),
            },
        }
    }
}

/// Starts what runs beside the calls: active checks, warm connections, the queue's attendant.
fn look_after(running: &Arc<Running>, tasks: &mut tokio::task::JoinSet<std::io::Result<()>>) {
    let fleet = Arc::clone(&running.stages.load().fleet);
    fleet.watch();
    for core in running.cores.handles() {
        let fleet = Arc::clone(&fleet);
        core.spawn(async move { fleet.warm().await });
    }
    tasks.spawn(Arc::clone(&running.register).run());
    tasks.spawn({
        let running = Arc::clone(running);
        async move {
            running.keep_keys().await;
            Ok(())
        }
    });
    let running = Arc::clone(running);
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(TEND).await;
            running.state.queues.tend();
            running.state.limits.tend(Moment::now());
        }
    });
}

fn start_log(format: Format) -> anyhow::Result<OperatorLog> {
    let log = OperatorLog::to(std::io::stderr()).context("cannot start the thread of the operator's log")?;
    let lines = log.lines();
    let builder = tracing_subscriber::fmt()
        .with_writer(move || lines.clone())
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(environment::log_filter());
    match format {
        Format::Json => builder.json().flatten_event(true).init(),
        Format::Text => builder.init(),
    }
    Ok(log)
}

fn cores_available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn busy(key: &str, address: std::net::SocketAddr) -> String {
    format!("cannot listen on {address} (`{key}`): is another program using it?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_nobody_posts_charges_any_more_the_server_stops() {
        let mut signals = Signals::take().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { Err(std::io::Error::other("no reason to stop")) });
        let mut kept = tokio::spawn(std::future::pending());
        let waiting = wait(&mut signals, &mut tasks, &mut kept);
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        kept.abort();
        assert_eq!(wait(&mut signals, &mut tasks, &mut kept).await, Ended::Unkept);
    }
}
