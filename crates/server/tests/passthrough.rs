//! Same dialect in and out: the bytes pass untouched but for the fields that must be edited.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::Duration;

use testkit::{Answer, Ended, Script, Sluice, Upstream, completion, delta, post, usage};

const CHAT: &str = "/v1/chat/completions";
/// Everything a parser and writer of JSON would change: order, white space, escapes, big and odd numbers.
const ODD: &str = concat!(
    "{ \"zeta\" : 1.50,\n\t\"messages\": [ {\"content\":\"caf\\u00e9 \\ud83d\\ude00 \\/ \u{e9}\",\"role\":\"user\"} ],",
    "\"model\"  :  \"m\" , \"alpha\": {\"model\": \"m\", \"n\": 12345678901234567890123},",
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}],",
    "\"e\":1E+2,\"seed\":-0,\"nothing\":null }\r\n",
);

fn config(upstream: &Upstream, more: &str) -> String {
    format!("auth: none\nmodels:\n  - model_name: m\n    endpoint: \"{}\"\n{more}", upstream.url())
}

async fn start(script: Script, more: &str) -> (Upstream, Sluice) {
    let upstream = Upstream::start(script);
    let sluice = Sluice::start(config(&upstream, more)).await;
    (upstream, sluice)
}

#[tokio::test]
async fn a_request_body_reaches_the_backend_byte_for_byte() {
    let (upstream, sluice) = start(Script::json(200, completion("m", "x")), "").await;
    assert_eq!(post(&sluice.url(CHAT), &[], ODD).await.status(), 200);
    assert_eq!(upstream.last_request().text(), ODD);
}

#[tokio::test]
async fn only_the_model_name_changes_where_the_backend_knows_another() {
    let (upstream, sluice) = start(Script::json(200, completion("up", "x")), "    upstream_model: org/Up-7B\n").await;
    assert_eq!(post(&sluice.url(CHAT), &[], ODD).await.status(), 200);
    let expected = ODD.replacen("\"model\"  :  \"m\"", "\"model\"  :  \"org/Up-7B\"", 1);
    assert_ne!(expected, ODD);
    assert_eq!(upstream.last_request().text(), expected, "and not the `model` of another object");
}

#[tokio::test]
async fn a_model_name_written_with_escapes_is_the_same_model() {
    let (upstream, sluice) = start(Script::json(200, completion("m", "x")), "").await;
    let escaped = r#"{"\u006dodel":"\u006d","messages":[]}"#;
    assert_eq!(post(&sluice.url(CHAT), &[], escaped).await.status(), 200);
    assert_eq!(upstream.last_request().text(), escaped);
}

