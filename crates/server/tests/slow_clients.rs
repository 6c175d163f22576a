//! Clients that take their time, and streams that do: everybody is waited for, nobody for ever.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::{Duration, Instant};

use testkit::{Ended, Script, Sluice, Upstream, Wire, completion, delta, request_bytes};

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(5);

fn config(upstream: &Upstream, limits: &str) -> String {
    format!("auth: none\nlimits: {{ {limits} }}\nmodels:\n  - {{ model_name: m, endpoint: \"{}\" }}\n", upstream.url())
}

async fn start(script: Script, limits: &str) -> (Upstream, Sluice) {
    let upstream = Upstream::start(script);
    let sluice = Sluice::start(config(&upstream, limits)).await;
    (upstream, sluice)
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection_in_time() {
    let (upstream, sluice) = start(Script::json(200, completion("m", "hi")), "header_timeout_ms: 400").await;
    for beginning in ["", "P", "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"] {
        let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
        wire.send(beginning).await.unwrap();
        let since = Instant::now();
        let (_, ended) = wire.read_to_end(SOON).await;
        assert_ne!(ended, Ended::TimedOut, "{beginning:?} was waited for without end");
        assert!((350..1500).contains(&since.elapsed().as_millis()), "{beginning:?} took {:?}", since.elapsed());
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_refused_with_a_408() {
    let (upstream, sluice) = start(Script::json(200, completion("m", "hi")), "body_timeout_ms: 300").await;
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    let whole = request_bytes("POST", CHAT, &[], r#"{"model":"m","messages":[]}"#);
    wire.send(&whole[..whole.len() - 5]).await.unwrap();
    let answer = wire.answer(SOON).await.unwrap();
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (408, Some("request_timeout")));
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_body_that_trickles_is_taken_until_its_whole_time_is_over() {
    let limits = "body_timeout_ms: 300, body_total_timeout_ms: 900";
    let (upstream, sluice) = start(Script::json(200, completion("m", "hi")), limits).await;
    let whole = request_bytes("POST", CHAT, &[], r#"{"model":"m","messages":[]}"#);
    let (head, body) = whole.split_at(whole.len() - 27);
    let in_time: Vec<&[u8]> = body.chunks(9).collect();
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(head).await.unwrap();
    wire.send_pieces(&in_time, Duration::from_millis(150)).await.unwrap();
    assert_eq!(wire.answer(SOON).await.unwrap().status(), 200);

    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(head).await.unwrap();
    let too_slow: Vec<&[u8]> = body.chunks(3).collect();
    // The refusal closes the connection: the later pieces may find it gone.
    drop(wire.send_pieces(&too_slow, Duration::from_millis(200)).await);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments_between_its_events() {
    let script = Script::sse_head()
        .event(delta("m", "a"))
        .pause(Duration::from_millis(900))
        .event(delta("m", "b"))
        .done()
        .finish();
    let (_upstream, sluice) = start(script, "keep_alive_comment_ms: 200").await;
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[], r#"{"model":"m","messages":[],"stream":true}"#)).await.unwrap();
    let answer = wire.answer(SOON).await.unwrap();
    let text = answer.text();
    let comments = text.matches(": keep-alive\n\n").count();
    assert!((3..=9).contains(&comments), "{comments} comments in {text}");
    let without = text.replace(": keep-alive\n\n", "");
    let expected = format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", delta("m", "a"), delta("m", "b"));
    assert_eq!(without, expected, "events stay whole");
}

#[tokio::test]
async fn no_comment_stands_in_the_middle_of_an_event() {
    // Too large to be held back, so its beginning has been passed on when the backend falls silent.
    let large = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}", "x".repeat(100_000));
    let script =
        Script::sse_head().data(large.clone()).pause(Duration::from_millis(700)).data("\"}}]}\n\n").done().finish();
    let (_upstream, sluice) = start(script, "keep_alive_comment_ms: 200").await;
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[], r#"{"model":"m","messages":[],"stream":true}"#)).await.unwrap();
    let text = wire.answer(SOON).await.unwrap().text();
    assert_eq!(text, format!("{large}\"}}}}]}}\n\ndata: [DONE]\n\n"));
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory_and_keeps_the_backend_waiting() {
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(60_000));
    let stream = (0..1500).fold(Script::sse_head(), |script, _| script.data(event.clone())).done().finish();
    let (upstream, sluice) = start(stream, "").await;
    let before = sluice.rss_kib();
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &[], r#"{"model":"m","messages":[],"stream":true}"#)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let grown = sluice.rss_kib().saturating_sub(before);
    assert!(grown < 12 * 1024, "90 MB are waiting and {grown} KiB are held");
    assert_eq!(upstream.in_flight(), 1, "the backend is held back, not cut off");
}

#[tokio::test]
async fn a_client_that_stops_reading_its_stream_is_not_kept_for_ever() {
    let piece = delta("m", &"x".repeat(4 << 20));
    let script = Script::sse(std::iter::repeat_n(piece, 12));
    let (upstream, sluice) = start(script, "header_timeout_ms: 500").await;
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    let since = Instant::now();
    wire.send(request_bytes("POST", CHAT, &[], r#"{"model":"m","messages":[],"stream":true}"#)).await.unwrap();
    assert!(upstream.abandoned(since, SOON).await.is_some(), "the backend is let go");
    assert!(since.elapsed() >= Duration::from_millis(450), "{:?}", since.elapsed());
    drop(wire);
}

#[tokio::test]
async fn a_chunked_request_is_the_last_on_its_connection() {
    let (_upstream, sluice) = start(Script::json(200, completion("m", "hi")), "body_timeout_ms: 1000").await;
    let body = r#"{"model":"m","messages":[]}"#;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n", body.len()))
        .await
        .unwrap();
    let (bytes, ended) = wire.read_to_end(SOON).await;
    let text = String::from_utf8_lossy(&bytes);
    assert_ne!(ended, Ended::TimedOut);
    assert_eq!(text.matches("HTTP/1.1 200").count(), 1, "{text}");
}
