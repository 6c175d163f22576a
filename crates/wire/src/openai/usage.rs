//! What backends say that a call consumed, in the words of several makers, as classes that nest.

use kernel::{Tokens, Usage};
use serde::Deserialize;

use crate::json::scan::{self, GivenUp, Members};

#[derive(Deserialize, Default)]
struct Details {
    cached_tokens: Option<u64>,
    /// What of the cached ones was sound.
    cached_tokens_details: Option<Cached>,
    /// Wire: servers that pass Anthropic's caching on report here what was written to it; OpenRouter in other words.
    #[serde(alias = "cache_write_tokens")]
    cache_creation_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Cached {
    audio_tokens: Option<u64>,
}

/// Wire: Anthropic splits what was written to its cache by how long it is kept.
#[derive(Deserialize, Default)]
struct Written {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    /// OpenAI's newer endpoints say the same in these words.
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    #[serde(alias = "input_token_details")]
    input_tokens_details: Option<Details>,
    #[serde(alias = "output_token_details")]
    output_tokens_details: Option<Details>,
    /// Wire: LiteLLM and OpenRouter report Anthropic's cache in Anthropic's own words, beside or in place of the details.
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation: Option<Written>,
    /// Wire: Volcengine and, in other words, DashScope count the images that they made.
    #[serde(alias = "image_count")]
    generated_images: Option<u64>,
}

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

impl Details {
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

/// Reads the usage object that a text begins with, if it says how much was read.
pub(super) fn leading(text: &str) -> Option<Usage> {
    let parsed = |_| Counts::deserialize(&mut serde_json::Deserializer::from_str(text));
    let counts = scan::leading_object(text).and_then(Counts::scanned).or_else(parsed).ok()?;
    counts.prompt_tokens.or(counts.input_tokens)?;
    counted(counts)
}

/// Reads a usage object; `None` for `null` or anything without a token count.
pub(super) fn read(raw: &str) -> Option<Usage> {
    counted(scan::object(raw).and_then(Counts::scanned).or_else(|_| serde_json::from_str(raw)).ok()?)
}

/// One report, whose parts are never more than what they are part of and in no class twice.
fn counted(counts: Counts) -> Option<Usage> {
    let (input, output) =
        (counts.prompt_tokens.or(counts.input_tokens), counts.completion_tokens.or(counts.output_tokens));
    input.or(output).or(counts.generated_images)?;
    // Anthropic's own words leave what is cached out of what is read; all others count it in.
    let apart = counts.prompt_tokens.is_none() && counts.input_tokens_details.is_none();
    let read = counts.prompt_tokens_details.or(counts.input_tokens_details).unwrap_or_default();
    let written = counts.completion_tokens_details.or(counts.output_tokens_details).unwrap_or_default();
    let split = counts.cache_creation.map(|split| {
        let [short, long] =
            [split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens].map(Option::unwrap_or_default);
        short.saturating_add(long)
    });
    let cached = read.cached_tokens.or(counts.cache_read_input_tokens).unwrap_or(0);
    let cache_write = read.cache_creation_tokens.or(counts.cache_creation_input_tokens).or(split).unwrap_or(0);
    let beside = if apart { cached.saturating_add(cache_write) } else { 0 };
    // Sound that was found in the cache is charged as cached.
    let cached_sound = read.cached_tokens_details.and_then(|of| of.audio_tokens).unwrap_or(0);
    Some(Usage {
        input: Tokens(input.unwrap_or(0).saturating_add(beside)),
        cached: Tokens(cached),
        cache_write: Tokens(cache_write),
        audio_input: Tokens(read.audio_tokens.unwrap_or(0).saturating_sub(cached_sound)),
        output: Tokens(output.unwrap_or(0)),
        reasoning: Tokens(written.reasoning_tokens.unwrap_or(0)),
        audio_output: Tokens(written.audio_tokens.unwrap_or(0)),
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
        assert_eq!(read(r#"{"prompt_tokens":1,"prompt_tokens":2}"#), None);
        let usage = read(r#"{"prompt_tokens":null,"completion_tokens":2,"prompt_tokens_details":null}"#).unwrap();
        assert_eq!((usage.input, usage.output), (Tokens(0), Tokens(2)));
    }
}
