//! One attempt's tab: opened before it is sent, closed once, however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kernel::error::Kind;
use kernel::fleet::Deployment;
use kernel::store::daybook::Progress;
use kernel::store::ledger::{Charge, Ending};
use kernel::{Attempt, Ctx, Error, Moment, Money, Note, Operation, Payload, Result, Timestamp, Tokens, Usage};

use super::{Till, full};
use crate::catalogue::Listed;
use crate::purse::{Ask, Reservation};
use crate::rating::{self, Consumed};
use crate::tokens::Counting;

/// What an attempt has set aside, and what is needed to charge it. Dropped while open, its client is gone.
pub(super) struct Tab {
    pub(super) till: Arc<Till>,
    ctx: Ctx,
    reservation: Option<Reservation>,
    listed: Option<Arc<Listed>>,
    /// What it would be charged if nothing more were known of it, and becomes what it is charged.
    draft: Charge,
    /// Whether the daybook has it: what is free goes on without.
    opened: bool,
    deployment: Arc<Deployment>,
    payload: Arc<Payload>,
    operation: Operation,
    pub(super) counting: Counting,
    /// When it began, how long its call had waited before, and how many attempts there had been.
    began: Moment,
    waited: Duration,
    attempts: u32,
}

/// What the journal says about an attempt.
#[derive(Default)]
struct Facts {
    usage: Option<Usage>,
    /// Whether it was placed on an instance: with how many GPUs, in thousandths.
    placed: Option<u64>,
    waited: Duration,
}

/// Bound: no model reads or writes as much in one call, and what is charged and what is kept of it must be the same.
const TOKENS_MAX: Tokens = Tokens(1_000_000_000);
/// Bound: for the same reason; OpenAI makes ten images a call.
const IMAGES_MAX: u32 = 10_000;

/// What a backend says, as far as it can be.
fn believed(usage: Usage) -> Usage {
    let most = |tokens: Tokens| tokens.min(TOKENS_MAX);
    Usage {
        input: most(usage.input),
        cached: most(usage.cached),
        cache_write: most(usage.cache_write),
        audio_input: most(usage.audio_input),
        output: most(usage.output),
        reasoning: most(usage.reasoning),
        audio_output: most(usage.audio_output),
        images: usage.images.min(IMAGES_MAX),
        ..usage
    }
}

impl Tab {
    /// Sets money aside and writes the attempt down; `blind`: by what is known here, if the ledger has not told.
    ///
    /// # Errors
    /// `OverBudget` where there is no money; `Unavailable` where there is no room to write its end down.
    pub(super) fn open(till: &Arc<Till>, ctx: &Ctx, attempt: &Attempt, blind: bool) -> Result<Box<Self>> {
        let (call, deployment, facts) = (&attempt.call, &attempt.deployment, ctx.facts());
        let (caller, at) = (&facts.caller, Timestamp::now());
        let billing = &caller.terms.billing;
        let listed = till.catalogue.load().find(deployment.model.as_str(), billing.currency(), at).cloned();
        let rates = listed.as_deref().map(|listed| &listed.rates);
        let rate = |usage: &Usage, gpu_millis: u64| {
            rating::rate(&Consumed { usage, gpu_millis, answered: true, cached: false }, billing, rates)
        };
        let measured = call.operation != Operation::Service;
        let id = till.id(at);
        let ask = Ask {
            id,
            caller,
            model: &deployment.model,
            listed: listed.as_ref(),
            bytes: call.payload.prompt.len() + call.payload.tools.len(),
            output_max: call.output_max,
            choices: call.choices,
            answers: speaks(call.operation),
            streams: call.stream,
            measured,
            gpus: !deployment.gpus.is_empty(),
            held: facts.budgeted,
            blind,
            now: at,
        };
        let reservation = till.purse.reserve(&ask, rate)?;
        let draft = Charge {
            id,
            at,
            request: facts.id.clone(),
            tenant: caller.tenant.clone(),
            key: caller.key.clone(),
            model: deployment.model.clone(),
            version: deployment.version.clone(),
            operation: call.operation.as_str(),
            tag: facts.tag.clone(),
            usage: Usage { output: Tokens(0), audio_output: Tokens(0), images: 0, ..reservation.estimate },
            gpu_millis: 0,
            ending: Ending::GatewayKilled,
            plan: caller.terms.plan.clone(),
            // A month's tokens beyond the included ones may be charged by it as well.
            price: listed
                .as_ref()
                .filter(|_| billing.by_token() || billing.monthly.is_some())
                .map(|listed| Arc::clone(&listed.id)),
            currency: billing.currency(),
            amount: Money::ZERO,
        };
        let opened = till.daybook.open(&draft).is_ok();
        // Whatever may cost something must be able to end, even if it is likely to cost nothing.
        if !opened && rating::chargeable(billing, rates, measured) {
            till.count_full();
            return Err(full());
        }
        let (waited, attempts) = ctx.glance(|journal| (journal.queued, journal.attempts));
        Ok(Box::new(Self {
            till: Arc::clone(till),
            ctx: ctx.clone(),
            reservation: Some(reservation),
            listed,
            draft,
            opened,
            deployment: Arc::clone(deployment),
            payload: Arc::clone(&call.payload),
            operation: call.operation,
            counting: Counting::with(&till.tokenizers.load(), deployment.model.as_str()),
            began: Moment::now(),
            waited,
            attempts,
        }))
    }

