//! A timer for a task that is busy: asking whether it rang costs one load, where polling a timer costs a walk through
//! the runtime's wheel.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Wakes its task when it rings. Belongs to one task, which is always woken the same way.
pub(super) struct Alarm {
    timer: Pin<Box<Sleep>>,
    bell: Arc<Bell>,
    /// The bell as the timer is given it.
    waker: Waker,
}

#[derive(Debug, Default)]
struct Bell {
    rang: AtomicBool,
    task: OnceLock<Waker>,
}

impl Alarm {
    /// Rings after this long.
    pub(super) fn after(span: Duration) -> Self {
        let bell = Arc::<Bell>::default();
        Self { timer: Box::pin(tokio::time::sleep(span)), waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Whether it rang since it was last asked. The first to ask is whom it wakes.
    pub(super) fn rang(&mut self, cx: &mut Context<'_>) -> bool {
        if self.bell.task.get().is_none() {
            self.bell.task.get_or_init(|| cx.waker().clone());
            self.wind();
        }
        self.bell.rang.load(Ordering::Acquire) && self.bell.rang.swap(false, Ordering::AcqRel)
    }

    /// Rings again, after this long.
    pub(super) fn again(&mut self, span: Duration) {
        self.timer.as_mut().reset(Instant::now() + span);
        self.wind();
    }

    fn wind(&mut self) {
        if let Poll::Ready(()) = self.timer.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            self.waker.wake_by_ref();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_wakes_its_task_each_time_it_rings_and_not_before() {
        let begun = Instant::now();
        let mut alarm = Alarm::after(Duration::from_millis(300));
        let mut rings = Vec::new();
        std::future::poll_fn(|cx| {
            while alarm.rang(cx) {
                rings.push(begun.elapsed().as_millis());
                alarm.again(Duration::from_millis(if rings.len() == 1 { 500 } else { 0 }));
            }
            if rings.len() < 3 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        assert_eq!(rings[..2], [300, 800]);
        assert!((800..=801).contains(&rings[2]), "{rings:?}");
    }
}
