//! Something that is said once, to everybody who listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Whether it has been said costs one load to know, so that busy connections may ask at every turn; a listener
/// registers once and is only there to be woken.
#[derive(Debug, Default)]
pub(crate) struct Announcement {
    said: AtomicBool,
    listeners: Arc<Notify>,
}

impl Announcement {
    /// Says it. Saying it again changes nothing.
    pub(crate) fn say(&self) {
        self.said.store(true, Ordering::Release);
        self.listeners.notify_waiters();
    }

    /// Whether it has been said.
    pub(crate) fn said(&self) -> bool {
        self.said.load(Ordering::Acquire)
    }

    /// Wakes whoever has polled it, when it is said. Poll first, then ask [`said`](Self::said): what is said between
    /// the two is not missed.
    pub(crate) fn listen(&self) -> OwnedNotified {
        Arc::clone(&self.listeners).notified_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_listener_that_was_polled_before_is_told_and_a_later_one_can_ask() {
        let announcement = Announcement::default();
        let mut listener = pin!(announcement.listen());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!((listener.as_mut().poll(&mut cx), announcement.said()), (Poll::Pending, false));
        announcement.say();
        assert_eq!((listener.poll(&mut cx), announcement.said()), (Poll::Ready(()), true));
    }
}
