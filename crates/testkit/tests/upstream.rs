//! Every breakage the upstream promises is there on the wire, for a client that knows no HTTP library.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::time::{Duration, Instant};

use testkit::{
    Ended, Gone, Outcome, Plan, Script, Upstream, Wire, completion, delta, get, openai_error, post, request,
    request_bytes, sse_events,
};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(150);

fn ask(body: &str) -> Vec<u8> {
    request_bytes("POST", "/v1/chat/completions", &[], body)
}

/// Sends one request, reads the raw bytes until the close or for a short while.
async fn raw(upstream: &Upstream) -> (String, Ended) {
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    wire.send(ask("{}")).await.unwrap();
    let (bytes, ended) = wire.read_to_end(SHORT).await;
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

#[tokio::test]
async fn a_json_answer_is_sent_as_written_and_the_request_is_kept_as_sent() {
    let upstream = Upstream::start(Script::json(200, completion("m", "hi")));
    let headers = [("X-One", "1"), ("x-two", "2"), ("X-One", "3")];
    let answer = post(&format!("{}/v1/chat/completions?a=b", upstream.url()), &headers, "{ \"model\":\"m\"}").await;
    assert_eq!((answer.status(), answer.text()), (200, completion("m", "hi")));
    let request = upstream.last_request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/chat/completions?a=b"));
    assert_eq!((request.path(), request.text()), ("/v1/chat/completions", "{ \"model\":\"m\"}"));
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host", "content-type", "content-length", "X-One", "x-two", "X-One", "connection"]);
    let finished = || matches!(upstream.last_request().outcome, Outcome::Finished(_));
    assert!(testkit::eventually(SOON, finished).await);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_and_queued_scripts_come_first() {
    let upstream = Upstream::start(Script::json(200, "standing"));
    upstream.next(Script::json(500, "first"));
    upstream.next(Plan::made(|request| Script::json(200, format!("made from {}", request.text()))));
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    for expected in ["first", "made from x", "standing"] {
        wire.send(ask("x")).await.unwrap();
        assert_eq!(wire.answer(SOON).await.unwrap().text(), expected);
    }
    assert_eq!((upstream.connections().len(), upstream.connections()[0].requests), (1, 3));
}

#[tokio::test]
async fn probes_use_up_no_script() {
    let upstream = Upstream::start(Script::html_502());
    upstream.next(Script::json(200, "mine"));
    assert_eq!(get(&format!("{}/health", upstream.url())).await.status(), 200);
    assert_eq!(post(&upstream.url(), &[], "x").await.text(), "mine");
    assert_eq!((upstream.requests().len(), upstream.probes().len()), (1, 1));
    upstream.on_probe(Script::json(503, "ill"));
    assert_eq!(get(&format!("{}/health", upstream.url())).await.status(), 503);
}

#[tokio::test]
async fn a_chunked_request_is_read_without_its_coding_and_a_broken_one_is_told_apart() {
    let upstream = Upstream::start(Script::json(200, "ok"));
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    let head = request_bytes("POST", "/", &[("transfer-encoding", "chunked")], "");
    wire.send_pieces(&[&head[..], b"3\r\nab", b"c\r\n2\r\nde\r\n0\r\n\r", b"\n"], Duration::from_millis(10))
        .await
        .unwrap();
    assert_eq!(wire.answer(SOON).await.unwrap().text(), "ok");
    assert_eq!(upstream.last_request().text(), "abcde");

    wire.send(request_bytes("POST", "/", &[("content-length", "10")], "half")).await.unwrap();
    wire.close();
    assert!(testkit::eventually(SOON, || upstream.connections()[0].closed.is_some()).await);
    assert_eq!(upstream.requests().len(), 1);
    assert!(upstream.connections()[0].partial > 4);
}

#[tokio::test]
async fn a_refusing_port_refuses_until_it_accepts_again() {
    let upstream = Upstream::refusing(Script::json(200, "ok"));
    let refused = Wire::connect(&upstream.url()).await.err().expect("refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    upstream.accept();
    assert_eq!(post(&upstream.url(), &[], "x").await.text(), "ok");
    upstream.refuse();
    assert!(Wire::connect(&upstream.url()).await.is_err());
}

#[tokio::test]
async fn a_dying_upstream_breaks_what_is_open_and_comes_back_on_the_same_port() {
    let upstream = Upstream::start(Script::sse_head().event("a").hang());
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    wire.send(ask("x")).await.unwrap();
    wire.head(SOON).await.unwrap();
    assert_eq!(wire.event(SOON).await.unwrap().data, "a");
    upstream.die();
    assert!(matches!(wire.event(SOON).await, Err(Ended::Closed | Ended::Reset)));
    assert_eq!(upstream.in_flight(), 0);
    assert!(Wire::connect(&upstream.url()).await.is_err());
    upstream.accept();
    upstream.always(Script::json(200, "back"));
    assert_eq!(post(&upstream.url(), &[], "x").await.text(), "back");
}

#[tokio::test]
async fn hangs_come_before_the_head_after_it_or_in_the_middle() {
    let upstream = Upstream::start(Script::new().hang());
    assert_eq!(raw(&upstream).await, (String::new(), Ended::TimedOut));

    upstream.always(Script::sse_head().hang());
    let (bytes, ended) = raw(&upstream).await;
    assert!(bytes.ends_with("\r\n\r\n") && !bytes.contains("data:"));
    assert_eq!(ended, Ended::TimedOut);

    upstream.always(Script::sse_head().events(["a", "b"]).hang());
    let (bytes, ended) = raw(&upstream).await;
    assert_eq!((bytes.matches("data:").count(), ended), (2, Ended::TimedOut));
}

#[tokio::test]
async fn the_middle_of_a_stream_can_be_a_close_or_a_reset() {
    let upstream = Upstream::start(Script::sse_head().event("a").close());
    let (bytes, ended) = raw(&upstream).await;
    assert!(bytes.ends_with("data: a\n\n\r\n"), "{bytes}");
    assert_eq!(ended, Ended::Closed);

    // The pause lets the reader take the bytes: a reset throws away what is still under way.
    upstream.always(Script::sse_head().event("a").pause(Duration::from_millis(20)).reset());
    assert_eq!(raw(&upstream).await.1, Ended::Reset);
    upstream.always(Script::new().reset());
    assert_eq!(raw(&upstream).await, (String::new(), Ended::Reset));
    upstream.always(Script::new().close());
    assert_eq!(raw(&upstream).await, (String::new(), Ended::Closed));
    assert_eq!(request("POST", &upstream.url(), &[], "x").await.unwrap_err(), Ended::Closed);
}

#[tokio::test]
async fn a_stream_is_whole_however_it_is_framed_and_cut() {
    let upstream = Upstream::start(Script::sse([delta("m", "a"), delta("m", "b")]));
    let whole = post(&upstream.url(), &[], "x").await;
    assert!(whole.is_complete());
    let data: Vec<String> = whole.events().into_iter().map(|event| event.data).collect();
    assert_eq!(data, [delta("m", "a"), delta("m", "b"), "[DONE]".to_owned()]);

    let stream = Script::sse([delta("m", "a"), delta("m", "b")]);
    upstream.always(stream.clone().in_pieces(7, Duration::from_millis(1)));
    let trickled = post(&upstream.url(), &[], "x").await;
    assert_eq!((trickled.raw, trickled.body), (whole.raw, whole.body.clone()));

    let until_close = Script::sse_head_until_close().events([delta("m", "a"), delta("m", "b")]).done();
    upstream.always(until_close);
    let closed = post(&upstream.url(), &[], "x").await;
    assert_eq!((closed.ended, closed.body), (Ended::Complete, whole.body));
}

#[tokio::test]
async fn a_cut_is_where_it_was_asked_for() {
    let gap = Duration::from_millis(60);
    let upstream = Upstream::start(Script::json(200, "abcdef"));
    let length = Script::json(200, "abcdef").bytes().len();
    upstream.always(Script::json(200, "abcdef").cut_at(&[length - 4], gap));
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    wire.send(ask("x")).await.unwrap();
    let (first, _) = wire.read_to_end(gap / 2).await;
    assert!(first.ends_with(b"\r\n\r\nab"), "{}", String::from_utf8_lossy(&first));
    assert_eq!(wire.read_to_end(gap * 2).await.0, b"cdef");
}

#[tokio::test]
async fn errors_come_as_a_page_as_a_body_with_200_and_as_the_first_event() {
    let upstream = Upstream::start(Script::html_502());
    let page = post(&upstream.url(), &[], "x").await;
    assert_eq!((page.status(), page.header("content-type")), (502, Some("text/html")));
    assert!(page.text().starts_with("<html>"));

    let error = openai_error("no", "server_error", "boom");
    upstream.always(Script::json(200, &error));
    let answer = post(&upstream.url(), &[], "x").await;
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (200, Some("boom")));
    upstream.always(Script::sse([&error]));
    assert_eq!(post(&upstream.url(), &[], "x").await.events()[0].json()["error"]["message"], "no");

    upstream.always(Script::too_many(7));
    let limited = post(&upstream.url(), &[], "x").await;
    assert_eq!((limited.status(), limited.header("retry-after")), (429, Some("7")));
}

#[tokio::test]
async fn lengths_lie_in_both_directions() {
    let upstream = Upstream::start(Script::too_short("abc", 5));
    let short = post(&upstream.url(), &[], "x").await;
    assert_eq!((short.text().as_str(), short.ended), ("abc", Ended::Closed));

    upstream.always(Script::too_long("abcde", 2));
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    wire.send(ask("x")).await.unwrap();
    assert_eq!(wire.answer(SOON).await.unwrap().text(), "abc");
    assert_eq!(wire.read_to_end(SHORT).await, (b"de".to_vec(), Ended::TimedOut));
}

#[tokio::test]
async fn old_and_early_heads_are_sent() {
    let upstream = Upstream::start(Script::http10("application/json", "{}"));
    let old = post(&upstream.url(), &[], "x").await;
    assert_eq!((old.head.minor_version, old.text().as_str(), old.ended), (0, "{}", Ended::Complete));

    upstream.always(Script::interim(103).then(Script::json(200, "{}")));
    let early = post(&upstream.url(), &[], "x").await;
    assert_eq!((early.head.interim.as_slice(), early.status(), early.text().as_str()), (&[103][..], 200, "{}"));
}

#[tokio::test]
async fn an_idle_connection_ends_after_the_answer_or_when_the_next_request_comes() {
    let upstream = Upstream::start(Script::json(200, "{}").close());
    let mut wire = Wire::connect(&upstream.url()).await.unwrap();
    wire.send(ask("x")).await.unwrap();
    assert!(wire.answer(SOON).await.unwrap().is_complete());
    assert_eq!(wire.read_to_end(SOON).await.1, Ended::Closed);

    for (script, ended) in [
        (Script::json(200, "{}").close_on_next(), Ended::Closed),
        (Script::json(200, "{}").reset_on_next(), Ended::Reset),
    ] {
        upstream.always(script);
        let mut wire = Wire::connect(&upstream.url()).await.unwrap();
        wire.send(ask("x")).await.unwrap();
        assert!(wire.answer(SOON).await.unwrap().is_complete());
        assert_eq!(wire.read_to_end(SHORT).await.1, Ended::TimedOut, "kept while idle");
        wire.send(ask("x")).await.unwrap();
        assert_eq!(wire.answer(SOON).await.unwrap_err(), ended);
    }
    assert_eq!(upstream.requests().len(), 5, "the unanswered ones are on record");
}

#[tokio::test]
async fn a_huge_event_arrives_whole() {
    let data = "x".repeat(10 << 20);
    let upstream = Upstream::start(Script::sse([&data]));
    let answer = post(&upstream.url(), &[], "x").await;
    assert_eq!((answer.ended, answer.events()[0].data.len()), (Ended::Complete, data.len()));
}

#[tokio::test]
async fn malformed_events_are_sent_as_they_are() {
    let nonsense = "data: {\"cut\n\n: only a comment\n\nno field here\n\ndata:x\r\n\r\n";
    let upstream = Upstream::start(Script::sse_head().data(nonsense).finish());
    let answer = post(&upstream.url(), &[], "x").await;
    assert_eq!(answer.text(), nonsense);
    assert_eq!(sse_events(&answer.body).len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_once_with_the_way_it_left() {
    for (script, reset) in [
        (Script::new().hang(), false),
        (Script::sse_head().event("a").hang(), true),
        (Script::sse_head().event("a").pause(SOON).event("b"), false),
    ] {
        let upstream = Upstream::start(script);
        let mut wire = Wire::connect(&upstream.url()).await.unwrap();
        wire.send(ask("x")).await.unwrap();
        assert!(upstream.busy(1, SOON).await);
        assert_eq!(upstream.abandoned(Instant::now(), SHORT).await, None, "still there");
        let since = Instant::now();
        if reset {
            wire.reset()
        } else {
            wire.close()
        }
        let took = upstream.abandoned(since, SOON).await.expect("noticed");
        assert!(took < Duration::from_millis(50), "{took:?}");
        assert_eq!(upstream.in_flight(), 0);
        let Outcome::Abandoned(_, gone) = upstream.last_request().outcome else { panic!("abandoned") };
        assert_eq!(gone, if reset { Gone::Reset } else { Gone::Closed });
        assert!(upstream.connections()[0].closed.is_some());
    }
}

#[tokio::test]
async fn requests_in_flight_are_counted_while_they_hang() {
    let upstream = Upstream::start(Script::new().hang());
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::connect(&upstream.url()).await.unwrap();
        wire.send(ask("x")).await.unwrap();
        wires.push(wire);
    }
    assert!(upstream.hanging(3, SOON).await && upstream.arrived(3, SOON).await);
    assert_eq!(upstream.in_flight(), 3);
    drop(wires.pop());
    assert!(upstream.busy(2, SOON).await);
}

#[tokio::test]
async fn an_upstream_goes_with_the_value_that_started_it() {
    let upstream = Upstream::start(Script::new().hang());
    let url = upstream.url();
    let mut wire = Wire::connect(&url).await.unwrap();
    wire.send(ask("x")).await.unwrap();
    assert!(upstream.busy(1, SOON).await);
    drop(upstream);
    assert!(wire.answer(SOON).await.is_err());
    assert!(Wire::connect(&url).await.is_err());
}
