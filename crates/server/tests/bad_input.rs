//! What no well-meaning client sends, and what it gets for it: the exact status and the exact body.
//!
//! A case that differs is printed as it was answered, all of them at once, so that a change of words is
//! seen as one list.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Answer, Ended, Script, Sluice, Upstream, Wire, completion, eventually, post, request, request_bytes};

const CHAT: &str = "/v1/chat/completions";
const GOOD: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const WITHIN: Duration = Duration::from_secs(20);
const BODY_MAX: usize = 32 << 20;

/// What must come back.
enum Expected {
    /// An error in the OpenAI shape.
    Error { status: u16, param: Option<&'static str>, code: &'static str, message: &'static str },
    /// No HTTP that could be answered in a dialect: this status and no body.
    Bare(u16),
}

/// Every error of this file is the caller's.
const TYPE: &str = "invalid_request_error";

/// What is said to a body with two lengths.
fn twice() -> Expected {
    invalid(None, "The request has both `Transfer-Encoding` and `Content-Length`: send one of them.")
}

/// Cases and what was wrong with them.
#[derive(Default)]
struct Table(String);

impl Table {
    fn check(&mut self, name: &str, answer: Result<Answer, Ended>, expected: &Expected) {
        let got = match &answer {
            Ok(answer) => describe(answer),
            Err(ended) => format!("no answer: {ended:?}"),
        };
        let wanted = match expected {
            Expected::Bare(status) => format!("{status} complete, without a body"),
            Expected::Error { status, param, code, message } => {
                let body = json!({ "error": { "message": message, "type": TYPE, "param": param, "code": code } });
                format!("{status} complete, application/json {body}")
            }
        };
        if got != wanted {
            // Writing to a string cannot fail.
            let _ = write!(self.0, "\n{name}\n  wanted {wanted}\n  got    {got}");
        }
    }

