//! What the engine plans, without any clock or socket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use sim::{End, Plan, Settings, Sim};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const EMBED: &str = "/v1/embeddings";

fn plan(sim: &Sim, path: &str, headers: &[(&str, &'static str)], body: &Value) -> Plan {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    sim.plan(&Method::POST, path, header, body.to_string().as_bytes())
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "sim", "messages": [{"role": "user", "content": "Tell me a story."}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// Status, whole body, and how it ended.
fn play(mut plan: Plan) -> (u16, String, End) {
    let bytes: Vec<u8> = plan.steps.by_ref().flat_map(|step| step.bytes.to_vec()).collect();
    let status = plan.head.as_ref().map_or(0, |head| head.status.as_u16());
    (status, String::from_utf8(bytes).unwrap(), plan.steps.end())
}

fn answer(sim: &Sim, path: &str, headers: &[(&str, &'static str)], body: &Value) -> Value {
    let (status, body, end) = play(plan(sim, path, headers, body));
    assert_eq!((status, end), (200, End::Done), "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The data of each event; the last must be `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    let mut data: Vec<&str> =
        body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn sim() -> Sim {
    Sim::new(Settings::default())
}

#[test]
fn the_same_seed_and_calls_give_the_same_bytes_and_waits() {
    let run = |seed| {
        let sim = Sim::new(Settings { seed, failure_rate: 0.2, hang_rate: 0.1, cut_rate: 0.2, ..Settings::default() });
        (0..50)
            .map(|number| {
                let plan = plan(&sim, CHAT, &[], &chat(json!({"stream": number % 2 == 0})));
                (plan.head.as_ref().map(|head| (head.status, head.after)), plan.steps.collect::<Vec<_>>())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_text_follows_the_prompt_and_the_seed_not_the_order_of_calls() {
    let sim = sim();
    let text = |headers: &[(&str, &'static str)], prompt: &str| {
        let body = json!({"model": "sim", "messages": [{"role": "user", "content": prompt}]});
        answer(&sim, CHAT, headers, &body)["choices"][0]["message"]["content"].clone()
    };
    let first = text(&[], "a");
    assert_ne!(first, text(&[], "b"));
    assert_eq!(first, text(&[], "a"));
    assert_ne!(first, text(&[("x-sim-seed", "9")], "a"));
}

#[test]
fn a_call_with_its_own_seed_repeats_whole_whatever_came_before() {
    let sim = Sim::new(Settings { failure_rate: 0.5, ..Settings::default() });
    let once = || play(plan(&sim, CHAT, &[("x-sim-seed", "4")], &chat(json!({}))));
    let first = once();
    assert!((0..20).all(|_| once() == first));
}

#[test]
fn a_stream_has_one_chunk_per_token_and_usage_only_when_asked() {
    let sim = sim();
    for (path, base) in [(CHAT, chat(json!({}))), (TEXT, json!({"model": "sim", "prompt": "Tell me a story."}))] {
        for tokens in [1, 2, 32] {
            for with_usage in [false, true] {
                let mut body = base.clone();
                body["stream"] = true.into();
                body["max_tokens"] = tokens.into();
                body["stream_options"] = json!({"include_usage": with_usage});
                let steps = plan(&sim, path, &[], &body).steps.count();
                assert_eq!(steps, tokens + 1, "{path}: a step per token, and the closing");

                let mut events = events(&play(plan(&sim, path, &[], &body)).1);
                if with_usage {
                    let usage = events.pop().unwrap();
                    assert_eq!(usage["choices"], json!([]));
                    let total = json!({"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": 4 + tokens});
                    assert_eq!(usage["usage"], total);
                }
                assert!(events.iter().all(|event| event.get("usage") == with_usage.then_some(&Value::Null)));
                let finish = events.pop().unwrap()["choices"][0]["finish_reason"].clone();
                assert_eq!(finish, if tokens < 32 { "length" } else { "stop" });
                let said = |event: &Value| {
                    let choice = &event["choices"][0];
                    choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap().to_owned()
                };
                let said: Vec<String> = events.iter().map(said).filter(|text| !text.is_empty()).collect();
                assert_eq!(said.len(), tokens);
                assert_eq!(said.concat().split(' ').count(), tokens);
            }
        }
    }
}

#[test]
fn a_whole_answer_says_what_the_stream_says_and_takes_as_long() {
    let body = chat(json!({"n": 2}));
    let whole = plan(&sim(), CHAT, &[], &body);
    let waited = whole.head.as_ref().unwrap().after;
    let whole: Value = serde_json::from_str(&play(whole).1).unwrap();
    assert_eq!(whole["usage"], json!({"prompt_tokens": 4, "completion_tokens": 64, "total_tokens": 68}));

    let mut streamed = body;
    streamed["stream"] = true.into();
    let total: Duration = plan(&sim(), CHAT, &[], &streamed).steps.map(|step| step.after).sum();
    assert_eq!(total, waited);
    let mut texts = [String::new(), String::new()];
    for event in events(&play(plan(&sim(), CHAT, &[], &streamed)).1) {
        let choice = &event["choices"][0];
        texts[choice["index"].as_u64().unwrap() as usize] += choice["delta"]["content"].as_str().unwrap_or("");
    }
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["message"]["content"], *text);
    }
    assert_ne!(texts[0], texts[1]);
}

#[test]
fn waits_are_those_of_the_settings_unless_headers_say_otherwise() {
    let sim = Sim::new(Settings { jitter: 0.0, ..Settings::default() });
    let waits = |headers: &[(&str, &'static str)]| {
        let plan = plan(&sim, CHAT, headers, &chat(json!({"stream": true})));
        plan.steps.map(|step| step.after.as_millis() as u64).collect::<Vec<_>>()
    };
    let expected = |first, each, tokens: usize| {
        let mut waits = vec![each; tokens];
        waits[0] = first;
        waits.push(0);
        waits
    };
    assert_eq!(waits(&[]), expected(50, 10, 32));
    assert_eq!(waits(&[("x-sim-ttft-ms", "7")]), expected(7, 10, 32));
    assert_eq!(waits(&[("x-sim-tokens-per-second", "0")]), expected(50, 0, 32));
    assert_eq!(waits(&[("x-sim-tokens-per-second", "2.5"), ("x-sim-output-tokens", "3")]), expected(50, 400, 3));
}

#[test]
fn jitter_keeps_every_wait_within_its_fraction() {
    let sim = Sim::new(Settings { jitter: 0.5, output_tokens: 1000, ..Settings::default() });
    let waits: Vec<u64> = plan(&sim, CHAT, &[], &chat(json!({"stream": true})))
        .steps
        .skip(1)
        .map(|step| step.after.as_micros() as u64)
        .filter(|wait| *wait > 0)
        .collect();
    assert!(waits.iter().all(|wait| (5_000..=15_000).contains(wait)));
    assert!(*waits.iter().min().unwrap() < 6_000 && *waits.iter().max().unwrap() > 14_000);
    let mean = waits.iter().sum::<u64>() / waits.len() as u64;
    assert!((9_700..10_300).contains(&mean), "{mean}");
}

#[test]
fn the_callers_limit_shortens_an_answer_and_never_lengthens_it() {
    let sim = sim();
    let tokens = |headers: &[(&str, &'static str)], extra| {
        answer(&sim, CHAT, headers, &chat(extra))["usage"]["completion_tokens"].as_u64().unwrap()
    };
    assert_eq!(tokens(&[], json!({"max_tokens": 5})), 5);
    assert_eq!(tokens(&[], json!({"max_completion_tokens": 6, "max_tokens": 5})), 6);
    assert_eq!(tokens(&[], json!({"max_tokens": 100_000})), 32);
    assert_eq!(tokens(&[], json!({"max_tokens": null})), 32);
    assert_eq!(tokens(&[("x-sim-output-tokens", "40")], json!({"max_tokens": 39})), 39);
}

#[test]
fn a_tool_that_must_be_called_is_called() {
    let sim = sim();
    let tools =
        json!([{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "b"}}]);
    let named = json!({"type": "function", "function": {"name": "b"}});
    for (choice, name) in [(json!("required"), "a"), (named, "b")] {
        let body = chat(json!({"tools": tools, "tool_choice": choice}));
        let choice = answer(&sim, CHAT, &[], &body)["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(choice["message"]["tool_calls"][0]["function"], json!({"name": name, "arguments": "{}"}));

        let mut body = body;
        body["stream"] = true.into();
        let events = events(&play(plan(&sim, CHAT, &[], &body)).1);
        let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]).collect();
        assert_eq!(deltas.len(), 3);
        assert_eq!(deltas[0]["function"], json!({"name": name, "arguments": ""}));
        assert_eq!(deltas[1]["function"], json!({"arguments": "{}"}));
        assert_eq!(events[2]["choices"][0]["finish_reason"], "tool_calls");
    }
    let choice = answer(&sim, CHAT, &[], &chat(json!({"tools": tools, "tool_choice": "auto"})))["choices"][0].clone();
    assert!(choice["message"]["content"].is_string());
}

#[test]
fn embeddings_are_unit_vectors_that_follow_the_input() {
    let sim = sim();
    let embed = |input: Value, extra: Value| {
        let mut body = json!({"model": "sim", "input": input});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        answer(&sim, EMBED, &[], &body)
    };
    let floats = |answer: &Value, index: usize| -> Vec<f32> {
        serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap()
    };
    let both = embed(json!(["a", "b"]), json!({}));
    assert_eq!(both["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
    let (a, b) = (floats(&both, 0), floats(&both, 1));
    assert_ne!(a, b);
    assert_eq!(a, floats(&embed(json!("a"), json!({})), 0));
    for (vector, length) in [(a, 64), (floats(&embed(json!([1, 2, 3]), json!({"dimensions": 7})), 0), 7)] {
        assert_eq!(vector.len(), length);
        let norm: f32 = vector.iter().map(|part| part * part).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    let tokens = embed(json!([[1, 2], [3]]), json!({}));
    assert_eq!((tokens["data"].as_array().unwrap().len(), &tokens["usage"]["prompt_tokens"]), (2, &json!(3)));
}

#[test]
fn base64_embeddings_decode_to_the_float_ones() {
    fn decode(text: &str) -> Vec<f32> {
        const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        assert_eq!(text.len() % 4, 0);
        let bits = text.trim_end_matches('=').chars().map(|letter| ALPHABET.find(letter).unwrap());
        let bits: String = bits.map(|value| format!("{value:06b}")).collect();
        let bytes: Vec<u8> =
            (0..bits.len() / 8).map(|at| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).unwrap()).collect();
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }
    let sim = sim();
    // Lengths whose bytes leave 0, 1 and 2 over in groups of three.
    for dimensions in [1, 2, 3, 64] {
        let embed = |format: &str| {
            let body = json!({"model": "sim", "input": "x", "encoding_format": format, "dimensions": dimensions});
            answer(&sim, EMBED, &[], &body)["data"][0]["embedding"].clone()
        };
        let floats: Vec<f32> = serde_json::from_value(embed("float")).unwrap();
        assert_eq!(floats.len(), dimensions);
        assert_eq!(decode(embed("base64").as_str().unwrap()), floats);
    }
}

#[test]
fn faults_come_as_often_as_their_rates_say() {
    let rates =
        Settings { failure_rate: 0.2, rate_limit_rate: 0.1, hang_rate: 0.1, cut_rate: 0.5, ..Settings::default() };
    let sim = Sim::new(rates);
    let mut counts = std::collections::BTreeMap::<_, u32>::new();
    for _ in 0..4000 {
        let plan = plan(&sim, CHAT, &[], &chat(json!({"stream": true})));
        if plan.head.as_ref().is_some_and(|head| head.status == 429) {
            assert_eq!(plan.head.as_ref().unwrap().headers["retry-after"], "1");
        }
        let (status, body, end) = play(plan);
        assert!(end != End::Cut || (!body.contains("[DONE]") && body.contains("content")), "a cut is mid-way");
        *counts.entry((status, format!("{end:?}"))).or_default() += 1;
    }
    let near = |status, end: &str, share: f64| {
        let seen = f64::from(counts.get(&(status, end.to_owned())).copied().unwrap_or(0)) / 4000.0;
        assert!((seen - share).abs() < 0.03, "{status} {end}: {seen}, not {share}");
    };
    near(0, "Done", 0.1);
    near(500, "Done", 0.1);
    near(503, "Done", 0.1);
    near(429, "Done", 0.1);
    near(200, "Cut", 0.3);
    near(200, "Done", 0.3);
}

#[test]
fn a_cut_comes_inside_the_chunk_after_those_that_were_asked_for() {
    let sim = sim();
    let whole: Vec<_> = plan(&sim, CHAT, &[], &chat(json!({"stream": true}))).steps.collect();
    for (header, chunks) in [("0", 0), ("1", 1), ("32", 32)] {
        let mut plan = plan(&sim, CHAT, &[("x-sim-cut-after", header)], &chat(json!({"stream": true})));
        let steps: Vec<_> = plan.steps.by_ref().collect();
        assert_eq!((steps.len(), plan.steps.end()), (chunks + 1, End::Cut));
        assert_eq!(steps[chunks].bytes.len(), whole[chunks].bytes.len() / 2);
    }
    let beyond = play(plan(&sim, CHAT, &[("x-sim-cut-after", "33")], &chat(json!({"stream": true}))));
    assert_eq!(beyond.2, End::Done);
    let whole_answer = play(plan(&sim, CHAT, &[("x-sim-cut-after", "0")], &chat(json!({}))));
    assert_eq!(whole_answer.2, End::Cut);
}

#[test]
fn a_status_that_is_asked_for_is_answered() {
    let sim = sim();
    for (status, code) in [("200", 200), ("401", 401), ("429", 429), ("502", 502)] {
        let headers = [("x-sim-status", status), ("x-sim-retry-after", "3")];
        let plan = plan(&sim, CHAT, &headers, &chat(json!({})));
        assert_eq!(plan.head.as_ref().unwrap().headers["retry-after"], "3");
        let (answered, body, _) = play(plan);
        assert_eq!(answered, code);
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"]["message"].is_string());
    }
}

#[test]
fn calls_in_flight_are_counted_and_shown_as_vllm_shows_them() {
    let sim = Sim::new(Settings { models: vec!["a\"b".to_owned()], ..Settings::default() });
    let mut body = chat(json!({}));
    body["model"] = "a\"b".into();
    let held = [plan(&sim, CHAT, &[], &body), plan(&sim, CHAT, &[("x-sim-hang", "head")], &body)];
    assert_eq!(sim.running(), 2);
    let text = play(sim.plan(&Method::GET, "/metrics", |_| None, b"")).1;
    assert!(text.contains("vllm:num_requests_running{model_name=\"a\\\"b\"} 2\n"), "{text}");
    assert!(text.contains("vllm:num_requests_waiting{model_name=\"a\\\"b\"} 0\n"), "{text}");
    drop(held);
    assert_eq!(sim.running(), 0);
}
