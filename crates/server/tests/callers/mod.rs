//! Tenants who call, wait and leave, in front of a backend that holds a call for as long as a test wants.
//!
//! What is waited for is seen in `/metrics`, so that the order of calls is certain however busy the machine is.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test uses some of it, and a helper of a test fails by panicking"
)]

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Plan, Script, Sluice, Upstream, Wire, completion, request_bytes};

pub(crate) const CHAT: &str = "/v1/chat/completions";
/// Long enough on any machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// For what must not happen to have happened.
pub(crate) const NEVER: Duration = Duration::from_millis(300);
/// The `user` whose calls the backend never answers.
pub(crate) const HOLD: &str = "hold";
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A key by its name: the same in the config and at the client.
pub(crate) fn key(name: &str) -> String {
    format!("key-of-{name}-0123456789")
}

/// A tenant of the config with keys of these names; `more` are further fields, like `plan: gold, `.
pub(crate) fn tenant(id: &str, more: &str, keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|name| format!("{{ name: \"{name}\", key: \"{}\" }}", key(name))).collect();
    format!("  - {{ id: {id}, {more}keys: [ {} ] }}\n", keys.join(", "))
}

/// Holds calls of [`HOLD`], answers the others at once with their own name.
pub(crate) fn holding() -> Plan {
    Plan::made(|request| match request.json()["user"].as_str() {
        Some(HOLD) => Script::new().hang(),
        user => Script::json(200, completion("m", user.unwrap_or("nobody"))),
    })
}

/// A call on its way.
pub(crate) struct Sent {
    pub(crate) user: String,
    pub(crate) wire: Wire,
}

/// What a call is like beside its user.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Like<'a> {
    pub(crate) key: &'a str,
    pub(crate) priority: &'a str,
    /// The model; `m` where empty.
    pub(crate) model: &'a str,
    /// Further fields of the body, each with a comma before it.
    pub(crate) body: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

/// Sends a call and reads nothing.
pub(crate) async fn send(sluice: &Sluice, user: &str, like: Like<'_>) -> Sent {
    let bearer = format!("Bearer {}", key(like.key));
    let mut headers = like.headers.to_vec();
    if !like.key.is_empty() {
        headers.push(("authorization", &bearer));
    }
    if !like.priority.is_empty() {
        headers.push(("x-sluice-priority", like.priority));
    }
    let model = if like.model.is_empty() { "m" } else { like.model };
    let body =
        format!(r#"{{"model":"{model}","user":"{user}","messages":[{{"role":"user","content":"hi"}}]{}}}"#, like.body);
    let mut wire = Wire::connect(&sluice.url("")).await.unwrap();
    wire.send(request_bytes("POST", CHAT, &headers, body)).await.unwrap();
    Sent { user: user.to_owned(), wire }
}

/// Sends a call and waits until it is in line behind `before` others.
pub(crate) async fn join(sluice: &Sluice, user: &str, like: Like<'_>, before: usize) -> Sent {
    let sent = send(sluice, user, like).await;
    waiting(sluice, before + 1).await;
    sent
}

impl Sent {
    pub(crate) async fn answer(&mut self) -> testkit::Answer {
        self.wire.answer(SOON).await.unwrap_or_else(|ended| panic!("{}: no answer: {ended:?}", self.user))
    }

    /// Its answer, which must be the backend's to this very call.
    pub(crate) async fn answered(&mut self) -> testkit::Answer {
        let answer = self.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, completion("m", &self.user)), "{}", self.user);
        answer
    }

    /// Its answer, which must be an error: status, code, message.
    pub(crate) async fn refused(&mut self) -> (u16, String, String, testkit::Answer) {
        let answer = self.answer().await;
        let body = answer.json();
        let text = |name: &str| body["error"][name].as_str().unwrap_or("none").to_owned();
        (answer.status(), text("code"), text("message"), answer)
    }
}

/// Everybody is answered.
pub(crate) async fn all_answered(calls: &mut [Sent]) {
    for call in calls {
        call.answered().await;
    }
}

/// The users of the backend's calls in the order they came, without [`HOLD`].
pub(crate) fn order(upstream: &Upstream) -> Vec<String> {
    let users = upstream.requests().into_iter().map(|request| request.json()["user"].as_str().unwrap().to_owned());
    users.filter(|user| user != HOLD).collect()
}

/// Looks at a sample (its sum over the labels not given) until it has a value.
pub(crate) async fn sample(sluice: &Sluice, name: &str, labels: &[(&str, &str)], value: f64) {
    let deadline = Instant::now() + SOON;
    loop {
        let found = sluice.metrics().await.value(name, labels);
        if found == value {
            return;
        }
        assert!(Instant::now() < deadline, "{name} {labels:?} is {found} and never became {value}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until so many calls wait in line.
pub(crate) async fn waiting(sluice: &Sluice, count: usize) {
    sample(sluice, "sluice_queue_waiting", &[], count as f64).await;
}

/// What must be zero when nobody calls.
const HELD: [&str; 8] = [
    "sluice_queue_waiting",
    "sluice_queue_waiting_bytes",
    "sluice_instance_busy",
    "sluice_instance_kv_tokens_used",
    "sluice_quota_used",
    "sluice_quota_borrowed",
    "sluice_node_resources_used",
    "sluice_requests_in_flight",
];

/// Nothing is held by anybody any more.
pub(crate) async fn idle(sluice: &Sluice) {
    for name in HELD {
        sample(sluice, name, &[], 0.0).await;
    }
}

/// Puts another config in place, and comes back when calls go by it.
pub(crate) async fn reload(sluice: &Sluice, text: &str) {
    let config = async || {
        let answer = testkit::get(&sluice.url("/v1/nothing")).await;
        answer.header("x-sluice-config").expect("on every error").to_owned()
    };
    let before = config().await;
    sluice.rewrite_config(text);
    let deadline = Instant::now() + SOON;
    while config().await == before {
        assert!(Instant::now() < deadline, "the config was never reloaded");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The admin API's answer, shown the token kept in the data directory.
pub(crate) async fn admin(sluice: &Sluice, path: &str) -> Value {
    let token = std::fs::read_to_string(sluice.launched().data_dir().join("admin-token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let answer = testkit::request("GET", &sluice.admin_url(path), &[("authorization", &bearer)], "").await.unwrap();
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()
}
