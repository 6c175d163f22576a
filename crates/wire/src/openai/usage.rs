//! What backends say that a call consumed, in the words of several makers, as classes that nest.

use kernel::{Tokens, Usage};
use serde_json::Value;

use crate::json::scan::{self, GivenUp, Members};

/// What a report says of the parts of what was read or written.
#[derive(Default)]
struct Details {
    cached_tokens: Option<u64>,
    /// What of the cached ones was sound.
    cached_audio_tokens: Option<u64>,
    /// Wire: servers that pass Anthropic's caching on report here what was written to it; OpenRouter in other words.
    cache_creation_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

/// What a report says.
#[derive(Default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    /// OpenAI's newer endpoints say the same in these words.
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    /// Wire: LiteLLM and OpenRouter report Anthropic's cache in Anthropic's own words, beside or in place of the details.
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    /// Wire: Anthropic splits what was written to its cache by how long it is kept: the sum.
    cache_creation: Option<u64>,
    /// Wire: Volcengine and, in other words, DashScope count the images that they made.
    generated_images: Option<u64>,
}

/// Bound: no model reads or writes as much in one call. What says so is believed as far as it can be.
const TOKENS_MAX: u64 = 1_000_000_000;
/// Beyond it a number with a fraction is no whole number any more.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl Counts {
    /// What nearly every report looks like.
    fn scanned(mut members: Members<'_>) -> Result<Self, GivenUp> {
        let mut counts = Self::default();
        while let Some((name, raw)) = members.next()? {
            match name {
                "prompt_tokens" => once(&mut counts.prompt_tokens, number(raw)?)?,
                "completion_tokens" => once(&mut counts.completion_tokens, number(raw)?)?,
                "prompt_tokens_details" => once(&mut counts.prompt_tokens_details, Details::scanned(raw)?)?,
                "completion_tokens_details" => once(&mut counts.completion_tokens_details, Details::scanned(raw)?)?,
                "input_tokens" => once(&mut counts.input_tokens, number(raw)?)?,
                "output_tokens" => once(&mut counts.output_tokens, number(raw)?)?,
                "input_tokens_details" | "input_token_details" => {
                    once(&mut counts.input_tokens_details, Details::scanned(raw)?)?;
                }
                "output_tokens_details" | "output_token_details" => {
                    once(&mut counts.output_tokens_details, Details::scanned(raw)?)?;
                }
                "cache_creation_input_tokens" => once(&mut counts.cache_creation_input_tokens, number(raw)?)?,
                "cache_read_input_tokens" => once(&mut counts.cache_read_input_tokens, number(raw)?)?,
                "generated_images" | "image_count" => once(&mut counts.generated_images, number(raw)?)?,
                // Rare enough for a parser.
                "cache_creation" if raw != "null" => return Err(GivenUp),
                _ => {}
            }
        }
        Ok(counts)
    }
}

impl Counts {
    /// Whatever a parser can read. A total that is no count spoils the report; a part that is none is left out, and so is a
    /// total in words that another one was given in already.
    fn parsed(report: &Value) -> Option<Self> {
        let report = report.as_object()?;
        let total = |name: &str, known: Option<u64>| match report.get(name) {
            None | Some(Value::Null) => Some(None),
            Some(value) => count(value).map(Some).or(known.map(|_| None)),
        };
        let part = |names: &[&str]| names.iter().find_map(|name| count(report.get(*name)?));
        let details = |names: &[&str]| names.iter().find_map(|name| Details::parsed(report.get(*name)?));
        let prompt_tokens = total("prompt_tokens", None)?;
        let completion_tokens = total("completion_tokens", None)?;
        Some(Self {
            prompt_tokens,
            completion_tokens,
            prompt_tokens_details: details(&["prompt_tokens_details"]),
            completion_tokens_details: details(&["completion_tokens_details"]),
            input_tokens: total("input_tokens", prompt_tokens)?,
            output_tokens: total("output_tokens", completion_tokens)?,
            input_tokens_details: details(&["input_tokens_details", "input_token_details"]),
            output_tokens_details: details(&["output_tokens_details", "output_token_details"]),
            cache_creation_input_tokens: part(&["cache_creation_input_tokens"]),
            cache_read_input_tokens: part(&["cache_read_input_tokens"]),
            cache_creation: report.get("cache_creation").and_then(Value::as_object).map(|split| {
                let of = |name| split.get(name).and_then(count).unwrap_or(0);
                of("ephemeral_5m_input_tokens").saturating_add(of("ephemeral_1h_input_tokens"))
            }),
            generated_images: part(&["generated_images", "image_count"]),
        })
    }
}

