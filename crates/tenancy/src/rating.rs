//! What a usage costs: exact, in one place, for every way an answer can come.
//!
//! Amounts per token are whole numbers of 10⁻¹² units, so nothing is rounded but by a percentage: it is taken of a call's
//! whole price, and what is below a unit of 10⁻¹² is dropped. Whether an answer was streamed is not asked for here, so it
//! cannot make a difference.

use kernel::store::ledger::Ending;
use kernel::{Billing, Money, Price, Usage};

/// What is charged for, beside by whom.
#[derive(Debug, Clone, Copy)]
pub struct Consumed<'a> {
    /// Tokens and images.
    pub usage: &'a Usage,
    /// GPU time in milliseconds.
    pub gpu_millis: u64,
    /// Whether there is an answer to charge for: see [`answered`].
    pub answered: bool,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// What a price makes of one of each: worked out once, because dividing is dear and calls are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    input: Money,
    cached: Money,
    cache_write: Money,
    audio_input: Money,
    output: Money,
    reasoning: Money,
    audio_output: Money,
    image: Money,
    call: Money,
    gpu_milli: Money,
}

/// Tokens split into classes that do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    input: u64,
    cached: u64,
    cache_write: u64,
    audio_input: u64,
    output: u64,
    reasoning: u64,
    audio_output: u64,
}

/// Tokens that prices are given for.
const PER: u64 = 1_000_000;
const PERCENT: i128 = 100;

/// Whether what is charged per call is due: the client got an answer, or a part of one.
pub fn answered(ending: Ending, usage: &Usage) -> bool {
    ending == Ending::Complete || usage.output.0 > 0 || usage.images > 0
}

/// Whether a call can cost anything at all, whatever it turns out to be: whether its plan's billing or its model's price has
/// a part that may be charged for, now or with a month's invoice. Of what is not `measured` only calls are charged for:
/// a plain service has neither tokens nor images nor GPU time.
pub fn chargeable(billing: &Billing, rates: Option<&Rates>, measured: bool) -> bool {
    chargeable_now(billing, rates, measured) || (measured && chargeable_beyond(billing, rates))
}

/// The same of what is charged with the call itself.
pub(crate) fn chargeable_now(billing: &Billing, rates: Option<&Rates>, measured: bool) -> bool {
    let part = |rates: &Rates| if measured { rates.any() } else { rates.call.is_positive() };
    let listed = billing.by_token() && billing.markup_percent != Some(0) && rates.is_some_and(part);
    listed || billing.per_call.is_some_and(Money::is_positive)
}

/// The same of tokens beyond those that a month's fee includes.
fn chargeable_beyond(billing: &Billing, rates: Option<&Rates>) -> bool {
    let Some(monthly) = billing.monthly.as_ref().filter(|_| !billing.by_token()) else { return false };
    let listed = || billing.markup_percent != Some(0) && rates.is_some_and(Rates::any_of_tokens);
    monthly.overage_per_1k_tokens.map_or_else(listed, Money::is_positive)
}

/// What a call costs by its plan's billing and the rates of its model's price.
pub fn rate(consumed: &Consumed<'_>, billing: &Billing, rates: Option<&Rates>) -> Money {
    let listed = rates.filter(|_| billing.by_token()).map_or(Money::ZERO, |rates| rates.of_all(consumed));
    let marked_up = percent(listed, billing.markup_percent);
    let per_call = billing.per_call.filter(|_| consumed.answered).unwrap_or_default();
    let whole = marked_up + per_call;
    if consumed.cached { percent(whole, billing.cache_percent) } else { whole }
}

