//! The requests the bench sends: what a chat client sends, made once and then only copied to sockets.

use serde_json::json;

use crate::target::Target;

/// The model's name as clients say it. Sluice must translate it to [`UPSTREAM_MODEL`].
pub(crate) const MODEL: &str = "bench";

/// The model's name as the stub upstream would know it.
pub(crate) const UPSTREAM_MODEL: &str = "bench-org/Bench-7B-Instruct";

/// Size of a non-streaming request's body.
const BODY_BYTES: usize = 1024;

/// One kind of stream to ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamShape {
    pub(crate) chunks: u32,
    pub(crate) interval_ms: u64,
}

/// A non-streaming chat request to `target`: a body of 1 KB.
pub(crate) fn call(target: &Target) -> Vec<u8> {
    let body = |filler: &str| {
        json!({
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
                {"role": "user", "content": filler},
            ],
            "temperature": 0.7,
            "max_tokens": 256,
        })
        .to_string()
    };
    let filler = prose(BODY_BYTES.saturating_sub(body("").len()));
    whole(target, &target.call_path, &body(&filler))
}

/// A streaming chat request to `target`.
pub(crate) fn stream(target: &Target, shape: StreamShape) -> Vec<u8> {
    let body = json!({
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
            {"role": "user", "content": prose(200)},
        ],
        "stream": true,
        "max_tokens": shape.chunks,
        "x_interval_ms": shape.interval_ms,
    });
    whole(target, &target.stream_path, &body.to_string())
}

fn whole(target: &Target, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: sluice-bench\r\naccept: application/json\r\n\
         authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        target.address,
        target.key,
        body.len()
    )
    .into_bytes()
}

/// English-looking text of exactly `bytes` bytes.
pub(crate) fn prose(bytes: usize) -> String {
    "Please tell me in a few plain words how a river finds its way from the mountains to the sea. "
        .chars()
        .cycle()
        .take(bytes)
        .collect()
}
