//! What goes wrong with an answer that was accepted, and how often.

use http::StatusCode;

use crate::plan::{End, Plan};
use crate::random::Random;
use crate::refusal::Refusal;
use crate::settings::Settings;

/// Seconds to wait, said with a 429 that comes by rate.
const RETRY_AFTER: u64 = 1;

/// A way to end other than well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Nothing is ever answered.
    HangHead,
    /// The answer begins, then falls silent.
    HangBody,
    /// The connection is cut after this many chunks, inside the next.
    CutAfter(u64),
    /// As [`Fault::CutAfter`], this fraction of the way through; leaves answers alone that are not streams.
    CutAt(f64),
}

impl Fault {
    /// Rolls the dice for one model call: an error answer, a faulty answer, or a good one.
    pub(crate) fn draw(settings: &Settings, random: &mut Random) -> Result<Option<Self>, Refusal> {
        let draw = random.fraction();
        let mut reached = settings.hang_rate;
        if draw < reached {
            return Ok(Some(Self::HangHead));
        }
        reached += settings.failure_rate;
        if draw < reached {
            let statuses = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];
            let [either, other] = statuses;
            return Err(Refusal::simulated(if random.below(2) == 0 { either } else { other }));
        }
        reached += settings.rate_limit_rate;
        if draw < reached {
            return Err(Refusal::simulated(StatusCode::TOO_MANY_REQUESTS).retry_after(Some(RETRY_AFTER)));
        }
        let cut = random.fraction() < settings.cut_rate;
        Ok(cut.then(|| Self::CutAt(random.fraction())))
    }

    /// Spoils a plan.
    pub(crate) fn spoil(self, plan: &mut Plan) {
        let streamed = plan.is_stream();
        match self {
            Self::HangHead => plan.head = None,
            Self::HangBody => plan.steps.break_after(u64::from(streamed), End::Hang),
            Self::CutAfter(chunks) => plan.steps.break_after(chunks, End::Cut),
            Self::CutAt(fraction) if streamed => {
                // At least one chunk gets out, and the closing chunk never does.
                let range = plan.steps.planned().saturating_sub(1) as f64;
                plan.steps.break_after(1 + (fraction * range) as u64, End::Cut);
            }
            Self::CutAt(_) => {}
        }
    }
}
