//! What the stub upstream says, made once as finished bytes.

use serde_json::{Value, json};

use crate::client::transcript::{NUMBER_DIGITS, NUMBER_MARK};
use crate::request::{UPSTREAM_MODEL, prose};

/// Length of the answer's text, chosen so that the whole body is about 1.5 KB.
const ANSWER_TEXT_BYTES: usize = 1130;

/// Every answer that does not vary.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) completion: Vec<u8>,
    pub(crate) health: Vec<u8>,
    pub(crate) models: Vec<u8>,
    pub(crate) unknown: Vec<u8>,
    pub(crate) bad: Vec<u8>,
    pub(crate) stream_head: Vec<u8>,
    pub(crate) stream_end: Vec<u8>,
    pub(crate) stream_end_with_usage: Vec<u8>,
}

/// One chunk of a stream, framed for the wire, whose number can be changed in place.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    number_at: usize,
}

// === impl Answers ===

impl Answers {
    pub(crate) fn new() -> Self {
        let models = json!({"object": "list", "data": [{"id": UPSTREAM_MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "bench"}]});
        let bad = json!({"error": {"message": "not a chat completion request", "type": "invalid_request_error", "param": null, "code": null}});
        let end = [framed("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat();
        Self {
            completion: answer("200 OK", &completion().to_string()),
            health: answer("200 OK", "{\"status\":\"ok\"}"),
            models: answer("200 OK", &models.to_string()),
            unknown: answer("404 Not Found", "{\"detail\":\"Not Found\"}"),
            bad: answer("400 Bad Request", &bad.to_string()),
            stream_head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                cache-control: no-cache\r\nserver: stub\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
            stream_end_with_usage: [framed(&event(&usage_chunk())), end.clone()].concat(),
            stream_end: end,
        }
    }
}

fn completion() -> Value {
    json!({
        "id": "chatcmpl-5f2c1d7e9b8a4c3d8e6f7a1b2c3d4e5f",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": UPSTREAM_MODEL,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": prose(ANSWER_TEXT_BYTES), "tool_calls": []},
            "logprobs": null,
            "finish_reason": "stop",
            "stop_reason": null,
        }],
        "usage": {"prompt_tokens": 231, "total_tokens": 487, "completion_tokens": 256, "prompt_tokens_details": null},
        "prompt_logprobs": null,
    })
}

fn usage_chunk() -> Value {
    json!({
        "id": "chatcmpl-5f2c1d7e9b8a4c3d8e6f7a1b2c3d4e5f",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": UPSTREAM_MODEL,
        "choices": [],
        "usage": {"prompt_tokens": 231, "total_tokens": 487, "completion_tokens": 256},
    })
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nserver: stub\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn framed(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

// === impl Chunk ===

impl Chunk {
    pub(crate) fn new() -> Self {
        let content = format!(" w{}", "0".repeat(NUMBER_DIGITS));
        let bytes = framed(&event(&json!({
            "id": "chatcmpl-5f2c1d7e9b8a4c3d8e6f7a1b2c3d4e5f",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": UPSTREAM_MODEL,
            "choices": [{"index": 0, "delta": {"content": content}, "logprobs": null, "finish_reason": null}],
        })));
        let number_at = memchr::memmem::find(&bytes, NUMBER_MARK).map_or(bytes.len(), |mark| mark + NUMBER_MARK.len());
        Self { bytes, number_at }
    }

    /// The chunk with this number.
    pub(crate) fn numbered(&mut self, number: u32) -> &[u8] {
        let digits = self.bytes.iter_mut().skip(self.number_at).take(NUMBER_DIGITS);
        let mut left = number;
        for digit in digits.rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
        }
        &self.bytes
    }
}
