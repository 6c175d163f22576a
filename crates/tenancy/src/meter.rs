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
use std::time::Duration;

use kernel::error::Kind;
use kernel::store::ledger::Ending;
use kernel::{Attempt, Body, Ctx, Error, Moment, Origin, Reply, Result, Serve, Serving, Usage};

use self::flow::Flow;
use self::tab::Tab;
pub use self::till::Till;
use crate::purse::UNKNOWN;

/// From this status on an answer says that there is none.
const REFUSED: u16 = 400;
/// Bound: what a tenant's first call waits for the ledger: a healthy one answers in a tenth of it.
const LEDGER_WITHIN: Duration = Duration::from_secs(1);
/// How often who waits looks, should nobody wake it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
            let tab = match Tab::open(&self.till, ctx, &attempt, false) {
                Err(unknown) if unknown.cause == UNKNOWN && self.till.purse.will_know() => {
                    Box::pin(self.wait(ctx, &attempt)).await?
                }
                opened => opened?,
            };
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

impl Meter {
    /// Waits until the ledger has told what the tenant has spent: at its first call, or after a change of its budgets.
    /// Where it does not tell in time, what is known here must do, unless the config says otherwise.
    async fn wait(&self, ctx: &Ctx, attempt: &Attempt) -> Result<Box<Tab>> {
        let until = Moment::now() + LEDGER_WITHIN;
        loop {
            let left = until.remaining();
            let over = left.is_zero() || !self.till.purse.will_know();
            let blind = over && !self.till.purse.strict();
            match Tab::open(&self.till, ctx, attempt, blind) {
                Err(unknown) if unknown.cause == UNKNOWN && !over => {
                    self.till.purse.loaded(left.min(LOOK_EVERY)).await;
                }
                opened => return opened,
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