    /// What the backend itself says that the attempt consumed.
    pub(super) fn told(&self) -> Option<Usage> {
        self.facts().usage.map(believed)
    }

    /// What a whole answer that says nothing about it consumed.
    pub(super) fn counted_whole(&self, answer: &[u8]) -> Usage {
        let output = match speaks(self.operation) {
            false => Tokens(0),
            true => self
                .counting
                .answer(answer, self.till.reading.answer)
                .unwrap_or_else(|| guessed(answer, self.till.reading.answer)),
        };
        self.counted(output)
    }

    /// What the attempt consumed where nobody says: its prompt as counted or guessed, and so much of an answer.
    pub(super) fn counted(&self, output: Tokens) -> Usage {
        if self.operation == Operation::Service {
            // There are no tokens to be counted, so nothing is estimated.
            return Usage::default();
        }
        let output = if speaks(self.operation) { output } else { Tokens(0) };
        Usage { input: self.prompt(), output, estimated: true, ..Usage::default() }
    }

    /// What has been consumed while the answer flows, with the prompt as it was guessed.
    fn flowed(&self, output: Tokens) -> Usage {
        let output = if speaks(self.operation) { output } else { Tokens(0) };
        Usage { output, ..self.draft.usage }
    }

    /// Sees to it that so many tokens can be paid for before they are handed on.
    ///
    /// # Errors
    /// `OverBudget` where they cannot.
    pub(super) fn cover(&mut self, output: Tokens) -> Result<(), Error> {
        let (usage, gpu_millis) = (self.flowed(output), self.gpu_millis());
        let billing = &self.ctx.facts().caller.terms.billing;
        let rates = self.listed.as_deref().map(|listed| &listed.rates);
        let rate = |usage: &Usage, gpu_millis: u64| {
            rating::rate(&Consumed { usage, gpu_millis, answered: true, cached: false }, billing, rates)
        };
        match &mut self.reservation {
            Some(reservation) => reservation.cover(&usage, gpu_millis, rate, self.draft.at),
            None => Ok(()),
        }
    }

    /// Writes down what has been handed on so far, for the case that nothing more can be.
    pub(super) fn progress(&self, output: Tokens) {
        if !self.opened {
            return;
        }
        let (usage, gpu_millis) = (self.flowed(output), self.gpu_millis());
        let amount = self.amount(&usage, gpu_millis, Ending::GatewayKilled);
        self.till.daybook.progress(&Progress { id: self.draft.id, usage, gpu_millis, amount });
    }

    /// Charges it: writes it down, settles it, and tells the call what it costs.
    pub(super) fn close(mut self: Box<Self>, ending: Ending, usage: Usage) {
        self.settle(ending, usage);
    }

    /// Charges an answer that came to its end without a word: its prompt was read.
    pub(super) fn close_empty(mut self: Box<Self>) {
        let usage = self.counted(Tokens(0));
        self.settle(Ending::Complete, usage);
    }

    /// Whether the backend has said in the middle of its answer that it cannot go on.
    pub(super) fn broke(&self) -> bool {
        self.ctx.glance(|journal| journal.broke.is_some())
    }

    /// It costs nothing: nothing was done for its client.
    pub(super) fn void(mut self: Box<Self>) {
        self.forget();
    }

    fn forget(&mut self) {
        if self.reservation.take().is_some() && self.opened {
            self.till.daybook.void(self.draft.id);
        }
    }

