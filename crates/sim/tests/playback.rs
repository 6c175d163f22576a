//! Plans played in-process, on a clock that the tests turn.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::time::Duration;

use http::Method;
use sim::{Ended, Plan, Settings, Sim};
use tokio::time::{Instant, sleep, timeout};

fn plan(sim: &Sim, headers: &[(&str, &'static str)], stream: bool) -> Plan {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let body = format!(r#"{{"model":"sim","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    sim.plan(&Method::POST, "/v1/chat/completions", header, body.as_bytes())
}

fn steady() -> Sim {
    Sim::new(Settings { jitter: 0.0, ..Settings::default() })
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_its_time_to_first_token_and_then_its_pace() {
    let (sim, begun) = (steady(), Instant::now());
    let (head, mut playback) = plan(&sim, &[], true).start().await;
    assert_eq!((head.status.as_u16(), begun.elapsed()), (200, Duration::ZERO));
    let mut times = Vec::new();
    while let Some(piece) = playback.next().await {
        assert!(!piece.unwrap().is_empty());
        times.push(begun.elapsed().as_millis() as u64);
    }
    let mut expected: Vec<u64> = (0..32).map(|token| 50 + 10 * token).collect();
    expected.push(360);
    assert_eq!(times, expected);
    assert_eq!(playback.next().await, None, "and it stays over");
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_has_its_head_when_its_last_token_would_have_come() {
    let (sim, begun) = (steady(), Instant::now());
    let (_, mut playback) = plan(&sim, &[], false).start().await;
    assert_eq!(begun.elapsed().as_millis(), 360);
    assert!(playback.next().await.unwrap().is_ok());
    assert_eq!(playback.next().await, None);
    assert_eq!(begun.elapsed().as_millis(), 360);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_late_finds_the_stream_where_it_would_be_by_now() {
    let (sim, begun) = (steady(), Instant::now());
    let (_, mut playback) = plan(&sim, &[], true).start().await;
    sleep(Duration::from_millis(200)).await;
    for _ in 0..16 {
        playback.next().await.unwrap().unwrap();
    }
    assert_eq!(begun.elapsed().as_millis(), 200);
    playback.next().await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_millis(), 210);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_loses_no_piece() {
    let sim = steady();
    let whole: Vec<u8> = plan(&sim, &[("x-sim-seed", "1")], true).steps.flat_map(|step| step.bytes).collect();
    let (_, mut playback) = plan(&sim, &[("x-sim-seed", "1")], true).start().await;
    let mut seen = Vec::new();
    loop {
        match timeout(Duration::from_millis(3), playback.next()).await {
            Err(_) => {}
            Ok(Some(piece)) => seen.extend_from_slice(&piece.unwrap()),
            Ok(None) => break,
        }
    }
    assert_eq!(seen, whole);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_an_error_once_and_a_hang_is_silence() {
    let sim = steady();
    let day = Duration::from_secs(86_400);
    let (_, mut cut) = plan(&sim, &[("x-sim-cut-after", "2")], true).start().await;
    for _ in 0..3 {
        cut.next().await.unwrap().unwrap();
    }
    assert_eq!((cut.next().await, cut.next().await), (Some(Err(Ended)), None));

    let (_, mut hang) = plan(&sim, &[("x-sim-hang", "stream")], true).start().await;
    for _ in 0..2 {
        hang.next().await.unwrap().unwrap();
    }
    assert!(timeout(day, hang.next()).await.is_err());

    drop((cut, hang));
    assert!(timeout(day, plan(&sim, &[("x-sim-hang", "head")], false).start()).await.is_err());
    assert_eq!(sim.running(), 0, "a call that is given up is in flight no more");
}