#[tokio::test]
async fn the_path_is_kept_and_the_hop_by_hop_headers_are_not() {
    let (upstream, sluice) = start(Script::json(200, completion("m", "x")), "").await;
    let headers = [("te", "trailers"), ("x-api-key", "secret"), ("cookie", "a=b")];
    assert_eq!(post(&sluice.url(CHAT), &headers, ODD).await.status(), 200);
    let seen = upstream.last_request();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", CHAT));
    assert_eq!(seen.header("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    for name in ["te", "x-api-key", "cookie"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let lengths = seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).count();
    assert_eq!(lengths, 1);
}

#[tokio::test]
async fn a_whole_answer_reaches_the_client_byte_for_byte() {
    let odd = "{ \"choices\" : [], \"z\":1.50,\n\"a\":\"\\u00e9 \u{e9}\",\"reasoning\":{\"model\":\"up\"},\"n\":12345678901234567890123 }\n";
    let (_upstream, sluice) = start(Script::json(200, odd), "    upstream_model: up\n").await;
    let answer = post(&sluice.url(CHAT), &[], ODD).await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.ended), (200, odd, Ended::Complete));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

// === streams ===

const ASKED: &str = r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
const NOT_ASKED: &str = r#"{"model":"m","messages":[],"stream":true}"#;
const REFUSED: &str = r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":false}}"#;

/// Events as a backend sends them that was asked for usage.
fn events() -> Vec<String> {
    vec![delta("m", "caf\u{e9}"), delta("m", "\"usage\": {"), usage("m", 3, 2)]
}

fn text(events: &[String]) -> String {
    events.iter().map(|data| format!("data: {data}\n\n")).chain(["data: [DONE]\n\n".to_owned()]).collect()
}

async fn streamed(sluice: &Sluice, body: &str) -> Answer {
    let answer = post(&sluice.url(CHAT), &[], body).await;
    assert_eq!((answer.status(), answer.ended), (200, Ended::Complete), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    answer
}

#[tokio::test]
async fn a_stream_reaches_the_client_byte_for_byte_when_it_asked_for_usage() {
    let (upstream, sluice) = start(Script::sse(events()), "").await;
    assert_eq!(streamed(&sluice, ASKED).await.text(), text(&events()));
    assert_eq!(upstream.last_request().text(), ASKED, "nothing to add");
}

#[tokio::test]
async fn usage_is_asked_for_behind_the_clients_back_and_its_chunk_taken_out_again() {
    let (upstream, sluice) = start(Script::sse(events()), "").await;
    let without = text(&events()[..2]);
    for body in [NOT_ASKED, REFUSED] {
        assert_eq!(streamed(&sluice, body).await.text(), without, "{body}");
        let seen = upstream.last_request();
        assert_eq!(seen.json()["stream_options"]["include_usage"], true, "{body}");
    }
    // Taken out again, the addition leaves the client's own bytes.
    let added = r#""stream_options":{"include_usage":true}"#;
    streamed(&sluice, NOT_ASKED).await;
    let seen = upstream.last_request().text().to_owned();
    let undone = seen.replacen(&format!("{added},"), "", 1).replacen(&format!(",{added}"), "", 1);
    assert_eq!(undone, NOT_ASKED, "{seen}");
}

#[tokio::test]
async fn a_chunk_with_usage_and_choices_is_never_taken_out() {
    let mut last: serde_json::Value = serde_json::from_str(&delta("m", "end")).unwrap();
    last["usage"] = serde_json::json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let events = vec![delta("m", "a"), last.to_string()];
    let (_upstream, sluice) = start(Script::sse(&events), "").await;
    for body in [ASKED, NOT_ASKED] {
        assert_eq!(streamed(&sluice, body).await.text(), text(&events), "{body}");
    }
}

#[tokio::test]
async fn a_backend_that_reports_no_usage_loses_nothing() {
    let events = vec![delta("m", "a"), delta("m", "b")];
    let (_upstream, sluice) = start(Script::sse(&events), "").await;
    assert_eq!(streamed(&sluice, NOT_ASKED).await.text(), text(&events));
}

#[tokio::test]
async fn nothing_is_asked_for_where_the_config_says_so() {
    let (upstream, sluice) = start(Script::sse(events()), "    force_usage: false\n").await;
    assert_eq!(streamed(&sluice, NOT_ASKED).await.text(), text(&events()), "what comes unasked is the client's");
    assert_eq!(upstream.last_request().text(), NOT_ASKED);
}

#[tokio::test]
async fn a_stream_is_the_same_wherever_the_backend_cuts_it() {
    let upstream = Upstream::start(Script::new());
    let sluice = Sluice::start(config(&upstream, "")).await;
    let (all, without) = (text(&events()), text(&events()[..2]));
    let bytes = Script::sse(events()).bytes().len();
    for size in [1, 2, 3, 7, 64, bytes / 2, bytes] {
        upstream.always(Script::sse(events()).in_pieces(size, Duration::from_micros(200)));
        assert_eq!(streamed(&sluice, ASKED).await.text(), all, "pieces of {size}");
        assert_eq!(streamed(&sluice, NOT_ASKED).await.text(), without, "pieces of {size}");
    }
}

#[tokio::test]
async fn an_event_is_passed_on_when_it_comes_and_not_when_the_next_one_does() {
    let script = Script::sse_head().event(delta("m", "one")).hang();
    let (_upstream, sluice) = start(script, "").await;
    for body in [ASKED, NOT_ASKED] {
        let mut wire = testkit::Wire::connect(&sluice.url("")).await.unwrap();
        wire.send(testkit::request_bytes("POST", CHAT, &[], body)).await.unwrap();
        wire.head(Duration::from_secs(5)).await.unwrap();
        let event = wire.event(Duration::from_secs(1)).await.expect("held back");
        assert_eq!(event.data, delta("m", "one"));
    }
}
