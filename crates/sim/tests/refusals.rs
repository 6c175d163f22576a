//! Bad input: each with its exact status and the field or header that is named.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use http::Method;
use serde_json::Value;
use sim::{HEADERS, Settings, Sim};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const EMBED: &str = "/v1/embeddings";
const GOOD: &str = r#"{"model":"sim","messages":[{"role":"user","content":"hi"}]}"#;

fn ask(method: &Method, path: &str, headers: &[(&str, &'static str)], body: &[u8]) -> (u16, Value) {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let mut plan = Sim::new(Settings::default()).plan(method, path, header, body);
    let body: Vec<u8> = plan.steps.by_ref().flat_map(|step| step.bytes.to_vec()).collect();
    (plan.head.unwrap().status.as_u16(), serde_json::from_slice(&body).unwrap())
}

/// `param` empty: the error names none.
fn check(path: &str, body: impl AsRef<[u8]>, status: u16, param: &str) {
    let shown = String::from_utf8_lossy(body.as_ref()).into_owned();
    let (answered, body) = ask(&Method::POST, path, &[], body.as_ref());
    let error = &body["error"];
    assert_eq!((answered, error["param"].as_str().unwrap_or("")), (status, param), "{path} {shown}: {body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(error["type"], "invalid_request_error");
}

#[test]
fn a_bad_body_is_answered_with_the_field_at_fault() {
    for path in [CHAT, TEXT, EMBED] {
        check(path, "", 400, "");
        check(path, "{", 400, "");
        check(path, "[]", 400, "");
        check(path, "\"text\"", 400, "");
        check(path, b"{\"model\":\"\xff\"}", 400, "");
        check(path, b"{\"model\":\0}", 400, "");
        check(path, "[".repeat(200), 400, "");
        check(path, "{}", 400, "model");
        check(path, r#"{"model":null}"#, 400, "model");
        check(path, r#"{"model":7}"#, 400, "model");
        check(path, r#"{"model":"other"}"#, 404, "model");
    }
    check(TEXT, r#"{"model":"sim"}"#, 400, "prompt");
    check(EMBED, r#"{"model":"sim"}"#, 400, "input");
    for (path, field) in [(TEXT, "prompt"), (EMBED, "input")] {
        for value in ["7", "{}", "true", "[]", "[[]]", "[null]", r#"["a",1]"#, "[1,-1]", "[1.5]", r#"[["a"]]"#] {
            check(path, format!(r#"{{"model":"sim","{field}":{value}}}"#), 400, field);
        }
    }
    let many = format!(r#"{{"model":"sim","input":[{}"a"]}}"#, r#""a","#.repeat(2048));
    check(EMBED, many, 400, "input");
    let heavy = format!(r#"{{"model":"sim","dimensions":8192,"input":[{}"a"]}}"#, r#""a","#.repeat(128));
    check(EMBED, heavy, 400, "input");
    check(EMBED, r#"{"model":"sim","input":"a","encoding_format":"hex"}"#, 400, "encoding_format");
    check(EMBED, r#"{"model":"sim","input":"a","dimensions":0}"#, 400, "dimensions");
    check(TEXT, r#"{"model":"sim","prompt":["a","b"],"n":65}"#, 400, "prompt");
}

#[test]
fn a_bad_chat_is_answered_with_the_field_at_fault() {
    for (messages, param) in [
        ("null", "messages"),
        ("7", "messages"),
        ("[]", "messages"),
        ("[7]", "messages[0].role"),
        (r#"[{"content":"x"}]"#, "messages[0].role"),
        (r#"[{"role":"user"},{"role":7}]"#, "messages[1].role"),
        (r#"[{"role":"user","content":7}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":["x"]}]"#, "messages[0].content"),
    ] {
        check(CHAT, format!(r#"{{"model":"sim","messages":{messages}}}"#), 400, param);
    }
    for (fields, param) in [
        (r#""stream":"yes""#, "stream"),
        (r#""stream_options":{"include_usage":true}"#, "stream_options"),
        (r#""stream":true,"stream_options":7"#, "stream_options"),
        (r#""stream":true,"stream_options":{"include_usage":1}"#, "stream_options.include_usage"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_tokens":-1"#, "max_tokens"),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""max_completion_tokens":"9""#, "max_completion_tokens"),
        (r#""n":0"#, "n"),
        (r#""n":129"#, "n"),
        (r#""tools":{}"#, "tools"),
        (r#""tools":[7]"#, "tools[0].function.name"),
        (r#""tools":[{"type":"function"}]"#, "tools[0].function.name"),
        (r#""tool_choice":"required""#, "tool_choice"),
        (r#""tool_choice":"sometimes""#, "tool_choice"),
        (r#""tool_choice":7"#, "tool_choice"),
        (r#""tool_choice":{"type":"function","function":{"name":"x"}}"#, "tool_choice"),
    ] {
        check(CHAT, format!("{},{fields}}}", GOOD.strip_suffix('}').unwrap()), 400, param);
    }
}

#[test]
fn a_bad_header_is_answered_with_its_name() {
    for (name, values) in [
        ("x-sim-ttft-ms", &["", "x", "-1", "1.5", "3600001"][..]),
        ("x-sim-tokens-per-second", &["x", "-1", "NaN", "inf", "1e-9", "1e9"]),
        ("x-sim-output-tokens", &["0", "x", "1048577"]),
        ("x-sim-status", &["ok", "100", "199", "600", "70000"]),
        ("x-sim-retry-after", &["soon", "-1"]),
        ("x-sim-hang", &["yes", "HEAD", ""]),
        ("x-sim-cut-after", &["x", "-1"]),
        ("x-sim-seed", &["x", "-1", "18446744073709551616"]),
    ] {
        assert!(HEADERS.iter().any(|(known, _)| *known == name));
        for value in values {
            let (status, body) = ask(&Method::POST, CHAT, &[(name, value)], GOOD.as_bytes());
            assert_eq!((status, &body["error"]["param"]), (400, &Value::from(name)), "{value}: {body}");
        }
    }
    let both = [("x-sim-hang", "head"), ("x-sim-cut-after", "1")];
    assert_eq!(ask(&Method::POST, CHAT, &both, GOOD.as_bytes()).0, 400);
}

#[test]
fn an_unknown_path_is_404_and_a_wrong_method_405() {
    for path in ["/", "/v1", "/v1/chat/completions/", "/v1/models/", "/V1/models", "//health"] {
        let (status, body) = ask(&Method::POST, path, &[], GOOD.as_bytes());
        assert_eq!((status, &body["error"]["code"]), (404, &Value::from("unknown_url")), "{path}");
    }
    for (method, path) in [
        (Method::GET, CHAT),
        (Method::HEAD, CHAT),
        (Method::PUT, TEXT),
        (Method::DELETE, EMBED),
        (Method::POST, "/v1/models"),
        (Method::POST, "/v1/models/sim"),
        (Method::POST, "/health"),
        (Method::POST, "/metrics"),
    ] {
        assert_eq!(ask(&method, path, &[], b"").0, 405, "{method} {path}");
    }
    assert_eq!(ask(&Method::GET, "/v1/models/other", &[], b"").1["error"]["code"], "model_not_found");
}

#[test]
fn what_is_unusual_but_right_is_answered() {
    for body in [
        r#"{"model":"sim","messages":[{"role":"assistant","content":null,"tool_calls":[]}]}"#,
        r#"{"model":"sim","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
        r#"{"model":"sim","messages":[{"role":"user","content":""}],"stream":null,"stream_options":null,"n":null,"tools":null}"#,
        r#"{"model":"sim","messages":[{"role":"user","content":"a"}],"unknown":{"x":[1]},"tools":[{"type":"web_search"}]}"#,
    ] {
        assert_eq!(ask(&Method::POST, CHAT, &[], body.as_bytes()).0, 200, "{body}");
    }
    assert_eq!(ask(&Method::POST, "/v1/chat/completions?a=b", &[], GOOD.as_bytes()).0, 200);
    assert_eq!(ask(&Method::HEAD, "/health", &[], b"").0, 200);
    assert_eq!(ask(&Method::GET, "/v1/models/sim", &[], b"").1["id"], "sim");
}
