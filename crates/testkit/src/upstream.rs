//! A model server that breaks on command.
//!
//! For the faults a real one cannot be made to show. It lives on a thread of its own, so its clock
//! is right even while the test blocks, and it goes with the value that started it.
//!
//! `GET` requests are probes (health checks, model lists): kept apart and answered 200, whatever the
//! scripts say, so that a gateway's probing uses up no script.

mod connection;
mod record;
mod script;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use record::{Connection, Gone, Outcome, Request};
pub use script::{Plan, Script, Step};

use record::{Inner, Record};

const BACKLOG: i32 = 1024;
/// Orders are answered at once; more than a few never wait.
const ORDERS: usize = 8;

/// A scripted upstream on a loopback port.
pub struct Upstream {
    address: SocketAddr,
    record: Arc<Record>,
    orders: Option<mpsc::Sender<(Order, std_mpsc::SyncSender<()>)>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Refuse,
    Die,
    Accept,
}

// === impl Upstream: life ===

impl Upstream {
    /// Starts one that does this with every request for which nothing else was queued.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start(always: impl Into<Plan>) -> Self {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a loopback port");
        let address = socket.local_addr().expect("a bound socket").as_socket().expect("an IP socket");
        socket.listen(BACKLOG).expect("a bound socket listens");
        let record = Arc::new(Record::new(always.into()));
        let (orders, inbox) = mpsc::channel(ORDERS);
        let books = Arc::clone(&record);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(live(socket, inbox, books));
        });
        Self { address, record, orders: Some(orders), thread: Some(thread) }
    }

    /// Starts one whose port refuses connections (and is taken by nobody else) until
    /// [`accept`](Self::accept).
    #[must_use]
    pub fn refusing(always: impl Into<Plan>) -> Self {
        let upstream = Self::start(always);
        upstream.refuse();
        upstream
    }

    /// Refuses connections from now on; open ones live on.
    pub fn refuse(&self) {
        self.order(Order::Refuse);
    }

    /// As if killed: refuses connections, and the open ones are closed where they stand.
    pub fn die(&self) {
        self.order(Order::Die);
    }

    /// Accepts connections again.
    pub fn accept(&self) {
        self.order(Order::Accept);
    }

    fn order(&self, order: Order) {
        let (done, wait) = std_mpsc::sync_channel(1);
        let orders = self.orders.as_ref().expect("taken only in drop");
        orders.try_send((order, done)).expect("the upstream's thread lives");
        wait.recv().expect("the upstream's thread lives");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL without a path: what a config calls `endpoint`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; a second one here would abort the test process.
            let _ = thread.join();
        }
    }
}

// === impl Upstream: scripts ===

impl Upstream {
    /// Queues a plan for one request, before the standing one.
    pub fn next(&self, plan: impl Into<Plan>) {
        self.record.write(|inner| inner.queue.push_back(plan.into()));
    }

    /// Changes the standing plan.
    pub fn always(&self, plan: impl Into<Plan>) {
        self.record.write(|inner| inner.always = plan.into());
    }

    /// Changes what `GET` requests are answered.
    pub fn on_probe(&self, plan: impl Into<Plan>) {
        self.record.write(|inner| inner.probe = plan.into());
    }
}

// === impl Upstream: what it saw ===

impl Upstream {
    /// All requests but `GET`, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.record.read().requests.clone()
    }

    /// All `GET` requests.
    #[must_use]
    pub fn probes(&self) -> Vec<Request> {
        self.record.read().probes.clone()
    }

    /// The last request.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn last_request(&self) -> Request {
        self.record.read().requests.last().cloned().expect("a request at the upstream")
    }

    /// All connections ever accepted.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.record.read().connections.clone()
    }

    /// How many requests (not probes) have arrived whose script is still running or hanging. A script's
    /// end is booked just after its last byte: who has read the answer still waits with
    /// [`busy`](Self::busy).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        count_in_flight(&self.record.read())
    }

    /// Waits until so many requests have arrived in all.
    #[must_use]
    pub async fn arrived(&self, count: usize, within: Duration) -> bool {
        self.wait(within, |inner| (inner.requests.len() >= count).then_some(())).await.is_some()
    }

    /// Waits until so many requests are in flight at once.
    #[must_use]
    pub async fn busy(&self, count: usize, within: Duration) -> bool {
        self.wait(within, |inner| (count_in_flight(inner) == count).then_some(())).await.is_some()
    }

    /// Waits until so many requests are at their script's hang: all before it has been sent.
    #[must_use]
    pub async fn hanging(&self, count: usize, within: Duration) -> bool {
        let hangs = |request: &&Request| request.outcome == Outcome::Hanging;
        let wait = self.wait(within, |inner| (inner.requests.iter().filter(hangs).count() >= count).then_some(()));
        wait.await.is_some()
    }

    /// Waits for the peer to leave a request unfinished (close or reset its connection) at or after
    /// `since`; tells how long after.
    pub async fn abandoned(&self, since: Instant, within: Duration) -> Option<Duration> {
        let left = |request: &Request| match request.outcome {
            Outcome::Abandoned(at, _) => at.checked_duration_since(since),
            _ => None,
        };
        self.wait(within, |inner| inner.requests.iter().find_map(left)).await
    }

    async fn wait<T>(&self, within: Duration, find: impl Fn(&Inner) -> Option<T>) -> Option<T> {
        let mut changes = self.record.watch();
        let search = async {
            loop {
                if let Some(found) = find(&self.record.read()) {
                    return found;
                }
                // Cannot fail: the sender is in `self.record`.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(within, search).await.ok()
    }
}

fn count_in_flight(inner: &Inner) -> usize {
    let open = |request: &&Request| matches!(request.outcome, Outcome::Open | Outcome::Hanging);
    inner.requests.iter().filter(open).count()
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // So that the same port can be bound again while old connections on it linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The upstream's thread: accepts and obeys until the order's sender is gone.
async fn live(socket: Socket, mut orders: mpsc::Receiver<(Order, std_mpsc::SyncSender<()>)>, record: Arc<Record>) {
    let address = socket.local_addr().expect("a bound socket").as_socket().expect("an IP socket");
    let mut listener = Some(TcpListener::from_std(socket.into()).expect("a listening socket"));
    // Bound but not listening: the kernel refuses, and gives the port to nobody else.
    let mut reserved = None;
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((order, done)) = order else { return };
                match order {
                    Order::Refuse | Order::Die => {
                        listener = None;
                        if reserved.is_none() {
                            reserved = Some(bind(address).expect("our own port"));
                        }
                        if matches!(order, Order::Die) {
                            open.shutdown().await;
                            record.ended_by_us();
                        }
                    }
                    Order::Accept => if let Some(socket) = reserved.take() {
                        socket.listen(BACKLOG).expect("a bound socket listens");
                        listener = Some(TcpListener::from_std(socket.into()).expect("a listening socket"));
                    },
                }
                // Nobody waiting means a test that has ended.
                let _ = done.send(());
            }
            stream = accept(listener.as_ref()) => {
                let record = Arc::clone(&record);
                open.spawn(async move { connection::converse(stream, &record).await });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> tokio::net::TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        // A connection that is gone before it is accepted is no concern of ours.
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
    }
}
