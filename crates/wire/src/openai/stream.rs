//! Watching a streamed answer go by: usage, end mark, errors. Bytes are passed on as they came, except a
//! usage chunk the client never asked for.

use std::sync::LazyLock;

use bytes::Bytes;
use kernel::{Tokens, Usage};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{self, Answer};
use super::usage;
use crate::sse::{self, Framer, Verdict};

/// Follows one stream.
#[derive(Debug)]
pub struct Watch {
    framer: Framer,
    seen: Seen,
}

/// What has been seen of a stream so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the backend says it consumed.
    pub usage: Option<Usage>,
    /// Events that carried a piece of the answer.
    pub pieces: u64,
    /// Whether the end mark `[DONE]` has come.
    pub done: bool,
    /// Whether the last event that carried a piece gave a reason to stop.
    stopped: bool,
    /// The first error event: status, message.
    pub error: Option<(Option<u16>, String)>,
    strip_usage: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    object: Option<&'a str>,
}

/// Whether an event gives a reason to stop. Until its last piece a stream says `null` there, or nothing.
fn stops(data: &[u8]) -> bool {
    static REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
    let value = REASON.find(data).and_then(|at| data.get(at + b"\"finish_reason\"".len()..));
    let value = value.map(<[u8]>::trim_ascii_start).and_then(|rest| rest.strip_prefix(b":"));
    value.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\""))
}

/// Whether an event's first key says that it is an error: `{"error": …`, or `{"object": "error", …` as older vLLM.
fn may_be_error(data: &[u8]) -> bool {
    let inside = data.strip_prefix(b"{").map(<[u8]>::trim_ascii_start).unwrap_or_default();
    let object =
        || inside.strip_prefix(b"\"object\"").map(<[u8]>::trim_ascii_start).and_then(|rest| rest.strip_prefix(b":"));
    inside.starts_with(b"\"error\"") || object().is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"error\""))
}

impl Watch {
    /// A watch on a new stream; `strip_usage` takes a chunk out that holds usage and no choices.
    pub fn new(strip_usage: bool) -> Self {
        Self { framer: Framer::default(), seen: Seen { strip_usage, ..Seen::default() } }
    }

    /// Takes the next read; gives what to pass on, which may be nothing yet.
    pub fn feed(&mut self, read: Bytes) -> Bytes {
        let Self { framer, seen } = self;
        framer.feed(read, |event| seen.judge(event))
    }

    /// At the end: what is left without the empty line that ends an event. Some servers leave it out after their last.
    pub fn finish(&mut self) -> Bytes {
        let rest = self.framer.finish();
        if !rest.is_empty() {
            // Taking it out is out of the question: what follows it is the end.
            self.seen.judge(&rest);
        }
        rest
    }

    /// What has been seen so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Seen {
    /// Whether the answer came to an end of its own: an end mark, a usage report, or a reason to stop in its last piece.
    pub fn finished(&self) -> bool {
        self.done || self.usage.is_some() || self.stopped
    }

    /// What the stream consumed: as told, else as counted (one token per piece; the prompt unknown).
    pub fn usage_or_estimate(&self) -> Option<Usage> {
        let counted = || Usage { output: Tokens(self.pieces), estimated: true, ..Usage::default() };
        self.usage.or_else(|| (self.pieces > 0).then(counted))
    }

    fn judge(&mut self, event: &[u8]) -> Verdict {
        static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
        let Some(data) = sse::data(event) else { return Verdict::Keep };
        if data == b"[DONE]" {
            self.done = true;
            return Verdict::Keep;
        }
        // In JSON a quote inside a text is escaped, so `"usage"` can only be a key or a whole text.
        let value = USAGE.find(data).and_then(|at| data.get(at + b"\"usage\"".len()..)).map(<[u8]>::trim_ascii_start);
        let value = value.and_then(|rest| rest.strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
        let reports = value.is_some_and(|rest| rest.starts_with(b"{"));
        self.stopped = stops(data);
        if reports || self.pieces == 0 || may_be_error(data) {
            return self.look(data);
        }
        self.pieces += 1;
        Verdict::Keep
    }

    /// Parses one event; only the first, the last and errors come here.
    fn look(&mut self, data: &[u8]) -> Verdict {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.pieces += 1;
            return Verdict::Keep;
        };
        let told = chunk.error.map(RawValue::get).filter(|raw| *raw != "null");
        let whole = (chunk.object == Some("error")).then(|| std::str::from_utf8(data).unwrap_or_default());
        if let Some(raw) = told.or(whole)
            && let Answer::Disguised(status, message) = answer::disguised(raw)
        {
            self.error.get_or_insert((status, message));
            return Verdict::Keep;
        }
        let usage = chunk.usage.and_then(|raw| usage::read(raw.get()));
        self.usage = usage.or(self.usage);
        let empty = chunk.choices.is_none_or(|raw| raw.get().trim_matches(['[', ']']).trim().is_empty());
        if usage.is_some() && empty {
            return if self.strip_usage { Verdict::Drop } else { Verdict::Keep };
        }
        self.pieces += 1;
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n",
        ": comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\": {\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn run(strip: bool, stream: &str, cuts: &[usize]) -> (String, Watch) {
        let mut watch = Watch::new(strip);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let mut out = Vec::new();
        for pair in cuts.windows(2) {
            out.extend_from_slice(&watch.feed(Bytes::copy_from_slice(&stream.as_bytes()[pair[0]..pair[1]])));
        }
        out.extend_from_slice(&watch.finish());
        (String::from_utf8(out).unwrap(), watch)
    }

