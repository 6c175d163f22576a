//! Work that breaks down (panics) without taking its task with it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What somebody panicked with.
pub(super) type Panic = Box<dyn Any + Send>;

/// Does something; gives what it broke down with, if it does. Whether what it worked on is whole then is the caller's to
/// know.
pub(super) async fn guarded<T>(work: impl Future<Output = T> + Send) -> Result<T, Panic> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(fault) => Poll::Ready(Err(fault)),
    })
    .await
}

/// What it said.
pub(super) fn said(fault: &(dyn Any + Send)) -> &str {
    let owned = || fault.downcast_ref::<String>().map(String::as_str);
    fault.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("it did not say why")
}