impl Details {
    fn parsed(details: &Value) -> Option<Self> {
        let details = details.as_object()?;
        let part = |names: &[&str]| names.iter().find_map(|name| count(details.get(*name)?));
        Some(Self {
            cached_tokens: part(&["cached_tokens"]),
            cached_audio_tokens: details
                .get("cached_tokens_details")
                .and_then(|cached| cached.get("audio_tokens"))
                .and_then(count),
            cache_creation_tokens: part(&["cache_creation_tokens", "cache_write_tokens"]),
            reasoning_tokens: part(&["reasoning_tokens"]),
            audio_tokens: part(&["audio_tokens"]),
        })
    }

    fn scanned(raw: &str) -> Result<Option<Self>, GivenUp> {
        if raw == "null" {
            return Ok(None);
        }
        let (mut members, mut details) = (scan::object(raw)?, Self::default());
        while let Some((name, raw)) = members.next()? {
            match name {
                "cached_tokens" => once(&mut details.cached_tokens, number(raw)?)?,
                "cached_tokens_details" if raw != "null" => return Err(GivenUp),
                "cache_creation_tokens" | "cache_write_tokens" => {
                    once(&mut details.cache_creation_tokens, number(raw)?)?
                }
                "reasoning_tokens" => once(&mut details.reasoning_tokens, number(raw)?)?,
                "audio_tokens" => once(&mut details.audio_tokens, number(raw)?)?,
                _ => {}
            }
        }
        Ok(Some(details))
    }
}

/// Sets a field that has not been set: what is said twice is left to a parser.
fn once<T>(field: &mut Option<T>, value: Option<T>) -> Result<(), GivenUp> {
    if field.is_some() {
        return Err(GivenUp);
    }
    *field = value;
    Ok(())
}

fn number(raw: &str) -> Result<Option<u64>, GivenUp> {
    if raw == "null" { Ok(None) } else { raw.parse().map(Some).map_err(|_| GivenUp) }
}

/// A count, however it is written: some servers write whole numbers with a fraction, or as text.
fn count(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..WHOLE_MAX).contains(number);
    let number = || value.as_f64().filter(whole).map(|number| number as u64);
    let text = || value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or_else(number).or_else(text)
}

/// Reads the usage object that a text begins with, if it says how much was read.
pub(super) fn leading(text: &str) -> Option<Usage> {
    let counts = scan::leading_object(text).and_then(Counts::scanned).or_else(|_| {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        values.next().and_then(Result::ok).and_then(|report| Counts::parsed(&report)).ok_or(GivenUp)
    });
    let counts = counts.ok()?;
    counts.prompt_tokens.or(counts.input_tokens)?;
    counted(counts)
}

/// Reads a usage object; `None` for `null` or anything without a token count.
pub(super) fn read(raw: &str) -> Option<Usage> {
    let parsed = || serde_json::from_str(raw).ok().and_then(|report| Counts::parsed(&report));
    counted(scan::object(raw).and_then(Counts::scanned).ok().or_else(parsed)?)
}

