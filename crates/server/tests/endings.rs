//! How an answer ends decides its bill: each way for a stream and for a whole answer, through the real binary.
//!
//! The backend writes a word that is exactly one token of the model's tokenizer, so what is due is known without one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;
mod money;

use std::time::{Duration, Instant};

use money::{CHAT, SOON, Shop, Told, chat, tenant};
use serde_json::{Value, json};
use testkit::{Script, Wire, delta};

const STREAM: &str = r#","stream":true"#;
/// Words that the client gets before whatever happens.
const WORDS: u64 = 250;
/// The prompt `hi`: a word, four tokens around a message, three before an answer.
const PROMPT: u64 = 8;
const TOLD: Told = Told { input: 11, cached: 0, output: 777, reasoning: 0 };
/// For what the backend has sent to be taken in by the gateway.
const SETTLE: Duration = Duration::from_millis(50);
const FAULT: &str = r#"{"error":{"message":"out of memory","code":500}}"#;
const MODEL: &str = "gpt-4o";
const HASTY: &str = "gpt-4o-hasty";

/// What is due.
#[derive(Debug, Clone, Copy)]
enum Due {
    Nothing,
    /// What the backend said, to the token.
    Told(&'static str),
    /// So many tokens of the answer, to a hundredth or two.
    About(&'static str, u64),
}

/// A stream that has come as far as its words.
fn words() -> Script {
    (0..WORDS).fold(Script::sse_head(), |script, _| script.event(delta(MODEL, " hello")))
}

/// The first bytes of one more event.
fn half(upto: usize) -> Vec<u8> {
    let event = format!("data: {}", delta(MODEL, "é"));
    let at = event.find('é').unwrap();
    event.as_bytes()[..if upto == 0 { at + 1 } else { upto }].to_vec()
}

/// The first part of a whole answer, cut within a letter where `at` is 0.
fn part(at: usize) -> Script {
    let body = TOLD.whole(&format!("{} é", "hello ".repeat(20)));
    let cut = if at == 0 { body.find('é').unwrap() + 1 } else { at };
    let length = body.len().to_string();
    Script::new()
        .head(200, &[("content-type", "application/json"), ("content-length", &length)])
        .send(body.as_bytes()[..cut].to_vec())
}

async fn open() -> Shop {
    // One that can pay for its prompt and some three hundred words.
    let plans = "plans:\n  - { name: free }\n  - { name: poor, budgets: [ { limit: \"0.003016\", per: total } ] }\n  - { name: broke, budgets: [ { limit: \"0.0001\", per: total } ] }\n";
    let tenants =
        [tenant("rich", "free", &["rich"]), tenant("poor", "poor", &["poor"]), tenant("broke", "broke", &["broke"])];
    Shop::open(Script::new().hang(), &format!("{plans}tenants:\n{}", tenants.concat())).await
}

/// Calls, with the name of the case as the request's id.
async fn call(shop: &Shop, key: &str, case: &str, model: &str, more: &str, script: Script) -> Wire {
    // Standing: what broke off a kept connection is asked again.
    shop.upstream.always(script);
    shop.sent(key, CHAT, &[("x-request-id", case)], &chat(model, more)).await
}

/// Reads words and no further.
async fn read(wire: &mut Wire, words: u64) {
    assert_eq!(wire.head(SOON).await.unwrap().status, 200);
    for _ in 0..words {
        assert!(wire.event(SOON).await.unwrap().data.contains("hello"));
    }
}

/// The one charge of a case, or none, is what is due.
fn check(case: &str, charges: &[Value], due: Due) {
    let of: Vec<&Value> = charges.iter().filter(|charge| charge["request"] == case).collect();
    let (ending, words) = match due {
        Due::Nothing => return assert!(of.is_empty(), "{case}: {of:?}"),
        Due::Told(ending) => (ending, None),
        Due::About(ending, words) => (ending, Some(words)),
    };
    let [charge] = of.as_slice() else { panic!("{case}: {of:?}") };
    let (input, output) = (charge["input_tokens"].as_u64().unwrap(), charge["output_tokens"].as_u64().unwrap());
    assert_eq!(charge["ending"], ending, "{case}: {charge}");
    assert_eq!(charge["estimated"], json!(words.is_some()), "{case}: {charge}");
    match words {
        None => assert_eq!((input, output), (TOLD.input, TOLD.output), "{case}: to the token"),
        Some(words) => {
            let off = |found: u64, due: u64| found.abs_diff(due) <= (due / 100).max(2);
            assert!(off(output, words), "{case}: {words} are due, not {output}");
            // A killed process cannot count a prompt any more: its guess stands.
            assert!(ending == "gateway_killed" || off(input, PROMPT), "{case}: {PROMPT} are due, not {input}");
        }
    }
    let due = format!("{:.6}", (input * 2 + output * 10) as f64 / 1e6);
    let amount: f64 = charge["amount"].as_str().unwrap().parse().unwrap();
    assert_eq!(format!("{amount:.6}"), due, "{case}: {charge}");
}

#[tokio::test]
async fn a_stream_is_charged_by_how_it_ends() {
    let shop = open().await;
    let mut due = Vec::new();

    let gone = "client-before-the-first-byte";
    let wire = call(&shop, "rich", gone, MODEL, STREAM, Script::new().hang()).await;
    assert!(shop.upstream.hanging(1, SOON).await);
    wire.reset();
    due.push((gone, Due::About("client_gone", 0)));

    let cases = [
        ("client-mid-chunk", words().data(half(20)).hang(), Due::About("client_gone", WORDS)),
        ("client-mid-letter", words().data(half(0)).hang(), Due::About("client_gone", WORDS)),
        ("client-after-usage", words().event(TOLD.event()).hang(), Due::Told("client_gone")),
    ];
    for (case, script, bill) in cases {
        let mut wire = call(&shop, "rich", case, MODEL, STREAM, script).await;
        read(&mut wire, WORDS).await;
        tokio::time::sleep(SETTLE).await;
        wire.reset();
        due.push((case, bill));
    }

    let cases = [
        ("upstream-before-the-first-byte", Script::new().reset(), Due::Nothing),
        ("upstream-mid-chunk", words().data(half(20)).pause(SETTLE).reset(), Due::About("upstream_broke", WORDS)),
        ("upstream-mid-letter", words().data(half(0)).pause(SETTLE).reset(), Due::About("upstream_broke", WORDS)),
        ("upstream-after-usage", words().event(TOLD.event()).pause(SETTLE).reset(), Due::Told("upstream_broke")),
        ("upstream-error-and-end-mark", words().event(FAULT).done(), Due::About("upstream_broke", WORDS)),
        ("upstream-error-after-usage", words().event(TOLD.event()).event(FAULT).done(), Due::Told("upstream_broke")),
        ("late-before-the-first-byte", Script::new().hang(), Due::Nothing),
        ("late-mid-chunk", words().data(half(20)).hang(), Due::About("timed_out", WORDS)),
        ("late-after-usage", words().event(TOLD.event()).hang(), Due::Told("timed_out")),
        ("whole", words().event(TOLD.event()).done(), Due::Told("complete")),
        ("whole-without-usage", words().done(), Due::About("complete", WORDS)),
    ];
    for (case, script, bill) in cases {
        let mut wire = call(&shop, "rich", case, HASTY, STREAM, script).await;
        let answer = wire.answer(SOON).await.unwrap();
        assert_eq!(answer.status() == 200, !matches!(bill, Due::Nothing), "{case}: {}", answer.text());
        due.push((case, bill));
    }
    let charges = shop.charges("rich").await;
    for (case, bill) in due {
        check(case, &charges, bill);
    }

    // The three hundredth word is the last that can be paid for.
    let mut wire = call(&shop, "poor", "cut-off", MODEL, STREAM, words().then(words_only()).hang()).await;
    let answer = wire.answer(SOON).await.unwrap();
    let handed_on = answer.events().iter().filter(|event| event.data.contains("hello")).count() as u64;
    assert!((WORDS..WORDS * 2).contains(&handed_on), "{handed_on}");
    check("cut-off", &shop.charges("poor").await, Due::About("cut_off", handed_on));
}

/// More words, without a head of their own.
fn words_only() -> Script {
    let chunk = format!("data: {}\n\n", delta(MODEL, " hello"));
    let framed = format!("{:x}\r\n{chunk}\r\n", chunk.len());
    Script::new().send(framed.repeat(usize::try_from(WORDS).unwrap()))
}

#[tokio::test]
async fn a_whole_answer_is_charged_by_how_it_ends() {
    let shop = open().await;
    let mut due = Vec::new();
    let cases = [
        ("client-before-the-first-byte", Script::new().hang()),
        ("client-mid-chunk", part(40).hang()),
        ("client-mid-letter", part(0).hang()),
        ("client-after-usage", part(TOLD.whole(&format!("{} é", "hello ".repeat(20))).len() - 1).hang()),
    ];
    for (nth, (case, script)) in cases.into_iter().enumerate() {
        let wire = call(&shop, "rich", case, MODEL, "", script).await;
        assert!(shop.upstream.arrived(nth + 1, SOON).await);
        tokio::time::sleep(SETTLE).await;
        wire.reset();
        // Nothing of it was handed on.
        due.push((case, Due::About("client_gone", 0)));
    }
    let cases = [
        ("upstream-before-the-first-byte", Script::new().reset(), Due::Nothing),
        ("upstream-mid-chunk", part(40).pause(SETTLE).reset(), Due::Nothing),
        ("upstream-mid-letter", part(0).pause(SETTLE).reset(), Due::Nothing),
        ("late-before-the-first-byte", Script::new().hang(), Due::Nothing),
        ("late-mid-chunk", part(40).hang(), Due::Nothing),
        ("late-mid-letter", part(0).hang(), Due::Nothing),
        ("whole", Script::json(200, TOLD.whole("hello")), Due::Told("complete")),
    ];
    for (case, script, bill) in cases {
        let mut wire = call(&shop, "rich", case, HASTY, "", script).await;
        let answer = wire.answer(SOON).await.unwrap();
        assert_eq!(answer.status() == 200, !matches!(bill, Due::Nothing), "{case}: {}", answer.text());
        due.push((case, bill));
    }
    let charges = shop.charges("rich").await;
    for (case, bill) in due {
        check(case, &charges, bill);
    }

    // It cannot be cut off: who cannot pay for its prompt and a few words is not let in.
    let asked = shop.upstream.requests().len();
    let refused = shop.sent("broke", CHAT, &[], &chat(MODEL, "")).await.answer(SOON).await.unwrap();
    money::spent(&refused);
    assert_eq!((shop.upstream.requests().len(), shop.charges("broke").await.len()), (asked, 0));
}

#[tokio::test]
async fn what_a_kill_breaks_off_is_charged_as_far_as_it_was_handed_on() {
    let shop = open().await;
    // Before and in the middle of a stream, after its usage, and before and in the middle of a whole answer.
    let cases = [
        ("before-the-first-byte", STREAM, Script::new().hang(), 0, Due::Nothing),
        ("mid-chunk", STREAM, words().data(half(20)).hang(), WORDS, Due::About("gateway_killed", WORDS)),
        ("mid-letter", STREAM, words().data(half(0)).hang(), WORDS, Due::About("gateway_killed", WORDS)),
        ("after-usage", STREAM, words().event(TOLD.event()).hang(), WORDS, Due::About("gateway_killed", WORDS)),
        ("a-few", STREAM, Script::sse_head().event(delta(MODEL, " hello")).hang(), 1, Due::About("gateway_killed", 1)),
        ("whole-before-the-first-byte", "", Script::new().hang(), 0, Due::Nothing),
        ("whole-mid-chunk", "", part(40).hang(), 0, Due::Nothing),
        ("whole-mid-letter", "", part(0).hang(), 0, Due::Nothing),
    ];
    let mut held = Vec::new();
    for (nth, (case, more, script, words, _)) in cases.iter().enumerate() {
        let mut wire = call(&shop, "rich", case, MODEL, more, script.clone()).await;
        assert!(shop.upstream.arrived(nth + 1, SOON).await);
        if *words > 0 {
            read(&mut wire, *words).await;
        }
        held.push(wire);
    }
    let mut done = call(&shop, "rich", "done", MODEL, STREAM, words().event(TOLD.event()).done()).await;
    assert!(done.answer(SOON).await.unwrap().is_complete());
    let shop = shop.restarted().await;
    // What the killed process left is posted before anything new is.
    let mut probe = call(&shop, "poor", "probe", MODEL, "", Script::json(200, TOLD.whole("hello"))).await;
    probe.answer(SOON).await.unwrap();
    let deadline = Instant::now() + SOON;
    while shop.charges("poor").await.is_empty() {
        assert!(Instant::now() < deadline, "never posted");
    }
    let charges = shop.charges("rich").await;
    for (case, _, _, _, bill) in cases {
        check(case, &charges, bill);
    }
    check("done", &charges, Due::Told("complete"));
    let again = shop.restarted().await;
    assert_eq!(again.charges("rich").await, charges, "once");
}