/// What tokens beyond a month's included ones cost when `before` of `included` were used already and these come: by the plan's own price
/// for them, else by the catalogue's, in proportion. For budgets; bills are made of whole months.
pub fn overage(billing: &Billing, rates: Option<&Rates>, (before, included): (u64, u64), usage: &Usage) -> Money {
    let Some(monthly) = billing.monthly.as_ref().filter(|_| !billing.by_token()) else { return Money::ZERO };
    let more = usage.total().0;
    let beyond = |tokens: u64| tokens.saturating_sub(included);
    let tokens = beyond(before.saturating_add(more)) - beyond(before);
    let (amount, per) = match (monthly.overage_per_1k_tokens, rates) {
        (Some(per_1k), _) => (per_1k, 1000),
        (None, Some(rates)) => (percent(rates.of_tokens(usage), billing.markup_percent), more.max(1)),
        (None, None) => return Money::ZERO,
    };
    // Rounded up: a budget rather ends early.
    let per = i128::from(per);
    Money::from_pico(amount.times(tokens).pico().saturating_add(per - 1).div_euclid(per))
}

fn percent(of: Money, percent: Option<u32>) -> Money {
    percent.map_or(of, |percent| Money::from_pico(of.times(u64::from(percent)).pico() / PERCENT))
}

// === impl Rates ===

impl Rates {
    /// The rates of a validated price. A class that has none of its own is charged as the one it is part of.
    pub fn of(price: &Price) -> Self {
        let per_token = |per_million: Money| per_million.per(PER).unwrap_or_default();
        let (input, output) = (
            per_token(price.input_per_1m_tokens.unwrap_or_default()),
            per_token(price.output_per_1m_tokens.unwrap_or_default()),
        );
        Self {
            input,
            cached: price.cached_input_per_1m_tokens.map_or(input, per_token),
            cache_write: price.cache_write_per_1m_tokens.map_or(input, per_token),
            audio_input: price.audio_input_per_1m_tokens.map_or(input, per_token),
            output,
            reasoning: price.reasoning_per_1m_tokens.map_or(output, per_token),
            audio_output: price.audio_output_per_1m_tokens.map_or(output, per_token),
            image: price.per_image.unwrap_or_default(),
            call: price.per_call.unwrap_or_default(),
            gpu_milli: price.per_gpu_second.and_then(|second| second.per(1000)).unwrap_or_default(),
        }
    }

    /// Whether anything has a price.
    fn any(&self) -> bool {
        self.any_of_tokens() || [self.image, self.call, self.gpu_milli].into_iter().any(Money::is_positive)
    }

    fn any_of_tokens(&self) -> bool {
        let Self { input, cached, cache_write, audio_input, output, reasoning, audio_output, .. } = *self;
        let classes = [input, cached, cache_write, audio_input, output, reasoning, audio_output];
        classes.into_iter().any(Money::is_positive)
    }

    fn of_all(&self, consumed: &Consumed<'_>) -> Money {
        let call = if consumed.answered { self.call } else { Money::ZERO };
        let images = self.image.times(u64::from(consumed.usage.images));
        self.of_tokens(consumed.usage) + images + call + self.gpu_milli.times(consumed.gpu_millis)
    }

    fn of_tokens(&self, usage: &Usage) -> Money {
        let split = Split::of(usage);
        self.input.times(split.input)
            + self.cached.times(split.cached)
            + self.cache_write.times(split.cache_write)
            + self.audio_input.times(split.audio_input)
            + self.output.times(split.output)
            + self.reasoning.times(split.reasoning)
            + self.audio_output.times(split.audio_output)
    }
}

// === impl Split ===

impl Split {
    /// Each token in one class. A backend may report parts that are larger than the whole: no part is believed beyond it.
    fn of(usage: &Usage) -> Self {
        let mut input = usage.input.0;
        let mut output = usage.output.0;
        let take = |from: &mut u64, part: u64| {
            let part = part.min(*from);
            *from -= part;
            part
        };
        let cached = take(&mut input, usage.cached.0);
        let cache_write = take(&mut input, usage.cache_write.0);
        let audio_input = take(&mut input, usage.audio_input.0);
        let audio_output = take(&mut output, usage.audio_output.0);
        let reasoning = take(&mut output, usage.reasoning.0);
        Self { input, cached, cache_write, audio_input, output, reasoning, audio_output }
    }
}