    fn done(self) {
        assert!(self.0.is_empty(), "{}", self.0);
    }
}

fn describe(answer: &Answer) -> String {
    let ended = if answer.is_complete() { "complete".to_owned() } else { format!("{:?}", answer.ended) };
    if answer.body.is_empty() {
        return format!("{} {ended}, without a body", answer.status());
    }
    let kind = answer.header("content-type").unwrap_or("no content-type");
    // Read and written again, so that white space does not count and everything else does.
    let body = serde_json::from_slice::<Value>(&answer.body).map_or_else(|_| answer.text(), |json| json.to_string());
    format!("{} {ended}, {kind} {body}", answer.status())
}

const fn invalid(param: Option<&'static str>, message: &'static str) -> Expected {
    Expected::Error { status: 400, param, code: "invalid_request", message }
}

fn config(upstream: &Upstream) -> String {
    format!("auth: none\nmodels:\n  - {{ model_name: m, endpoint: \"{}\" }}\n", upstream.url())
}

async fn start() -> (Upstream, Sluice) {
    let upstream = Upstream::start(Script::json(200, completion("m", "hello")));
    let sluice = Sluice::start(config(&upstream)).await;
    (upstream, sluice)
}

/// Sends exactly these bytes on a connection of their own.
async fn raw(sluice: &Sluice, bytes: impl AsRef<[u8]>) -> Result<Answer, Ended> {
    let mut wire = Wire::connect(&sluice.url("")).await.map_err(|_| Ended::Closed)?;
    wire.exchange(bytes, WITHIN).await
}

/// After all that was thrown at it, the server answers a good call.
async fn still_answers(sluice: &Sluice) {
    let answer = post(&sluice.url(CHAT), &[], GOOD).await;
    assert_eq!((answer.status(), answer.text()), (200, completion("m", "hello")));
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused_with_what_to_mend() {
    let (upstream, sluice) = start().await;
    let cases: &[(&str, &[u8], Expected)] = &[
        ("not JSON", b"hello", invalid(None, "The request body is not valid JSON: expected value at line 1 column 1.")),
        (
            "nothing",
            b"",
            invalid(None, "The request body is not valid JSON: EOF while parsing a value at line 1 column 0."),
        ),
        ("an array", b"[1]", invalid(None, "The request body must be a JSON object, like {\"model\": \u{2026}}.")),
        (
            "cut off",
            br#"{"model":"m","#,
            invalid(None, "The request body is not valid JSON: EOF while parsing a value at line 1 column 13."),
        ),
        (
            "no model",
            br#"{"messages":[]}"#,
            invalid(Some("model"), "`model` is missing: name the model to use; GET /v1/models lists them."),
        ),
        (
            "an empty model",
            br#"{"model":"","messages":[]}"#,
            invalid(Some("model"), "`model` is empty: name the model to use; GET /v1/models lists them."),
        ),
        (
            "a model that is a number",
            br#"{"model":5,"messages":[]}"#,
            invalid(Some("model"), "`model` must be a text."),
        ),
        (
            "no messages",
            br#"{"model":"m"}"#,
            invalid(Some("messages"), "`messages` is missing: send an array of messages."),
        ),
        (
            "messages that are a text",
            br#"{"model":"m","messages":"x"}"#,
            invalid(Some("messages"), "`messages` must be an array of messages."),
        ),
        (
            "a stream that is a text",
            br#"{"model":"m","messages":[],"stream":"yes"}"#,
            invalid(Some("stream"), "`stream` must be true or false."),
        ),
        // What admits one model and calls another must not exist.
        (
            "the model twice",
            br#"{"model":"m","model":"n","messages":[]}"#,
            invalid(None, "The request body is ambiguous: duplicate field `model` at line 1 column 20."),
        ),
        (
            "bytes that are no UTF-8",
            b"{\"model\":\"m\xff\",\"messages\":[]}",
            invalid(None, "The request body is not valid UTF-8: byte 11 is out of place."),
        ),
        (
            "a NUL in a text",
            b"{\"model\":\"m\0\",\"messages\":[]}",
            invalid(
                None,
                "The request body is not valid JSON: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 11.",
            ),
        ),
        (
            "NULs alone",
            b"\0\0\0",
            invalid(None, "The request body is not valid JSON: expected value at line 1 column 1."),
        ),
    ];
    let mut table = Table::default();
    for (name, body, expected) in cases {
        table.check(name, request("POST", &sluice.url(CHAT), &[], body).await, expected);
    }
    table.done();
    assert_eq!(upstream.requests().len(), 0, "none of it is the backend's to see");
    still_answers(&sluice).await;
}

#[tokio::test]
async fn unknown_models_paths_and_methods_are_told_apart() {
    let (_upstream, sluice) = start().await;
    let mut table = Table::default();
    let model = Expected::Error {
        status: 404,
        param: Some("model"),
        code: "model_not_found",
        message: "The model `nope` does not exist here. GET /v1/models lists the ones that do.",
    };
    let answer = request("POST", &sluice.url(CHAT), &[], r#"{"model":"nope","messages":[]}"#).await;
    table.check("an unknown model", answer, &model);
    let path = Expected::Error {
        status: 404,
        param: None,
        code: "unknown_url",
        message: "There is nothing at `/v1/nonsense`.",
    };
    table.check("an unknown path", request("POST", &sluice.url("/v1/nonsense"), &[], GOOD).await, &path);
    let method = Expected::Error {
        status: 405,
        param: None,
        code: "method_not_allowed",
        message: "GET is not allowed here: use POST.",
    };
    table.check("a wrong method", request("GET", &sluice.url(CHAT), &[], "").await, &method);
    table.done();
    still_answers(&sluice).await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_whether_its_length_was_told_or_not() {
    let (upstream, sluice) = start().await;
    let too_large = Expected::Error {
        status: 413,
        param: None,
        code: "request_too_large",
        message: "The request body is larger than the 33554432 bytes allowed here.",
    };
    let body = format!(r#"{{"model":"m","messages":[],"x":"{}"}}"#, "x".repeat(33 << 20));
    let mut table = Table::default();
    table.check("33 MiB", request("POST", &sluice.url(CHAT), &[], &body).await, &too_large);

    let mut bytes = request_bytes("POST", CHAT, &[("transfer-encoding", "chunked")], "");
    for chunk in body.as_bytes().chunks(1 << 20) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    table.check("33 MiB in chunks", raw(&sluice, &bytes).await, &too_large);
    table.done();
    assert_eq!(upstream.requests().len(), 0);
    still_answers(&sluice).await;
}

#[tokio::test]
async fn a_body_just_below_the_limit_passes_whole() {
    let (upstream, sluice) = start().await;
    let frame = r#"{"model":"m","messages":[],"x":""}"#.len();
    let body = format!(r#"{{"model":"m","messages":[],"x":"{}"}}"#, "x".repeat(BODY_MAX - frame));
    assert_eq!(body.len(), BODY_MAX);
    assert_eq!(post(&sluice.url(CHAT), &[], &body).await.status(), 200);
    // Not assert_eq: nobody wants to read 64 MiB.
    assert!(upstream.last_request().body == body.as_bytes(), "the body was changed");
}

#[tokio::test]
async fn a_head_that_is_too_large_or_no_http_is_refused() {
    let (upstream, sluice) = start().await;
    let mut table = Table::default();
    let huge = "x".repeat(1 << 20);
    let bytes = request_bytes("POST", CHAT, &[("x-huge", &huge)], GOOD);
    table.check("a header of 1 MiB", raw(&sluice, bytes).await, &Expected::Bare(431));
    let bytes = request_bytes("POST", CHAT, &[("x-nul", "a\0b")], GOOD);
    table.check("a NUL in a header", raw(&sluice, bytes).await, &Expected::Bare(400));
    let bytes = request_bytes("POST", &format!("{CHAT}\0"), &[], GOOD);
    table.check("a NUL in the path", raw(&sluice, bytes).await, &Expected::Bare(400));
    table.check("no HTTP", raw(&sluice, "hello\r\n\r\n").await, &Expected::Bare(400));
    table.done();
    assert_eq!(upstream.requests().len(), 0);
    still_answers(&sluice).await;
}

#[tokio::test]
async fn a_body_framed_two_ways_is_refused() {
    // RFC 9112 §6.1: whoever acts on one of the two opens a way for request smuggling behind another proxy.
    let (upstream, sluice) = start().await;
    let chunked = format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
    let length = chunked.len().to_string();
    let mut table = Table::default();
    for (name, headers) in [
        ("coding, length", [("transfer-encoding", "chunked"), ("content-length", length.as_str())]),
        ("length, coding", [("content-length", length.as_str()), ("transfer-encoding", "chunked")]),
        ("two lengths", [("content-length", length.as_str()), ("content-length", "3")]),
    ] {
        let bytes = request_bytes("POST", CHAT, &headers, &chunked);
        let expected = if name == "two lengths" { Expected::Bare(400) } else { twice() };
        table.check(name, raw(&sluice, bytes).await, &expected);
    }
    table.done();
    assert_eq!(upstream.requests().len(), 0);
    still_answers(&sluice).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_no_backend_and_harms_nobody() {
    let (upstream, sluice) = start().await;
    let chunked = request_bytes("POST", CHAT, &[("transfer-encoding", "chunked")], "");
    let mut table = Table::default();
    let cut = invalid(None, "The request body broke off, or is not framed as its head says.");

    // The sending side ends in the middle of a chunk; the client still listens.
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send_pieces(&[&chunked[..], b"20\r\n{\"model\":"], Duration::from_millis(20)).await.unwrap();
    wire.finish_sending().await.unwrap();
    table.check("a truncated chunk", wire.answer(WITHIN).await, &cut);

    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[("content-length", "100")], "{\"model\":")).await.unwrap();
    wire.finish_sending().await.unwrap();
    table.check("a truncated length", wire.answer(WITHIN).await, &cut);

    let bytes = [&chunked[..], b"zz\r\n{}\r\n0\r\n\r\n"].concat();
    table.check("a chunk size that is none", raw(&sluice, bytes).await, &cut);
    table.done();

    // Half a body, and gone.
    for reset in [false, true] {
        let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
        wire.send(request_bytes("POST", CHAT, &[("content-length", "100")], "{\"model\":")).await.unwrap();
        if reset { wire.reset() } else { wire.close() }
    }
    still_answers(&sluice).await;
    assert_eq!(upstream.requests().len(), 1, "only the good one");
}

#[tokio::test]
async fn two_hundred_nested_arrays_pass_through() {
    let (upstream, sluice) = start().await;
    let body = format!(r#"{{"model":"m","messages":[],"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(post(&sluice.url(CHAT), &[], &body).await.status(), 200);
    assert_eq!(upstream.last_request().text(), body);
}

#[tokio::test]
async fn a_call_without_a_good_key_reaches_no_backend() {
    let upstream = Upstream::start(Script::json(200, completion("m", "hello")));
    let launch = Sluice::launch();
    let key = launch.key("acme");
    let plain = config(&upstream).replace("auth: none", "auth: required");
    let tenants = format!("tenants:\n  - {{ id: acme, keys: [ {{ name: ci, hash: \"{}\" }} ] }}\n", key.hash);
    let sluice = launch.config(plain + &tenants).start().await;

    let mut table = Table::default();
    let refused = |message| Expected::Error { status: 401, param: None, code: "invalid_api_key", message };
    let missing = refused("No API key was sent: send it as `Authorization: Bearer <key>`.");
    let wrong = refused("The API key is not known here.");
    table.check("no key", request("POST", &sluice.url(CHAT), &[], GOOD).await, &missing);
    // The last character is part of a check sum or of the secret; neither must do.
    let mut near = key.key.clone();
    let last = if near.pop() == Some('0') { '1' } else { '0' };
    near.push(last);
    let mistyped = refused("The API key is mistyped or cut off: its check digits do not fit.");
    for (name, key, expected) in [("a wrong key", "sk-wrong", &wrong), ("nearly the key", &near, &mistyped)] {
        let value = format!("Bearer {key}");
        let headers = [("authorization", value.as_str())];
        table.check(name, request("POST", &sluice.url(CHAT), &headers, GOOD).await, expected);
    }
    // Before the key is checked nothing may be learnt, not even whether the body is any good.
    table.check("no key, bad body", request("POST", &sluice.url(CHAT), &[], "hello").await, &missing);
    table.done();
    assert_eq!(upstream.requests().len(), 0);

    let bearer = format!("Bearer {}", key.key);
    for header in [("authorization", bearer.as_str()), ("x-api-key", key.key.as_str())] {
        assert_eq!(post(&sluice.url(CHAT), &[header], GOOD).await.status(), 200, "{}", header.0);
    }
    let logged = || !sluice.log_lines().is_empty();
    assert!(eventually(WITHIN, logged).await, "an access log");
    for output in [sluice.stdout(), sluice.stderr()] {
        assert!(!output.contains(&key.key), "the key is in the output");
    }
    let leaks = |request: &testkit::Request| {
        request.headers.iter().any(|(_, value)| String::from_utf8_lossy(value).contains(&key.key))
    };
    assert!(!upstream.requests().iter().any(leaks), "the client's key went to the backend");
}
