//! The server over real sockets, driven byte by byte.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sim::{BODY_LIMIT, Settings, Sim, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Silence this long is taken for a hang.
const SILENCE: Duration = Duration::from_millis(300);
/// Anything that is to happen happens within this.
const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    sim: Arc<Sim>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sim = Arc::new(Sim::new(Settings { ttft_ms: 0, tokens_per_second: 0.0, ..Settings::default() }));
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, Arc::clone(&sim), async { _ = stopped.await }));
    Running { address, sim, stop, server }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until this many calls are in flight.
    async fn until_running(&self, calls: u64) {
        let arrived = async {
            while self.sim.running() != calls {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, arrived).await.unwrap();
    }
}

fn post(headers: &str, stream: bool) -> String {
    let body = format!(r#"{{"model":"sim","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

/// Sends a request, then reads until the server closes (true) or falls silent (false).
async fn exchange(socket: &mut TcpStream, request: &str) -> (String, bool) {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    loop {
        match timeout(SILENCE, socket.read_buf(&mut seen)).await {
            Ok(Ok(0) | Err(_)) => return (String::from_utf8(seen).unwrap(), true),
            Ok(Ok(_)) => {}
            Err(_) => return (String::from_utf8(seen).unwrap(), false),
        }
    }
}

#[tokio::test]
async fn one_connection_answers_call_after_call() {
    let running = start().await;
    let mut socket = running.connect().await;
    for stream in [false, true, false, true] {
        let (answer, closed) = exchange(&mut socket, &post("", stream)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !closed, "{answer}");
        assert_eq!(answer.contains("transfer-encoding: chunked") && answer.ends_with("\r\n0\r\n\r\n"), stream);
        assert_eq!(answer.contains("content-length:"), !stream);
    }
    let bad = "GET /nowhere HTTP/1.1\r\nhost: sim\r\n\r\n";
    let (answer, closed) = exchange(&mut socket, bad).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && !closed, "{answer}");
    let wrong = "GET /v1/embeddings HTTP/1.1\r\nhost: sim\r\n\r\n";
    let (answer, _) = exchange(&mut socket, wrong).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: POST\r\n"), "{answer}");
    running.until_running(0).await;
}

#[tokio::test]
async fn a_cut_closes_the_socket_in_the_middle_of_a_chunk() {
    let running = start().await;
    for chunks in [0, 1, 5] {
        let mut socket = running.connect().await;
        let request = post(&format!("x-sim-cut-after: {chunks}\r\n"), true);
        let (answer, closed) = exchange(&mut socket, &request).await;
        assert!(closed && answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        // Each token's event ends in a blank line; the first chunk has the role's event as well.
        let whole_events = answer.matches("}\n\n").count();
        assert!(whole_events >= chunks && whole_events <= chunks + 1, "{whole_events} events for {chunks}: {answer}");
        assert!(!answer.contains("[DONE]") && !answer.ends_with("0\r\n\r\n") && !answer.trim_end().ends_with('}'));
    }
    let mut socket = running.connect().await;
    let (answer, closed) = exchange(&mut socket, &post("x-sim-cut-after: 0\r\n", false)).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let promised = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert!(closed && !body.is_empty());
    assert_eq!(body.len(), promised.parse::<usize>().unwrap() / 2);
    running.until_running(0).await;
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_leaves() {
    let running = start().await;
    for stream in [false, true] {
        let mut socket = running.connect().await;
        let (answer, closed) = exchange(&mut socket, &post("x-sim-hang: head\r\n", stream)).await;
        assert_eq!((answer.as_str(), closed), ("", false));
        running.until_running(1).await;
        let left = Instant::now();
        drop(socket);
        running.until_running(0).await;
        assert!(left.elapsed() < Duration::from_millis(200), "{:?}", left.elapsed());

        let mut socket = running.connect().await;
        let (answer, closed) = exchange(&mut socket, &post("x-sim-hang: stream\r\n", stream)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !closed, "{answer}");
        assert!(answer.contains("choices") && !answer.contains("[DONE]") && !answer.contains("total_tokens"));
        running.until_running(1).await;
        drop(socket);
        running.until_running(0).await;
    }
}

#[tokio::test]
async fn a_stream_its_client_leaves_is_in_flight_no_more() {
    let running = start().await;
    let mut socket = running.connect().await;
    let request = post("x-sim-tokens-per-second: 100\r\nx-sim-output-tokens: 10000\r\n", true);
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut some = [0; 64];
    assert!(socket.read(&mut some).await.unwrap() > 0);
    assert_eq!(running.sim.running(), 1);
    let left = Instant::now();
    drop(socket);
    running.until_running(0).await;
    assert!(left.elapsed() < Duration::from_millis(200), "{:?}", left.elapsed());
}

#[tokio::test]
async fn tokens_arrive_one_by_one_at_the_pace_asked_for() {
    let running = start().await;
    let mut socket = running.connect().await;
    let headers = "x-sim-ttft-ms: 100\r\nx-sim-tokens-per-second: 50\r\nx-sim-output-tokens: 11\r\n";
    let begun = Instant::now();
    socket.write_all(post(headers, true).as_bytes()).await.unwrap();
    let (mut seen, mut reads, mut first) = (Vec::new(), 0, None);
    while !seen.ends_with(b"0\r\n\r\n") {
        assert!(timeout(PATIENCE, socket.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
        reads += 1;
        if first.is_none() && seen.windows(9).any(|part| part == b"assistant") {
            first = Some(begun.elapsed());
        }
    }
    // 100 ms, then ten gaps of 20 ms, each give or take the default jitter of a tenth. Upper ends leave room for a busy machine.
    let (first, all) = (first.unwrap().as_millis(), begun.elapsed().as_millis());
    assert!((89..300).contains(&first), "{first} ms to the first token");
    assert!((269..900).contains(&all), "{all} ms in all");
    assert!(reads >= 6, "{reads} reads");
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413() {
    let running = start().await;
    let length = BODY_LIMIT + 1;
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: sim\r\n";
    let declared = format!("{head}content-length: {length}\r\n\r\n");
    let (answer, _) = exchange(&mut running.connect().await, &declared).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{}", " ".repeat(length));
    let (answer, _) = exchange(&mut running.connect().await, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_header_that_is_not_text_is_answered_400() {
    let running = start().await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: sim\r\nx-sim-seed: \xff\r\n\r\n").await.unwrap();
    let (answer, _) = exchange(&mut socket, "").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(r#""param":"x-sim-seed""#), "{answer}");
}

#[tokio::test]
async fn a_shutdown_lets_answers_end_and_closes_what_is_idle() {
    let running = start().await;
    let (mut idle, mut busy) = (running.connect().await, running.connect().await);
    let (answer, _) = exchange(&mut idle, &post("", false)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "));
    let slow = "x-sim-tokens-per-second: 50\r\nx-sim-output-tokens: 25\r\n";
    busy.write_all(post(slow, true).as_bytes()).await.unwrap();
    running.until_running(1).await;
    running.stop.send(()).unwrap();
    assert!(exchange(&mut idle, "").await.1, "idle connections are closed at once");
    let (answer, closed) = exchange(&mut busy, "").await;
    assert!(answer.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n") && closed, "{answer}");
    timeout(PATIENCE, running.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_hang() {
    let running = start().await;
    let mut socket = running.connect().await;
    exchange(&mut socket, &post("x-sim-hang: head\r\n", false)).await;
    running.stop.send(()).unwrap();
    timeout(PATIENCE, running.server).await.unwrap().unwrap();
    assert_eq!(running.sim.running(), 0);
    assert!(exchange(&mut socket, "").await.1);
}
