//! A shop: a Sluice with prices, tenants who pay, and a backend that says what it consumed.
//!
//! What is charged is asked of the admin API once everything under way has been posted.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test uses some of it, and a helper of a test fails by panicking"
)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Answer, Plan, Script, Sluice, Upstream, Wire, delta, request_bytes};

use crate::console::Console;

pub(crate) const CHAT: &str = "/v1/chat/completions";
/// Long enough on any machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What must be zero once everything is posted.
const OPEN: [&str; 5] = [
    "sluice_requests_in_flight",
    "sluice_daybook_open_attempts",
    "sluice_daybook_backlog_bytes",
    "sluice_ledger_waiting_charges",
    "sluice_budget_reserved",
];

/// A Sluice before a backend.
pub(crate) struct Shop {
    pub(crate) upstream: Upstream,
    pub(crate) console: Console,
}

/// What a backend says that it consumed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

/// A key by its name: the same in the config and at the client.
pub(crate) fn key(name: &str) -> String {
    format!("key-of-{name}-0123456789")
}

/// A tenant of the config on a plan, with keys of these names.
pub(crate) fn tenant(id: &str, plan: &str, keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|name| format!("{{ name: \"{name}\", key: \"{}\" }}", key(name))).collect();
    format!("  - {{ id: {id}, plan: {plan}, keys: [ {} ] }}\n", keys.join(", "))
}

/// The prices: whole numbers for a million tokens, so that a token costs so many millionths.
pub(crate) const PRICES: &str = "prices:
  - { model: m, from: \"2026-01-01\", input_per_1m_tokens: \"2\", cached_input_per_1m_tokens: \"1\", output_per_1m_tokens: \"10\", reasoning_per_1m_tokens: \"20\" }
  - { model: \"gpt-*\", from: \"2026-01-01\", input_per_1m_tokens: \"2\", output_per_1m_tokens: \"10\" }
  - { model: loud, from: \"2026-01-01\", input_per_1m_tokens: \"2\", cached_input_per_1m_tokens: \"1\", audio_input_per_1m_tokens: \"30\", output_per_1m_tokens: \"10\", audio_output_per_1m_tokens: \"60\", per_image: \"0.01\" }
  - { model: \"service:orders\", from: \"2026-01-01\", per_call: \"0.5\" }
";

// === impl Told ===

impl Told {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.input, "completion_tokens": self.output, "total_tokens": self.input + self.output,
            "prompt_tokens_details": { "cached_tokens": self.cached },
            "completion_tokens_details": { "reasoning_tokens": self.reasoning },
        })
    }

    /// A whole answer.
    pub(crate) fn whole(self, content: &str) -> String {
        let message = json!({ "role": "assistant", "content": content });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": self.json() })
            .to_string()
    }

    /// The event of a stream that says it.
    pub(crate) fn event(self) -> String {
        json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": self.json() })
            .to_string()
    }

    /// Answers whole or as a stream, as the request wants; a stream only says it where it was asked to.
    pub(crate) fn plan(self) -> Plan {
        Plan::made(move |request| {
            let body = request.json();
            if body["stream"] != true {
                return Script::json(200, self.whole("hello"));
            }
            let script = Script::sse_head().events([delta("m", "a"), delta("m", "b")]);
            let asked = body["stream_options"]["include_usage"] == true;
            if asked { script.event(self.event()).done() } else { script.done() }
        })
    }
}

// === impl Shop ===

impl Shop {
    /// Opens one; `sections` are further sections of its config, `models` further models, one a line.
    pub(crate) async fn open(backend: impl Into<Plan>, sections: &str) -> Self {
        let upstream = Upstream::start(backend);
        let sluice = Sluice::start(config(&upstream, sections)).await;
        Self { upstream, console: Console(sluice) }
    }

    pub(crate) fn sluice(&self) -> &Sluice {
        &self.console.0
    }

    /// The same after a `kill -9`.
    pub(crate) async fn restarted(self) -> Self {
        Self { console: Console(self.console.0.restarted().await), ..self }
    }

    /// A call and its answer.
    pub(crate) async fn call(&self, name: &str, more: &str) -> Answer {
        self.post(name, CHAT, &[], &chat("m", more)).await
    }

    /// Anything posted with a key, and its answer.
    pub(crate) async fn post(&self, name: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.sent(name, path, headers, body).await.answer(SOON).await.unwrap()
    }

    /// Anything posted with a key, and nothing read.
    pub(crate) async fn sent(&self, name: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Wire {
        let bearer = format!("Bearer {}", key(name));
        let headers = [headers, &[("authorization", bearer.as_str())]].concat();
        let mut wire = Wire::connect(&self.sluice().url("")).await.unwrap();
        wire.send(request_bytes("POST", path, &headers, body)).await.unwrap();
        wire
    }

    /// All that a tenant was charged, in order of time, once everything is posted.
    pub(crate) async fn charges(&self, tenant: &str) -> Vec<Value> {
        settled(self.sluice()).await;
        let page = self.console.got(&format!("/admin/v1/tenants/{tenant}/charges?limit=1000")).await;
        page["charges"].as_array().unwrap().clone()
    }

    /// Statuses of so many calls at once, each refused for money where it is not answered.
    pub(crate) async fn passed(&self, name: &str, calls: usize) -> usize {
        let mut sent = Vec::new();
        for _ in 0..calls {
            sent.push(self.sent(name, CHAT, &[], &chat("m", "")).await);
        }
        let mut passed = 0;
        for mut wire in sent {
            let answer = wire.answer(SOON).await.unwrap();
            if answer.status() == 200 {
                passed += 1;
            } else {
                spent(&answer);
            }
        }
        passed
    }
}

/// The config of a shop.
pub(crate) fn config(upstream: &Upstream, sections: &str) -> String {
    let url = upstream.url();
    format!(
        "auth: required
{PRICES}models:
  - {{ model_name: m, endpoint: \"{url}\" }}
  - {{ model_name: loud, endpoint: \"{url}\" }}
  - {{ model_name: free, endpoint: \"{url}\" }}
  - {{ model_name: gpt-4o, endpoint: \"{url}\" }}
  - {{ model_name: gpt-4o-hasty, endpoint: \"{url}\", idle_timeout_ms: 400, first_byte_timeout_ms: 400, retry: {{ attempts_max: 1 }}, health: {{ max_fails: 0 }} }}
{sections}"
    )
}

/// The body of a chat; `more` are further fields, each with a comma before it.
pub(crate) fn chat(model: &str, more: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

/// The refusal of a call for money: which SDKs do not try again.
pub(crate) fn spent(answer: &Answer) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status(), &error["code"]), (402, &json!("budget_exceeded")), "{error}");
    // What OpenAI's SDKs try again: 408, 409, 429, 5xx, and whatever says so.
    assert_eq!(answer.header("x-should-retry"), None);
    // Where only calls under way stand in the way, it is worth coming back.
    let busy = error["message"].as_str().unwrap().contains("try again when they have ended");
    assert_eq!(answer.header("retry-after"), busy.then_some("1"), "{error}");
}

/// Waits until nothing is under way, nothing is set aside and everything is posted.
pub(crate) async fn settled(sluice: &Sluice) {
    let deadline = Instant::now() + SOON;
    loop {
        let metrics = sluice.metrics().await;
        let open: Vec<_> = OPEN.iter().map(|name| (*name, metrics.get(name, &[]))).collect();
        if open.iter().all(|(_, value)| *value == Some(0.0)) {
            return;
        }
        assert!(Instant::now() < deadline, "never settled: {open:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