    #[test]
    fn usage_is_seen_and_stripped_only_when_not_asked_for() {
        let (kept, watch) = run(false, STREAM, &[]);
        assert_eq!(kept, STREAM);
        let (stripped, _) = run(true, STREAM, &[]);
        assert_eq!(
            stripped,
            STREAM.replace("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n", "")
        );
        let usage = watch.seen().usage.unwrap();
        assert_eq!(
            (usage.input, usage.output, watch.seen().done, watch.seen().pieces),
            (Tokens(3), Tokens(2), true, 3)
        );
    }

    #[test]
    fn usage_beside_choices_is_seen_and_stays() {
        let stream = "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
        let (out, watch) = run(true, stream, &[]);
        assert_eq!(out, stream);
        assert!(watch.seen().usage.is_some());
    }

    #[test]
    fn an_error_event_is_seen() {
        let (_, watch) = run(true, "data: {\"error\": {\"message\": \"boom\", \"code\": 503}}\n\n", &[]);
        assert_eq!(watch.seen().error, Some((Some(503), "boom".into())));
    }

    #[test]
    fn an_error_event_is_seen_in_every_shape_and_place() {
        for event in [
            r#"{ "error": {"message": "boom", "code": 503}}"#,
            r#"{"object": "error", "message": "boom", "code": 503}"#,
        ] {
            let (_, watch) = run(true, &format!("data: {{\"choices\":[{{}}]}}\n\ndata: {event}\n\n"), &[]);
            assert_eq!(watch.seen().error, Some((Some(503), "boom".into())), "{event}");
        }
    }

    #[test]
    fn a_stream_is_finished_by_its_mark_its_usage_or_its_last_piece() {
        for (stream, finished) in [
            ("data: {\"choices\":[{}]}\n\n", false),
            ("data: {\"choices\":[{\"finish_reason\":null}]}\n\n", false),
            ("data: {\"choices\":[{\"finish_reason\": \"stop\"}]}\n\n", true),
            ("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[{}]}\n\n", false),
            ("data: {\"choices\":[{}]}\n\ndata: [DONE]\n", true),
        ] {
            assert_eq!(run(true, stream, &[]).1.seen().finished(), finished, "{stream}");
        }
    }

    #[test]
    fn malformed_events_pass() {
        let stream = "data: {not json\n\nnonsense\n\ndata: {\"error\n\n";
        assert_eq!(run(true, stream, &[]).0, stream);
    }

    #[test]
    fn a_stream_without_usage_is_estimated_from_its_pieces() {
        let (_, watch) = run(true, "data: {\"choices\":[{}]}\n\ndata: {\"choices\":[{}]}\n\n", &[]);
        let usage = watch.seen().usage_or_estimate().unwrap();
        assert!(usage.estimated && usage.output == Tokens(2));
    }

    proptest! {
        #[test]
        fn for_any_split_into_reads_the_client_receives_the_same(cuts in proptest::collection::vec(any::<usize>(), 0..20), strip: bool, crlf: bool) {
            let stream = if crlf { STREAM.replace('\n', "\r\n") } else { STREAM.to_owned() };
            let (whole, _) = run(strip, &stream, &[]);
            let (split, watch) = run(strip, &stream, &cuts);
            prop_assert_eq!(split, whole);
            prop_assert!(watch.seen().done && watch.seen().usage.is_some());
        }
    }
}
