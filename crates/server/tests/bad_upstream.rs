//! Backends that break: what the client sees, alone and with a second instance to turn to.
//!
//! Before the first byte every fault is either rescued by another instance or an honest error status;
//! after it, an error event. Never a silent end, never an error dressed as a 200.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::{Duration, Instant};

use testkit::{
    Answer, Ended, Event, Script, Sluice, Until, Upstream, completion, delta, eventually, openai_error, post, request,
};

const CHAT: &str = "/v1/chat/completions";
const PLAIN: &str = r#"{"model":"m","messages":[]}"#;
const STREAMED: &str = r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
/// The configured first-byte and idle time-outs.
const PATIENCE: Duration = Duration::from_millis(300);
const GAP: Duration = Duration::from_millis(2);
const SOON: Duration = Duration::from_secs(5);

/// One way to fail before the first byte of the answer.
struct Fault {
    name: &'static str,
    upstream: Upstream,
    status: u16,
    code: &'static str,
}

fn faults(stream: bool) -> Vec<Fault> {
    let fault = |name, script: Script, status, code| Fault { name, upstream: Upstream::start(script), status, code };
    let bad = |name, script| fault(name, script, 502, "bad_upstream");
    let slow = |name, script| fault(name, script, 504, "upstream_timeout");
    let error = openai_error("boom", "server_error", "internal");
    let refusing = Upstream::refusing(Script::new());
    let mut all = vec![
        Fault { name: "refuses", upstream: refusing, status: 502, code: "bad_upstream" },
        slow("hangs before the head", Script::new().hang()),
        bad("closes before the head", Script::new().close()),
        bad("resets before the head", Script::new().reset()),
        bad("closes in the head", Script::new().send("HTTP/1.1 200 OK\r\ncontent-").close()),
        bad("speaks no HTTP", Script::new().send("hello, who is there?\r\n\r\n").close()),
        bad("an HTML 502", Script::html_502()),
        bad("an HTML 200", Script::answer(200, &[("content-type", "text/html")], "<html>sign in</html>")),
        bad("a 200 with an error body", Script::json(200, &error)),
    ];
    if stream {
        all.extend([
            slow("hangs after the head", Script::sse_head().hang()),
            bad("closes after the head", Script::sse_head().close()),
            bad("resets after the head", Script::sse_head().pause(GAP * 10).reset()),
            bad("an empty stream", Script::sse_head().finish()),
            bad("an error as the first event", Script::sse([&error])),
            bad("an error as the first event, in pieces", Script::sse([&error]).in_pieces(7, GAP)),
        ]);
    } else {
        all.extend([
            slow("hangs after the head", Script::new().head(200, &[("content-length", "10")]).hang()),
            slow("hangs in the body", Script::new().head(200, &[("content-length", "10")]).send("{").hang()),
            bad("a body shorter than its length", Script::too_short(r#"{"choices":[]}"#, 5)),
            bad("a body that ends in a chunk", Script::new().head(200, &CHUNKED).send("ff\r\n{\"a\":").close()),
        ]);
    }
    all
}

const CHUNKED: [(&str, &str); 2] = [("content-type", "application/json"), ("transfer-encoding", "chunked")];

/// Health is out of the way: every call of a test is meant to meet the fault.
fn config(upstreams: &[&Upstream]) -> String {
    let instances: Vec<String> =
        upstreams.iter().map(|upstream| format!("{{ endpoint: \"{}\" }}", upstream.url())).collect();
    format!(
        "auth: none
models:
  - model_name: m
    timeout_ms: 10000
    connect_timeout_ms: 1000
    first_byte_timeout_ms: {patience}
    idle_timeout_ms: {patience}
    balance: round_robin
    health: {{ max_fails: 0, breaker: {{ failure_percent: 0 }} }}
    versions: [ {{ version: v1, instances: [ {instances} ] }} ]
",
        patience = PATIENCE.as_millis(),
        instances = instances.join(", "),
    )
}

async fn start(upstreams: &[&Upstream]) -> Sluice {
    // Not /ready: some of these backends cannot answer.
    Sluice::launch().config(config(upstreams)).until(Until::Healthy).start().await
}

fn good(stream: bool) -> Script {
    if stream { Script::sse([delta("m", "good")]) } else { Script::json(200, completion("m", "good")) }
}

fn body(stream: bool) -> &'static str {
    if stream { STREAMED } else { PLAIN }
}

/// Every fault alone: an error with its status and code, in JSON, whole. All differences at once.
async fn check_alone(stream: bool) {
    let mut wrong = Vec::new();
    for fault in faults(stream) {
        let sluice = start(&[&fault.upstream]).await;
        let answer = request("POST", &sluice.url(CHAT), &[], body(stream)).await;
        let seen = answer.as_ref().map(|answer| {
            let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            (answer.status(), json["error"]["code"].as_str().unwrap_or("none").to_owned(), answer.ended)
        });
        if seen != Ok((fault.status, fault.code.to_owned(), Ended::Complete)) {
            let text = answer.map(|answer| answer.text());
            wrong.push(format!("{}: wanted {} {}, got {text:?}", fault.name, fault.status, fault.code));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Every fault beside a good instance: no call fails, and at least one was tried twice.
async fn check_rescued(stream: bool) {
    let mut wrong = Vec::new();
    for fault in faults(stream) {
        let healthy = Upstream::start(good(stream));
        let sluice = start(&[&fault.upstream, &healthy]).await;
        let mut attempts = Vec::new();
        for _ in 0..2 {
            match request("POST", &sluice.url(CHAT), &[], body(stream)).await {
                Ok(answer) if answer.status() == 200 && answer.is_complete() && answer.text().contains("good") => {
                    attempts.push(answer.header("x-sluice-attempts").unwrap_or("none").to_owned());
                }
                other => wrong.push(format!("{}: {:?}", fault.name, other.map(|answer| answer.text()))),
            }
        }
        // Retries take turns too: with two instances the faulty one may be whose turn it is both times.
        if attempts.len() != 2 || !attempts.iter().any(|count| count == "2") {
            wrong.push(format!("{}: x-sluice-attempts {attempts:?}", fault.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_fault_before_the_first_byte_is_an_honest_error() {
    check_alone(false).await;
}

#[tokio::test]
async fn a_fault_before_the_first_byte_of_a_stream_is_an_honest_error() {
    check_alone(true).await;
}

#[tokio::test]
async fn a_second_instance_rescues_a_call_from_every_fault_before_the_first_byte() {
    check_rescued(false).await;
}

#[tokio::test]
async fn a_second_instance_rescues_a_stream_from_every_fault_before_the_first_byte() {
    check_rescued(true).await;
}

#[tokio::test]
async fn a_hang_costs_the_first_byte_timeout_and_not_much_more() {
    let upstream = Upstream::start(Script::new().hang());
    let sluice = start(&[&upstream]).await;
    let since = Instant::now();
    assert_eq!(post(&sluice.url(CHAT), &[], PLAIN).await.status(), 504);
    let took = since.elapsed();
    assert!(took >= PATIENCE && took < PATIENCE * 3, "{took:?}");
    assert!(upstream.abandoned(since, SOON).await.is_some(), "the backend is told that nobody waits");
}

/// Two events, then the fault: the client gets both, then an error event, then an end it can see.
async fn check_in_the_middle(name: &str, fault: Script, code: &str) {
    let upstream = Upstream::start(fault);
    let rescuer = Upstream::start(good(true));
    let sluice = start(&[&upstream, &rescuer]).await;
    // Round robin: one of the two calls meets the fault, and only that one.
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(post(&sluice.url(CHAT), &[], STREAMED).await);
    }
    assert_eq!((upstream.requests().len(), rescuer.requests().len()), (1, 1), "{name}: no retry after the first byte");
    let answer = answers.into_iter().find(|answer| !answer.text().contains("good")).unwrap();
    assert_eq!((answer.status(), answer.ended), (200, Ended::Complete), "{name}");
    let events = answer.events();
    let data: Vec<&str> = events.iter().take(2).map(|event| event.data.as_str()).collect();
    assert_eq!(data, [delta("m", "one"), delta("m", "two")], "{name}");
    assert_eq!(error_code(&events), Some(code.to_owned()), "{name}: {}", answer.text());
    assert!(events.iter().all(|event| event.data != "[DONE]"), "{name}: a broken stream is not done");
    let metrics = sluice.metrics().await.to_map();
    let counted = metrics.iter().filter(|(sample, _)| sample.starts_with("sluice_upstream_errors_total{"));
    assert_eq!(counted.map(|(_, count)| *count).sum::<f64>(), 1.0, "{name}: the break is counted once");
}

/// The code of the error the stream ends with.
fn error_code(events: &[Event]) -> Option<String> {
    let last: serde_json::Value = serde_json::from_str(&events.last()?.data).ok()?;
    last["error"]["code"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_stream_that_breaks_in_the_middle_ends_with_an_error_event() {
    let begun = || Script::sse_head().events([delta("m", "one"), delta("m", "two")]);
    // The pause lets the two events arrive: a reset throws away what is still under way.
    let settled = || begun().pause(GAP * 25);
    check_in_the_middle("hangs", begun().hang(), "upstream_timeout").await;
    check_in_the_middle("closes", settled().close(), "bad_upstream").await;
    check_in_the_middle("resets", settled().reset(), "bad_upstream").await;
    check_in_the_middle("closes in an event", settled().data("data: {\"cho").close(), "bad_upstream").await;
    check_in_the_middle("breaks its chunks", settled().send("zz\r\n").hang(), "bad_upstream").await;
    let unframed = Script::sse_head_until_close().events([delta("m", "one"), delta("m", "two")]);
    check_in_the_middle("ends unframed without the end mark", unframed.pause(GAP * 25).close(), "bad_upstream").await;
}

async fn streamed(script: Script) -> Answer {
    let upstream = Upstream::start(script);
    let sluice = start(&[&upstream]).await;
    post(&sluice.url(CHAT), &[], STREAMED).await
}

#[tokio::test]
async fn malformed_events_pass_as_they_are() {
    let nonsense = concat!(
        ": a comment first\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"cut\n\n",
        "no field here\n\n",
        "data:no space\r\n\r\n",
        "event: odd\nid: 7\nretry: 10\ndata: x\ndata: y\n\n",
        "\n\n\n",
        "data: [DONE]\n\n",
    );
    for script in [
        Script::sse_head().data(nonsense).finish(),
        Script::sse_head().data(nonsense).finish().in_pieces(5, Duration::from_millis(1)),
    ] {
        let answer = streamed(script).await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::Complete));
        assert_eq!(answer.text(), nonsense);
    }
}

#[tokio::test]
async fn an_event_of_ten_mebibytes_passes_intact() {
    let huge = delta("m", &"x".repeat(10 << 20));
    let answer = streamed(Script::sse([delta("m", "first"), huge.clone(), delta("m", "last")])).await;
    assert_eq!((answer.status(), answer.ended), (200, Ended::Complete));
    let events = answer.events();
    assert_eq!(events.len(), 4);
    // Not assert_eq: nobody wants to read 20 MiB.
    assert!(events[1].data == huge, "the event was changed: {} bytes", events[1].data.len());
    assert_eq!(events[2].data, delta("m", "last"));
}

#[tokio::test]
async fn a_slow_trickle_arrives_whole() {
    let answer = streamed(Script::sse([delta("m", "a"), delta("m", "b")]).in_pieces(3, GAP)).await;
    let data: Vec<String> = answer.events().into_iter().map(|event| event.data).collect();
    assert_eq!((answer.ended, data), (Ended::Complete, vec![delta("m", "a"), delta("m", "b"), "[DONE]".to_owned()]));
}

#[tokio::test]
async fn odd_but_legal_answers_are_answers() {
    let whole = completion("m", "hello");
    for (name, script) in [
        ("HTTP/1.0 until the close", Script::http10("application/json", &whole)),
        ("an interim head first", Script::interim(103).then(Script::json(200, &whole))),
        ("one byte at a time", Script::json(200, &whole).in_pieces(1, Duration::from_micros(100))),
        ("a close behind it", Script::json(200, &whole).close()),
    ] {
        let upstream = Upstream::start(script);
        let sluice = start(&[&upstream]).await;
        let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
        assert_eq!((answer.status(), answer.text(), answer.ended), (200, whole.clone(), Ended::Complete), "{name}");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_never_taken_for_the_next_one() {
    let whole = completion("m", "hello");
    let smuggled = format!("{whole}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfoiled");
    let extra = smuggled.len() - whole.len();
    let upstream = Upstream::start(Script::too_long(&smuggled, extra));
    let sluice = start(&[&upstream]).await;
    for _ in 0..5 {
        let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
        assert_eq!((answer.status(), answer.text()), (200, whole.clone()));
    }
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_while_idle_costs_no_call() {
    let upstream = Upstream::start(Script::json(200, completion("m", "hello")).close());
    let sluice = start(&[&upstream]).await;
    for call in 0..20 {
        let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
        assert_eq!(answer.status(), 200, "call {call}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_connection_that_dies_under_the_next_call_is_rescued_by_the_second_instance() {
    for script in [
        Script::json(200, completion("m", "good")).close_on_next(),
        Script::json(200, completion("m", "good")).reset_on_next(),
    ] {
        let (tired, healthy) = (Upstream::start(script), Upstream::start(good(false)));
        let sluice = start(&[&tired, &healthy]).await;
        // Enough calls for each data-plane thread to use one of its pooled connections twice.
        for call in 0..24 {
            let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
            assert_eq!(answer.status(), 200, "call {call}: {}", answer.text());
        }
        let reused = tired.connections().iter().any(|connection| connection.requests > 1);
        assert!(reused, "no connection was used twice: the fault was never met");
    }
}

#[tokio::test]
async fn a_backend_that_is_busy_is_passed_on_with_its_retry_after_and_tried_elsewhere_first() {
    let busy = Upstream::start(Script::too_many(7));
    let sluice = start(&[&busy]).await;
    let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
    assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("7")));
    assert_eq!(answer.text(), openai_error("slow down", "requests", "rate_limit_exceeded"));

    let healthy = Upstream::start(good(false));
    let sluice = start(&[&busy, &healthy]).await;
    for _ in 0..2 {
        assert_eq!(post(&sluice.url(CHAT), &[], PLAIN).await.status(), 200);
    }
}

#[tokio::test]
async fn what_the_client_did_wrong_is_passed_on_and_tried_once() {
    let error = openai_error("max_tokens is too large", "invalid_request_error", "invalid_value");
    let (first, second) = (Upstream::start(Script::json(400, &error)), Upstream::start(Script::json(400, &error)));
    let sluice = start(&[&first, &second]).await;
    let answer = post(&sluice.url(CHAT), &[], PLAIN).await;
    assert_eq!((answer.status(), answer.text()), (400, error));
    assert_eq!(first.requests().len() + second.requests().len(), 1);
}

#[tokio::test]
async fn a_killed_backend_costs_no_client_an_error_and_gets_its_traffic_back() {
    let (first, second) = (Upstream::start(good(false)), Upstream::start(good(false)));
    let quick = "health: { max_fails: 1, fail_timeout_ms: 300, breaker: { failure_percent: 0 } }";
    let config = config(&[&first, &second]);
    let config = config.replace("health: { max_fails: 0, breaker: { failure_percent: 0 } }", quick);
    assert!(config.contains(quick));
    let sluice = Sluice::start(config).await;
    let url = sluice.url(CHAT);
    let call = || async {
        let answer = post(&url, &[], PLAIN).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    };
    for _ in 0..4 {
        call().await;
    }
    first.die();
    for _ in 0..20 {
        call().await;
    }
    let before = first.requests().len();
    first.accept();
    let since = Instant::now();
    while first.requests().len() == before && since.elapsed() < SOON {
        call().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(eventually(Duration::ZERO, || first.requests().len() > before).await, "no traffic came back");
}