#[cfg(test)]
mod tests {
    use kernel::Tokens;
    use proptest::prelude::*;

    use super::*;

    fn price() -> Rates {
        let price: Price = serde_json::from_str(
            r#"{"model":"m","from":"2026-01-01","input_per_1m_tokens":"1","cached_input_per_1m_tokens":"0.1",
                "cache_write_per_1m_tokens":"1.25","audio_input_per_1m_tokens":"10","output_per_1m_tokens":"4",
                "reasoning_per_1m_tokens":"3","audio_output_per_1m_tokens":"20","per_image":"0.04",
                "per_call":"0.001","per_gpu_second":"0.002"}"#,
        )
        .unwrap();
        Rates::of(&price)
    }

    fn usage(counts: [u64; 7]) -> Usage {
        let [input, cached, cache_write, audio_input, output, reasoning, audio_output] = counts.map(Tokens);
        Usage { input, cached, cache_write, audio_input, output, reasoning, audio_output, ..Usage::default() }
    }

    fn cost(usage: &Usage, billing: &str) -> String {
        let billing: Billing = serde_json::from_str(billing).unwrap();
        rate(&Consumed { usage, gpu_millis: 0, answered: true, cached: false }, &billing, Some(&price())).to_string()
    }

    #[test]
    fn each_token_is_charged_once_by_its_class() {
        let check = |counts: [u64; 7], expected: &str| assert_eq!(cost(&usage(counts), "{}"), expected, "{counts:?}");
        check([0; 7], "0.001");
        check([1_000_000, 0, 0, 0, 0, 0, 0], "1.001");
        check([1_000_000, 400_000, 0, 0, 0, 0, 0], "0.641");
        check([1_000_000, 0, 200_000, 0, 0, 0, 0], "1.051");
        check([1_000_000, 100_000, 100_000, 100_000, 0, 0, 0], "1.836");
        check([0, 0, 0, 0, 1_000_000, 500_000, 100_000], "5.101");
        check([10, 1_000_000, 5, 5, 0, 0, 0], "0.001001");
        check([0, 7, 7, 7, 0, 9, 9], "0.001");
    }

    #[test]
    fn plans_decide_what_is_charged() {
        let usage = Usage { images: 2, ..usage([1_000_000, 0, 0, 0, 0, 0, 0]) };
        assert_eq!(cost(&usage, "{}"), "1.081");
        assert_eq!(cost(&usage, r#"{"markup_percent":120}"#), "1.2972");
        assert_eq!(cost(&usage, r#"{"per_call":"0.002"}"#), "0.002");
        assert_eq!(cost(&usage, r#"{"per_call":"0.002","per_token":true}"#), "1.083");
        assert_eq!(cost(&usage, r#"{"monthly":{"fee":"5"}}"#), "0");
        let free = Consumed { usage: &usage, gpu_millis: 1500, answered: false, cached: false };
        assert_eq!(rate(&free, &Billing::default(), Some(&price())).to_string(), "1.083", "no answer, but GPU time");
        let cached = Consumed { cached: true, answered: true, gpu_millis: 0, usage: &usage };
        let half = Billing { cache_percent: Some(50), ..Billing::default() };
        assert_eq!(rate(&cached, &half, Some(&price())).to_string(), "0.5405");
        assert_eq!(rate(&cached, &half, None), Money::ZERO);
    }

    #[test]
    fn only_what_has_no_price_in_any_way_is_free() {
        let check = |billing: &str, price: Option<&str>, measured: bool| {
            let billing: Billing = serde_json::from_str(billing).unwrap();
            let price = price.map(|part| format!(r#"{{"model":"m","from":"2026-01-01"{part}}}"#));
            let rates = price.map(|price| Rates::of(&serde_json::from_str(&price).unwrap()));
            chargeable(&billing, rates.as_ref(), measured)
        };
        let parts = ["input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output"];
        let tokens: Vec<String> = parts.iter().map(|part| format!(r#","{part}_per_1m_tokens":"1""#)).collect();
        for part in tokens.iter().map(String::as_str).chain([r#","per_image":"1""#, r#","per_gpu_second":"1""#]) {
            assert!(check("{}", Some(part), true) && !check("{}", Some(part), false), "{part}");
            assert!(!check(r#"{"markup_percent":0}"#, Some(part), true), "{part}");
            assert!(!check(r#"{"per_call":"0"}"#, Some(part), true), "{part}");
        }
        let call = Some(r#","per_call":"1""#);
        assert!(check("{}", call, true) && check("{}", call, false) && !check(r#"{"per_token":false}"#, call, true));
        assert!(!check("{}", None, true) && !check("{}", Some(""), true));
        assert!(check(r#"{"per_call":"1"}"#, None, false));
        let monthly = |rest: &str| format!(r#"{{"monthly":{{"fee":"5"{rest}}}}}"#);
        assert!(check(&monthly(r#","overage_per_1k_tokens":"1""#), None, true));
        assert!(check(&monthly(""), tokens.first().map(String::as_str), true));
        assert!(!check(&monthly(""), Some(r#","per_image":"1""#), true), "only tokens are beyond");
        assert!(!check(&monthly(r#","overage_per_1k_tokens":"0""#), tokens.first().map(String::as_str), true));
    }

    #[test]
    fn tokens_beyond_the_included_ones_count_at_once() {
        let billing: Billing =
            serde_json::from_str(r#"{"monthly":{"fee":"5","included_tokens":1000,"overage_per_1k_tokens":"0.004"}}"#)
                .unwrap();
        let check = |before: u64, more: u64, expected: &str| {
            let usage = usage([more, 0, 0, 0, 0, 0, 0]);
            assert_eq!(overage(&billing, None, (before, 1000), &usage).to_string(), expected, "{before} + {more}");
        };
        check(0, 1000, "0");
        check(900, 200, "0.0004");
        check(5000, 1, "0.000004");
        check(u64::MAX, u64::MAX, "0");
        let listed: Billing = serde_json::from_str(r#"{"monthly":{"fee":"5","included_tokens":1000}}"#).unwrap();
        let usage = usage([100, 0, 0, 0, 100, 0, 0]);
        assert_eq!(
            overage(&listed, Some(&price()), (900, 1000), &usage).to_string(),
            "0.00025",
            "half of the call's tokens"
        );
    }

    proptest! {
        #[test]
        fn no_report_costs_more_than_its_dearest_classes_and_parts_never_count_twice(counts: [u32; 7]) {
            let usage = usage(counts.map(u64::from));
            let split = Split::of(&usage);
            prop_assert_eq!(split.input + split.cached + split.cache_write + split.audio_input, usage.input.0);
            prop_assert_eq!(split.output + split.reasoning + split.audio_output, usage.output.0);
        }

        #[test]
        fn costs_add_up_exactly(a: [u32; 7], b: [u32; 7]) {
            // Only where no part is larger than its whole do two reports make one.
            let sane = |[i, c, w, s, o, r, v]: [u32; 7]| [
                u64::from(i) + u64::from(c) + u64::from(w) + u64::from(s), c.into(), w.into(), s.into(),
                u64::from(o) + u64::from(r) + u64::from(v), r.into(), v.into(),
            ];
            let (a, b) = (sane(a), sane(b));
            let both: [u64; 7] = std::array::from_fn(|nth| a[nth] + b[nth]);
            let rate = |counts| rate(
                &Consumed { usage: &usage(counts), gpu_millis: 0, answered: false, cached: false },
                &Billing::default(),
                Some(&price()),
            );
            prop_assert_eq!(rate(a) + rate(b), rate(both));
        }
    }
}