/// One report, whose parts are never more than what they are part of and in no class twice.
fn counted(counts: Counts) -> Option<Usage> {
    // Servers that know both words may leave one of them at zero.
    let told = |older: Option<u64>, newer: Option<u64>| older.filter(|count| *count > 0).or(newer).or(older);
    let input = told(counts.prompt_tokens, counts.input_tokens);
    let output = told(counts.completion_tokens, counts.output_tokens);
    input.or(output).or(counts.generated_images)?;
    // Anthropic's own words leave what is cached out of what is read; all others count it in.
    let apart = counts.prompt_tokens.is_none() && counts.input_tokens_details.is_none();
    let read = counts.prompt_tokens_details.or(counts.input_tokens_details).unwrap_or_default();
    let written = counts.completion_tokens_details.or(counts.output_tokens_details).unwrap_or_default();
    let cached = read.cached_tokens.or(counts.cache_read_input_tokens).unwrap_or(0);
    let cache_write = read.cache_creation_tokens.or(counts.cache_creation_input_tokens);
    let cache_write = cache_write.or(counts.cache_creation).unwrap_or(0);
    let beside = if apart { cached.saturating_add(cache_write) } else { 0 };
    // Sound that was found in the cache is charged as cached.
    let cached_sound = read.cached_audio_tokens.unwrap_or(0);
    let tokens = |count: u64| Tokens(count.min(TOKENS_MAX));
    Some(Usage {
        input: tokens(input.unwrap_or(0).saturating_add(beside)),
        cached: tokens(cached),
        cache_write: tokens(cache_write),
        audio_input: tokens(read.audio_tokens.unwrap_or(0).saturating_sub(cached_sound)),
        output: tokens(output.unwrap_or(0)),
        reasoning: tokens(written.reasoning_tokens.unwrap_or(0)),
        audio_output: tokens(written.audio_tokens.unwrap_or(0)),
        images: u32::try_from(counts.generated_images.unwrap_or(0)).unwrap_or(u32::MAX),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::answer::{self, Answer};

    /// Input, cached, written to a cache, sound read, output, thought, sound spoken, images.
    fn classes(raw: &str) -> [u64; 8] {
        let Answer::Good(Some(found)) = answer::read(format!(r#"{{"usage":{raw}}}"#).as_bytes()) else {
            panic!("{raw}")
        };
        assert_eq!(read(raw), Some(found), "a stream's report reads the same: {raw}");
        let Usage { input, cached, cache_write, audio_input, output, reasoning, audio_output, images, .. } = found;
        let tokens = [input, cached, cache_write, audio_input, output, reasoning, audio_output].map(|tokens| tokens.0);
        let [a, b, c, d, e, f, g] = tokens;
        [a, b, c, d, e, f, g, u64::from(images)]
    }

    #[test]
    fn newer_words_for_the_same_classes_are_read() {
        let check = |raw: &str, expected: [u64; 8]| assert_eq!(classes(raw), expected, "{raw}");
        let newer = r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":10,"audio_tokens":20,"image_tokens":30},
            "output_tokens":50,"output_tokens_details":{"reasoning_tokens":5,"audio_tokens":6,"image_tokens":7},"total_tokens":150}"#;
        check(newer, [100, 10, 0, 20, 50, 5, 6, 0]);
        let heard = r#"{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45}"#;
        check(heard, [14, 0, 0, 14, 45, 0, 0, 0]);
        check(
            r#"{"prompt_tokens":9,"input_tokens":7,"completion_tokens":3,"output_tokens":2}"#,
            [9, 0, 0, 0, 3, 0, 0, 0],
        );
        check(r#"{"input_tokens":null,"output_tokens":3,"input_tokens_details":null}"#, [0, 0, 0, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn sound_found_in_the_cache_is_cached_and_no_sound_beside() {
        let raw = r#"{"prompt_tokens":100,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":50,"audio_tokens":60,
            "cached_tokens_details":{"text_tokens":0,"audio_tokens":50}}}"#;
        assert_eq!(classes(raw), [100, 50, 0, 10, 1, 0, 0, 0]);
    }

    #[test]
    fn what_anthropic_counts_beside_the_input_is_part_of_ours() {
        let own = r#"{"input_tokens":10,"cache_creation_input_tokens":30,"cache_read_input_tokens":20,"output_tokens":5,
            "cache_creation":{"ephemeral_5m_input_tokens":25,"ephemeral_1h_input_tokens":5}}"#;
        assert_eq!(classes(own), [60, 20, 30, 0, 5, 0, 0, 0]);
        let split = r#"{"input_tokens":10,"output_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":25,"ephemeral_1h_input_tokens":5}}"#;
        assert_eq!(classes(split), [40, 0, 30, 0, 5, 0, 0, 0]);
        let passed_on = r#"{"prompt_tokens":60,"completion_tokens":5,"cache_creation_input_tokens":30,"cache_read_input_tokens":20}"#;
        assert_eq!(classes(passed_on), [60, 20, 30, 0, 5, 0, 0, 0]);
        let routed = r#"{"prompt_tokens":60,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":20,"cache_write_tokens":30}}"#;
        assert_eq!(classes(routed), [60, 20, 30, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn images_made_are_counted_where_the_backend_counts_them() {
        assert_eq!(classes(r#"{"prompt_tokens":1,"completion_tokens":2,"generated_images":3}"#)[7], 3);
        assert_eq!(classes(r#"{"image_count":4}"#), [0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(read("{}"), None);
    }

    #[test]
    fn counts_that_are_no_whole_numbers_are_left_to_a_parser() {
        assert_eq!(read(r#"{"prompt_tokens":1.5}"#), None);
        assert_eq!(read(r#"{"prompt_tokens":-1,"completion_tokens":2}"#), None);
        assert_eq!(read(r#"{"prompt_tokens":1.0,"completion_tokens":"2"}"#).unwrap().total(), Tokens(3));
        assert_eq!(read(r#"{"prompt_tokens":1,"prompt_tokens":2}"#).unwrap().input, Tokens(2), "the last one counts");
        assert_eq!(read(r#"{"prompt_tokens":"x"}"#), None);
        assert_eq!(read(r#"{"prompt_tokens":1e300}"#), None);
        let usage = read(r#"{"prompt_tokens":null,"completion_tokens":2,"prompt_tokens_details":null}"#).unwrap();
        assert_eq!((usage.input, usage.output), (Tokens(0), Tokens(2)));
    }

    #[test]
    fn a_part_that_is_odd_is_left_out_and_the_rest_is_believed() {
        let check = |more: &str, expected: [u64; 8]| {
            assert_eq!(
                classes(&format!(r#"{{"prompt_tokens":1000,"completion_tokens":5,{more}}}"#)),
                expected,
                "{more}"
            );
        };
        let cached = [1000, 900, 0, 0, 5, 0, 0, 0];
        let plain = [1000, 0, 0, 0, 5, 0, 0, 0];
        check(
            r#""prompt_tokens_details":{"cached_tokens":900,"cache_creation_tokens":0,"cache_write_tokens":null}"#,
            cached,
        );
        check(r#""prompt_tokens_details":{"cached_tokens":900,"cached_tokens_details":[]}"#, cached);
        check(
            r#""prompt_tokens_details":{"cached_tokens":900,"cache_creation_tokens":5,"cache_write_tokens":5}"#,
            [1000, 900, 5, 0, 5, 0, 0, 0],
        );
        for odd in [
            r#""cache_creation":0"#,
            r#""cache_creation":[]"#,
            r#""input_tokens":"many""#,
            r#""generated_images":{}"#,
            r#""image_count":-1"#,
            r#""prompt_tokens_details":[]"#,
            r#""prompt_tokens_details":{"cached_tokens":-3}"#,
        ] {
            check(odd, plain);
        }
        check(r#""output_tokens_details":{"reasoning_tokens":1.0}"#, [1000, 0, 0, 0, 5, 1, 0, 0]);
        let zeros = r#"{"prompt_tokens":0,"completion_tokens":0,"input_tokens":10,"output_tokens":5}"#;
        assert_eq!(classes(zeros), [10, 0, 0, 0, 5, 0, 0, 0]);
        let absurd = r#"{"prompt_tokens":1,"completion_tokens":9000000000000000000}"#;
        assert_eq!(read(absurd).unwrap().output, Tokens(TOKENS_MAX));
    }
}
