//! The stage that charges: each attempt is paid for before it is sent, and its bill is written down before its answer's
//! last bytes are handed on.
//!
//! It stands between what decides *what* to try and what decides *where*, so that every attempt passes it, on the model
//! really called. An attempt has money set aside in the [`Purse`] and is opened in the daybook; while its answer flows
//! what was handed on is counted, and a hard budget that is spent cuts it off; when it ends, however it ends, it is closed
//! in the daybook and settled in the purse. How an ending decides the bill is one table: `docs/billing.md`.

mod flow;
mod tab;
mod till;

use std::sync::Arc;

use kernel::error::Kind;
use kernel::store::ledger::Ending;
use kernel::{Attempt, Body, Ctx, Error, Origin, Reply, Result, Serve, Serving, Usage};

use self::flow::Flow;
use self::tab::Tab;
pub use self::till::Till;

/// From this status on an answer says that there is none.
const REFUSED: u16 = 400;

/// Charges the attempts of one config.
pub struct Meter {
    next: Arc<dyn Serve<Attempt>>,
    till: Arc<Till>,
}

impl Meter {
    /// A meter before `next`. The till outlives configs.
    pub fn new(next: Arc<dyn Serve<Attempt>>, till: Arc<Till>) -> Self {
        Self { next, till }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice: a waiting call is this large")]
    fn charge<'a>(&'a self, ctx: &'a Ctx, attempt: Attempt) -> impl Future<Output = Result<Reply>> + Send + 'a {
        async move {
            // Dropped while it waits, the tab is closed by what became of the attempt until then.
            let mut tab = Tab::open(&self.till, ctx, &attempt);
            if tab::blind(&tab) {
                // A tenant's first call: what it has spent before is a question to the ledger.
                let tenant = ctx.facts().caller.tenant.clone();
                if self.till.purse.told(&tenant).await {
                    // Nothing of the first may be held while the second is asked for.
                    drop(tab);
                    tab = Tab::open(&self.till, ctx, &attempt);
                }
            }
            let tab = tab?;
            match self.next.serve(ctx, attempt).await {
                Ok(reply) => Ok(answered(tab, reply)),
                Err(error) => {
                    tab.void();
                    Err(error)
                }
            }
        }
    }
}

impl Serve<Attempt> for Meter {
    fn serve<'a>(&'a self, ctx: &'a Ctx, attempt: Attempt) -> Serving<'a> {
        Box::pin(self.charge(ctx, attempt))
    }
}

/// A whole answer is charged here and now; one that flows, as it does.
fn answered(tab: Box<Tab>, mut reply: Reply) -> Reply {
    match std::mem::replace(&mut reply.body, Body::Whole(bytes::Bytes::new())) {
        Body::Whole(bytes) => {
            let usage = tab.told().unwrap_or_else(|| tab.counted_whole(&bytes));
            tab.close(Ending::Complete, usage);
            reply.body = Body::Whole(bytes);
        }
        Body::Stream(deltas) => reply.body = Body::Stream(Box::new(Flow::new(tab, deltas))),
        // A plain service's answer has no tokens to wait for: it is charged as it begins, if it is a good one.
        Body::Flow(deltas) => {
            if reply.head.status < REFUSED {
                tab.close(Ending::Complete, Usage::default());
            } else {
                tab.void();
            }
            reply.body = Body::Flow(deltas);
        }
    }
    reply
}

/// Nothing that costs money may begin while its end could not be written down.
fn full() -> Error {
    let message =
        "Calls that cost something cannot be taken on just now: too many are not in the ledger yet. Try again soon.";
    let mut error = Error::new(Kind::Unavailable, Origin::Gateway, message).after(till::SOON);
    error.cause = "daybook_full".into();
    error
}

#[cfg(test)]
mod tests;
