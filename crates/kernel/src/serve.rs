//! The one trait a request flows through.

use std::future::Future;
use std::pin::Pin;

use crate::{Ctx, Reply, Result};

/// What a stage returns: a boxed future, so that stages can be chained behind `dyn`.
pub type Serving<'a> = Pin<Box<dyn Future<Output = Result<Reply>> + Send + 'a>>;

/// One stage of a request's journey: take what has been decided so far, answer.
///
/// Dropping the returned future cancels the stage and everything below it: slots are freed and upstream
/// connections are closed by the guards those stages hold. What must outlive the future (a permit while
/// bytes still flow) is moved into the reply with [`Reply::holding`].
pub trait Serve<In>: Send + Sync + 'static {
    /// Answers `input`, or says why not.
    fn serve<'a>(&'a self, ctx: &'a Ctx, input: In) -> Serving<'a>;
}
