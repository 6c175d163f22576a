//! Bodies as an OpenAI-compatible model server writes them, the same bytes every time.

use serde_json::json;

/// A whole chat completion with usage 3 + 2.
#[must_use]
pub fn completion(model: &str, content: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": model,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 },
    })
    .to_string()
}

/// One chunk of a streamed chat completion.
#[must_use]
pub fn delta(model: &str, content: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
        "choices": [{ "index": 0, "delta": { "content": content }, "finish_reason": null }],
    })
    .to_string()
}

/// The last chunk of a stream whose client asked for usage: no choices, only the counts.
#[must_use]
pub fn usage(model: &str, prompt_tokens: u32, completion_tokens: u32) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
        "choices": [],
        "usage": {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    })
    .to_string()
}

/// An error in the OpenAI shape.
#[must_use]
pub fn openai_error(message: &str, kind: &str, code: &str) -> String {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } }).to_string()
}