    fn settle(&mut self, ending: Ending, usage: Usage) {
        let Some(reservation) = self.reservation.take() else { return };
        let gpu_millis = self.gpu_millis();
        let amount = self.amount(&usage, gpu_millis, ending);
        (self.draft.at, self.draft.usage, self.draft.gpu_millis) = (Timestamp::now(), usage, gpu_millis);
        (self.draft.ending, self.draft.amount) = (ending, amount);
        let learn = (ending == Ending::Complete).then_some(gpu_millis);
        // Before it is written down: once it is, it may be posted at any moment, and what is posted must have been spent.
        reservation.settle(&usage, amount, self.draft.at, learn);
        if self.opened {
            self.till.daybook.close(&self.draft);
        } else {
            self.till.daybook.unopened(&self.draft);
        }
        if usage.estimated {
            self.till.count_estimated();
            // Limits and the access log go by what is charged: what the backend's stream lets guess leaves the prompt out.
            self.ctx.note(Note::Used(usage));
        }
        self.ctx.note(Note::Charged(amount, self.draft.currency));
    }

    fn amount(&self, usage: &Usage, gpu_millis: u64, ending: Ending) -> Money {
        let billing = &self.ctx.facts().caller.terms.billing;
        let consumed = Consumed { usage, gpu_millis, answered: rating::answered(ending, usage), cached: false };
        rating::rate(&consumed, billing, self.listed.as_deref().map(|listed| &listed.rates))
    }

    /// Tokens of the prompt: counted where that can be done, else guessed from its length.
    fn prompt(&self) -> Tokens {
        let text = |place: &std::ops::Range<usize>| self.payload.bytes.get(place.clone()).unwrap_or_default();
        let count = |part: &[u8]| self.counting.prompt(part, self.operation, self.till.reading.prompt);
        let guess = self.draft.usage.input;
        let Some(prompt) = count(text(&self.payload.prompt)) else { return guess };
        let tools = self.counting.answer(text(&self.payload.tools), |tools, see| {
            see(std::str::from_utf8(tools).unwrap_or_default());
            0
        });
        Tokens(prompt.0 + tools.unwrap_or_default().0)
    }

    /// How long the instance has worked on it, times its GPUs.
    fn gpu_millis(&self) -> u64 {
        if self.deployment.gpus.is_empty() {
            return 0;
        }
        let facts = self.facts();
        let worked = Moment::now().since(self.began).saturating_sub(facts.waited.saturating_sub(self.waited));
        let micros = u64::try_from(worked.as_micros()).unwrap_or(u64::MAX);
        // Thousandths of GPUs and of milliseconds.
        micros.saturating_mul(facts.placed.unwrap_or(0)).saturating_add(999_999) / 1_000_000
    }

    fn facts(&self) -> Facts {
        self.ctx.glance(|journal| {
            let placed = (journal.attempts > self.attempts).then_some(()).and(journal.placed.as_ref());
            let gpus = |name: &Arc<str>| {
                let at = self.deployment.names.iter().position(|other| other == name)?;
                self.deployment.gpus.get(at).copied()
            };
            Facts {
                usage: journal.usage.filter(|usage| placed.is_some() && !usage.estimated),
                placed: placed.map(|(_, name)| gpus(name).unwrap_or(0)),
                waited: journal.queued,
            }
        })
    }

    /// Who broke it off, where that was neither the backend nor a budget.
    pub(super) fn left(&self) -> Ending {
        if self.till.stopping.load(Ordering::Relaxed) { Ending::GatewayKilled } else { Ending::ClientGone }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        if self.reservation.is_none() {
            return;
        }
        // Nothing of an answer was there. A backend that was reading the prompt did so for this client.
        let ending = self.left();
        if self.facts().placed.is_some() && ending == Ending::ClientGone {
            let usage = self.counted(Tokens(0));
            self.settle(ending, usage);
        } else {
            self.forget();
        }
    }
}

/// Whether answers to this kind of work are made of tokens.
const fn speaks(operation: Operation) -> bool {
    matches!(operation, Operation::Chat | Operation::Completion)
}

/// How an answer ended that broke off with an error.
pub(super) fn ending(error: &Error) -> Ending {
    match error.kind {
        Kind::UpstreamTimeout => Ending::TimedOut,
        _ => Ending::UpstreamBroke,
    }
}

/// Tokens of a text that no tokenizer is known for: four bytes each, as in English prose.
fn guessed(answer: &[u8], texts: crate::tokens::Texts) -> Tokens {
    const BYTES_PER_TOKEN: u64 = 4;
    let mut bytes = 0u64;
    texts(answer, &mut |text| bytes += text.len() as u64);
    Tokens(bytes.div_ceil(BYTES_PER_TOKEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absurd_report_is_believed_as_far_as_it_can_be() {
        let said = Usage { input: Tokens(u64::MAX), output: Tokens(7), images: 2, ..Usage::default() };
        assert_eq!(believed(said), Usage { input: TOKENS_MAX, ..said });
        assert_eq!(believed(Usage { images: u32::MAX, ..said }).images, IMAGES_MAX);
    }
}
