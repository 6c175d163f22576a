//! The line against a real JSON reader, and the log against an output nobody reads.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kernel::fleet::Deployment;
use kernel::{
    Caller, Journal, KeyId, ModelName, Moment, Operation, Outcome, Receipt, RequestId, TenantId, Tokens, Usage, Version,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::drain::tests::Output;
use super::*;

const STARTED: Moment = Moment::from_micros(5_000_000);

/// 2026-11-25T10:09:23.004Z.
fn wall_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_601_363_004)
}

fn bare() -> Receipt {
    Receipt {
        id: RequestId::new("r-1"),
        at: wall_clock(),
        took: Duration::from_micros(1_234_567),
        method: "GET".into(),
        path: "/v1/models".into(),
        status: 401,
        outcome: Outcome::Failed("Unauthenticated".into()),
        caller: None,
        model: None,
        operation: None,
        priority: None,
        stream: false,
        started: STARTED,
        journal: Journal::default(),
        logged: true,
        bytes: (0, 155),
    }
}

fn full() -> Receipt {
    let deployment = Deployment {
        index: 0,
        model: ModelName::new("demo"),
        version: Version::new("v1"),
        weight: 1,
        instances: Vec::new(),
        names: Vec::new(),
        label: "demo@v1".into(),
    };
    let usage = Usage {
        input: Tokens(17),
        cached: Tokens(4),
        output: Tokens(64),
        reasoning: Tokens(2),
        estimated: true,
        ..Usage::default()
    };
    Receipt {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        status: 200,
        outcome: Outcome::Answered,
        caller: Some(Caller {
            tenant: TenantId::new("acme"),
            key: Some(KeyId::new("yu0pcNQY")),
            terms: Arc::default(),
        }),
        model: Some(ModelName::new("demo")),
        operation: Some(Operation::Chat),
        priority: Some(kernel::Priority::Low),
        stream: true,
        journal: Journal {
            queued: Duration::from_micros(12),
            put_back: 1,
            attempts: 3,
            placed: Some((Arc::new(deployment), "10.0.0.6:8000".into())),
            failures: vec![(Some("10.0.0.5:8000".into()), "connect".into()), (None, "timeout".into())],
            first_byte: Some(STARTED + Duration::from_millis(812)),
            usage: Some(usage),
            ..Journal::default()
        },
        logged: true,
        bytes: (183, 402),
        ..bare()
    }
}

fn line(receipt: &Receipt) -> String {
    let mut text = Vec::new();
    line::write(&mut text, receipt, &mut Clock::default());
    String::from_utf8(text).unwrap()
}

fn read(receipt: &Receipt) -> Value {
    let text = line(receipt);
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_line_says_everything_a_receipt_knows() {
    let expected = json!({
        "ts": "2026-11-25T10:09:23.004Z", "id": "r-1", "method": "POST", "path": "/v1/chat/completions", "status": 200,
        "outcome": "answered", "tenant": "acme", "key": "yu0pcNQY", "operation": "chat", "model": "demo",
        "version": "v1", "instance": "10.0.0.6:8000", "class": "low",
            "stream": true, "attempts": 3,
            "put_back": 1,
        "failures": [{"instance": "10.0.0.5:8000", "cause": "connect"}, {"cause": "timeout"}],
        "queue_ms": 0.012, "ttft_ms": 812.0, "took_ms": 1234.567,
        "tokens": {"input": 17, "cached": 4, "output": 64, "reasoning": 2, "estimated": true},
        "bytes_in": 183, "bytes_out": 402,
    });
    assert_eq!(read(&full()), expected);
}

#[test]
fn facts_that_are_absent_are_left_out() {
    let expected = json!({
        "ts": "2026-11-25T10:09:23.004Z", "id": "r-1", "method": "GET", "path": "/v1/models", "status": 401,
        "outcome": "failed", "cause": "Unauthenticated", "stream": false, "attempts": 0,
        "queue_ms": 0.0, "took_ms": 1234.567, "bytes_in": 0, "bytes_out": 155,
    });
    assert_eq!(read(&bare()), expected);
}

#[test]
fn a_client_that_left_is_said_to_have_left() {
    let receipt = Receipt { status: 499, outcome: Outcome::Cancelled, ..bare() };
    assert_eq!((&read(&receipt)["status"], &read(&receipt)["outcome"]), (&json!(499), &json!("cancelled")));
}

#[test]
fn a_backlog_nobody_takes_costs_lines_and_no_time() {
    let (output, open) = Output::blocked();
    let log = AccessLog::to(output.clone()).unwrap();
    let receipts: Vec<Receipt> = (0..BATCH_LINES).map(|_| bare()).collect();
    let rounds = BACKLOG.pieces + 10;
    (0..rounds).for_each(|_| log.write(&receipts));
    let (written, lost) = ((rounds * BATCH_LINES) as u64, log.dropped());
    assert!(lost > 0 && lost < written, "{lost} of {written}");
    drop(open);
    drop(log);
    assert_eq!(output.text().lines().count() as u64, written - lost);
}

proptest! {
    #[test]
    fn any_text_reads_back_as_itself(path in any::<String>(), model in "[\\x00-\\x7f]{0,40}", cause in ".{0,20}") {
        let receipt = Receipt {
            path: path.as_str().into(),
            model: Some(ModelName::new(model.as_str())),
            outcome: Outcome::Failed(cause.as_str().into()),
            ..bare()
        };
        let line = read(&receipt);
        prop_assert_eq!(line["path"].as_str(), Some(&*path));
        prop_assert_eq!(line["model"].as_str(), Some(&*model));
        prop_assert_eq!(line["cause"].as_str(), Some(&*cause));
    }

    #[test]
    fn any_time_is_written_as_jiff_writes_it(millis in 0u64..200_000_000_000_000, micros in 0u64..1000) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(millis * 1000 + micros);
        let expected = format!("{:.3}", jiff::Timestamp::from_millisecond(i64::try_from(millis).unwrap()).unwrap());
        let text = line(&Receipt { at, ..bare() });
        prop_assert_eq!(&text[7..7 + expected.len()], expected);
    }
}
