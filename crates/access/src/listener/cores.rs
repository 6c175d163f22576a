//! The data-plane threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use kernel::sight::{Gauges, Sample};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Manners};
use super::{Incoming, Tls};
use crate::Door;
use crate::announcement::Announcement;

/// Bound: connections on their way to one core.
const HANDOVER: usize = 1024;

/// One `current_thread` runtime per core, each with its own connections, pools and buffers.
pub struct Cores {
    cores: Vec<Core>,
    tls: Arc<ArcSwapOption<Tls>>,
    /// Said when connections are to end after the request they are on.
    ending: Arc<Announcement>,
}

struct Core {
    connections: Arc<AtomicUsize>,
    handover: mpsc::Sender<Incoming>,
    handle: Handle,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    /// Ends the thread, whatever still runs on it.
    stop: CancellationToken,
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Cores {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(count: usize, door: &Arc<Door>, tls: Option<Tls>) -> std::io::Result<Self> {
        let (ending, tls) = (Arc::<Announcement>::default(), Arc::new(ArcSwapOption::from_pointee(tls)));
        let cores =
            (0..count.max(1)).map(|index| Core::start(index, Arc::clone(door), Arc::clone(&tls), Arc::clone(&ending)));
        Ok(Self { cores: cores.collect::<std::io::Result<_>>()?, tls, ending })
    }

    /// The threads' runtimes, for work that must happen on each of them.
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.cores.iter().map(|core| &core.handle)
    }

    /// New connections get this certificate.
    pub fn renew(&self, tls: Option<Tls>) {
        self.tls.store(tls.map(Arc::new));
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.cores.iter().map(|core| core.connections.load(Ordering::Relaxed)).sum()
    }

    /// From now on connections end after the request they are on.
    pub fn drain(&self) {
        self.ending.say();
    }

    /// Ends the threads and whatever still runs on them.
    pub fn stop(&self) {
        self.cores.iter().for_each(|core| core.stop.cancel());
        for core in &self.cores {
            let thread = core.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(thread) = thread {
                drop(thread.join());
            }
        }
    }

    /// Gives a connection to the core with the fewest.
    pub(super) async fn assign(&self, incoming: Incoming) {
        let emptiest = self.cores.iter().min_by_key(|core| core.connections.load(Ordering::Relaxed));
        if let Some(core) = emptiest {
            // Counted here and not on arrival, so that a burst spreads too.
            core.connections.fetch_add(1, Ordering::Relaxed);
            if core.handover.send(incoming).await.is_err() {
                core.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Core {
    fn start(
        index: usize,
        door: Arc<Door>,
        tls: Arc<ArcSwapOption<Tls>>,
        ending: Arc<Announcement>,
    ) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handover, mut arrivals) = mpsc::channel::<Incoming>(HANDOVER);
        let (connections, stop, handle) =
            (Arc::new(AtomicUsize::new(0)), CancellationToken::new(), runtime.handle().clone());
        let (counter, stopped) = (Arc::clone(&connections), stop.clone());
        let work = async move {
            while let Some(incoming) = arrivals.recv().await {
                let counted = Counted(Arc::clone(&counter));
                let manners = Manners { door: Arc::clone(&door), tls: tls.load_full(), ending: Arc::clone(&ending) };
                tokio::spawn(async move {
                    connection::serve(incoming.stream, manners).await;
                    drop((counted, incoming.place));
                });
            }
        };
        let thread = std::thread::Builder::new().name(format!("sluice-core-{index}")).spawn(move || {
            kernel::core::enter(index);
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    () = stopped.cancelled() => {}
                }
            });
        })?;
        Ok(Self { connections, handover, handle, thread: std::sync::Mutex::new(Some(thread)), stop })
    }
}

impl Gauges for Cores {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        for (index, core) in self.cores.iter().enumerate() {
            to(Sample {
                name: "sluice_connections",
                help: "Client connections open, by data-plane thread.",
                counter: false,
                labels: vec![("core", index.to_string())],
                value: core.connections.load(Ordering::Relaxed) as f64,
            });
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
