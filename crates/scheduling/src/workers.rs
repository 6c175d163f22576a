//! A bounded pool of threads for work on the processor, so that it never stalls the data plane.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use kernel::sight::{Gauges, Sample};
use kernel::work::{Job, Workers};

/// Threads that do jobs in the order they came. Dropping it lets what was taken be done first.
#[derive(Debug)]
pub struct Pool {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Desk {
    jobs: Mutex<Jobs>,
    come: Condvar,
    busy: AtomicUsize,
    done: AtomicU64,
    refused: AtomicU64,
    /// Microseconds that jobs waited, and took.
    waited: AtomicU64,
    worked: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Instant, Job)>,
    closed: bool,
}

/// Bound: jobs waiting per thread. What a large body takes to be read times this is a second or so.
const WAITING_PER_THREAD: usize = 64;

impl Pool {
    /// A pool of so many threads, at least one.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let mut pool = Self { desk, threads: Vec::new() };
        for number in 0..threads.max(1) {
            let desk = Arc::clone(&pool.desk);
            let thread =
                std::thread::Builder::new().name(format!("sluice-worker-{number}")).spawn(move || desk.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }
}

impl Workers for Pool {
    fn submit(&self, job: Job) -> Result<(), Job> {
        let mut jobs = self.desk.lock();
        if jobs.waiting.len() >= WAITING_PER_THREAD * self.threads.len() {
            self.desk.refused.fetch_add(1, Ordering::Relaxed);
            return Err(job);
        }
        jobs.waiting.push_back((Instant::now(), job));
        drop(jobs);
        self.desk.come.notify_one();
        Ok(())
    }
}

impl Desk {
    fn work(&self) {
        while let Some((since, job)) = self.next() {
            let began = Instant::now();
            self.waited.fetch_add(micros(since, began), Ordering::Relaxed);
            self.busy.fetch_add(1, Ordering::Relaxed);
            // A job that panics has told so by dropping what it was to answer with; the thread goes on.
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
            self.busy.fetch_sub(1, Ordering::Relaxed);
            self.done.fetch_add(1, Ordering::Relaxed);
            self.worked.fetch_add(micros(began, Instant::now()), Ordering::Relaxed);
        }
    }

    fn next(&self) -> Option<(Instant, Job)> {
        let idle = |jobs: &mut Jobs| jobs.waiting.is_empty() && !jobs.closed;
        let mut jobs = self.come.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        jobs.waiting.pop_front()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

impl Gauges for Pool {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let desk = &self.desk;
        let mut show = |name, help, counter, value| to(Sample { name, help, counter, labels: Vec::new(), value });
        show("sluice_worker_threads", "Threads for work on the processor.", false, self.threads.len() as f64);
        show("sluice_workers_busy", "Those at work.", false, desk.busy.load(Ordering::Relaxed) as f64);
        show("sluice_worker_jobs_waiting", "Jobs waiting for one.", false, desk.lock().waiting.len() as f64);
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
        show("sluice_worker_jobs", "Jobs done by them.", true, count(&desk.done));
        let help = "Jobs that found too many waiting and were done on the thread that asked.";
        show("sluice_worker_jobs_refused", help, true, count(&desk.refused));
        show("sluice_worker_wait_seconds", "How long jobs waited, all together.", true, count(&desk.waited) / 1e6);
        show("sluice_worker_busy_seconds", "How long jobs took, all together.", true, count(&desk.worked) / 1e6);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.desk.lock().closed = true;
        self.desk.come.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_are_done_elsewhere_in_the_order_they_came_and_one_that_panics_ends_nothing() {
        let pool = Pool::start(1).unwrap();
        let (tell, told) = channel();
        for number in 0..5 {
            let tell = tell.clone();
            let job = move || {
                assert!(number != 2, "on purpose");
                tell.send((number, std::thread::current().id())).unwrap();
            };
            pool.submit(Box::new(job)).map_err(|_| ()).unwrap();
        }
        drop(tell);
        let all: Vec<_> = told.iter().collect();
        assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert!(all.iter().all(|(_, thread)| *thread != std::thread::current().id()));
    }

    #[test]
    fn what_is_too_much_comes_back_and_what_was_taken_is_done_before_the_end() {
        let pool = Pool::start(1).unwrap();
        let (hold, held) = channel::<()>();
        let (tell, told) = channel();
        pool.submit(Box::new(move || assert!(held.recv().is_err()))).map_err(|_| ()).unwrap();
        while pool.desk.busy.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let job = || {
            let tell = tell.clone();
            Box::new(move || tell.send(()).unwrap()) as Job
        };
        (0..WAITING_PER_THREAD).for_each(|_| assert!(pool.submit(job()).is_ok()));
        let back = pool.submit(job()).expect_err("it is full");
        back();
        drop(hold);
        drop(pool);
        drop(tell);
        assert_eq!(told.iter().count(), WAITING_PER_THREAD + 1);
    }
}
