//! The request headers that change how one call is answered.

use std::str::FromStr;

use http::StatusCode;

use crate::fault::Fault;
use crate::refusal::Refusal;
use crate::settings::{MAX_OUTPUT, MAX_WAIT_MS, SPEED_RANGE, is_speed};

/// Each header the simulator obeys, and what it does.
pub const HEADERS: [(&str, &str); 8] = [
    (TTFT_MS, "time to the first token, in milliseconds"),
    (TOKENS_PER_SECOND, "speed after the first token; 0 means no wait between tokens"),
    (OUTPUT_TOKENS, "length of the answer, unless the request's max_tokens is smaller"),
    (STATUS, "answers with this status and an error body (200 too: an error wrapped in a success)"),
    (RETRY_AFTER, "the retry-after of an error answer, in seconds"),
    (HANG, "head: never answers; stream: answers the head and a part of the body, then falls silent"),
    (CUT_AFTER, "cuts the connection after this many chunks, inside the next (a JSON answer is one chunk)"),
    (SEED, "seed of this call's text, vectors, timing and faults, whatever calls came before"),
];

const TTFT_MS: &str = "x-sim-ttft-ms";
const TOKENS_PER_SECOND: &str = "x-sim-tokens-per-second";
const OUTPUT_TOKENS: &str = "x-sim-output-tokens";
const STATUS: &str = "x-sim-status";
const RETRY_AFTER: &str = "x-sim-retry-after";
const HANG: &str = "x-sim-hang";
const CUT_AFTER: &str = "x-sim-cut-after";
const SEED: &str = "x-sim-seed";

/// What the headers of one request ask for.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) ttft_ms: Option<u64>,
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) fault: Option<Fault>,
    pub(crate) seed: Option<u64>,
}

impl Overrides {
    /// Reads the headers through a look-up by lower-case name.
    pub(crate) fn read<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Result<Self, Refusal> {
        let read = Reader(header);
        let hang = read.one(HANG, "head or stream", |value| match value {
            "head" => Some(Fault::HangHead),
            "stream" => Some(Fault::HangBody),
            _ => None,
        })?;
        let cut = read.number(CUT_AFTER, 0, u64::MAX)?.map(Fault::CutAfter);
        if hang.is_some() && cut.is_some() {
            return Err(Refusal::invalid(CUT_AFTER, format!("{CUT_AFTER} cannot be combined with {HANG}")));
        }
        Ok(Self {
            ttft_ms: read.number(TTFT_MS, 0, MAX_WAIT_MS)?,
            tokens_per_second: read.one(TOKENS_PER_SECOND, SPEED_RANGE, |value| {
                f64::from_str(value).ok().filter(|speed| is_speed(*speed))
            })?,
            output_tokens: read.number(OUTPUT_TOKENS, 1, MAX_OUTPUT)?,
            status: read.number(STATUS, 200, 599)?.and_then(|code| StatusCode::from_u16(code as u16).ok()),
            retry_after: read.number(RETRY_AFTER, 0, MAX_WAIT_MS / 1000)?,
            fault: hang.or(cut),
            seed: read.number(SEED, 0, u64::MAX)?,
        })
    }
}

struct Reader<F>(F);

impl<'h, F: Fn(&str) -> Option<&'h str>> Reader<F> {
    fn one<T>(&self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Refusal> {
        let Some(value) = (self.0)(name) else { return Ok(None) };
        match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Refusal::invalid(name, format!("the header {name} must be {expected}"))),
        }
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let expected = format!("a whole number from {least} to {most}");
        self.one(name, &expected, |value| value.parse().ok().filter(|number| (least..=most).contains(number)))
    }
}
