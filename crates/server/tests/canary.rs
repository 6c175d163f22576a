//! Secrets and words placed everywhere they belong are found nowhere else: not in logs, metrics, answers to others, nor in
//! any file Sluice keeps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use testkit::{Plan, Script, Sluice, Upstream, completion, delta, eventually, get, request, usage};

const CHAT: &str = "/v1/chat/completions";
/// Long enough on any machine.
const SOON: Duration = Duration::from_secs(10);

/// What must not be found, by what it is.
const CANARIES: [(&str, &str); 7] = [
    ("provider key", "sk-provider-canary-7f3a91"),
    ("provider header", "provider-header-canary-52b8"),
    ("API key", "api-key-canary-0123456789abcdef"),
    ("admin token", "admin-token-canary-0123456789"),
    ("prompt", "prompt-canary-the-merger-is-on-friday"),
    ("answer", "answer-canary-nobody-must-know"),
    ("wrong key", "wrong-key-canary-0123456789abcdef"),
];

fn canary(what: &str) -> &'static str {
    CANARIES.iter().find(|(name, _)| *name == what).unwrap().1
}

fn config(backend: &str) -> String {
    format!(
        "admin: {{ token: \"{admin}\" }}
prices: [ {{ model: m, from: 2026-01-01, input_per_1m_tokens: \"1\", output_per_1m_tokens: \"2\" }} ]
plans: [ {{ name: p, rps: 50, explain: true, budgets: [ {{ limit: \"0.05\", per: day }} ] }} ]
tenants: [ {{ id: acme, plan: p, keys: [ {{ name: k, key: \"{key}\" }} ] }} ]
models:
  - {{ model_name: m, endpoint: \"{backend}\", api_key: \"{provider}\", headers: {{ x-secret: \"{header}\" }} }}
  - {{ model_name: gone, endpoint: \"http://127.0.0.1:9\", api_key: \"{provider}\" }}
",
        admin = canary("admin token"),
        key = canary("API key"),
        provider = canary("provider key"),
        header = canary("provider header"),
    )
}

/// A backend that answers, streams, breaks off and refuses, as the `user` of a request wants it.
fn backend() -> Upstream {
    let answer = canary("answer");
    Upstream::start(Plan::made(move |request| match request.json()["user"].as_str() {
        Some("stream") => Script::sse([delta("m", answer), usage("m", 5, 2), "[DONE]".into()]),
        Some("break") => Script::sse_head().event(delta("m", answer)).reset(),
        Some("refuse") => Script::json(500, r#"{"error":{"message":"no"}}"#),
        Some("nonsense") => Script::json(200, answer),
        _ => Script::json(200, completion("m", answer)),
    }))
}

/// Calls in every way that ends differently.
async fn live(sluice: &Sluice) {
    let prompt = canary("prompt");
    for key in [canary("API key"), canary("wrong key")] {
        let bearer = format!("Bearer {key}");
        for user in ["whole", "stream", "break", "refuse", "nonsense"] {
            for model in ["m", "gone", "unknown"] {
                let stream = matches!(user, "stream" | "break");
                let body = format!(
                    r#"{{"model":"{model}","user":"{user}","stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
                );
                let headers = [("authorization", bearer.as_str()), ("x-sluice-explain", "true")];
                // However it ends: what is said about it is looked at afterwards.
                drop(request("POST", &sluice.url(CHAT), &headers, &body).await);
            }
        }
        let broken = format!(r#"{{"model":"m","messages":"{prompt}"#);
        drop(request("POST", &sluice.url(CHAT), &[("authorization", &bearer)], &broken).await);
        drop(request("GET", &sluice.url("/v1/models/m"), &[("x-api-key", key)], "").await);
    }
    for token in [canary("admin token"), canary("wrong key"), canary("API key")] {
        let bearer = format!("Bearer {token}");
        for path in ["/admin/v1/tenants", "/admin/v1/tenants/acme/keys", "/admin/v1/queues", "/admin/v1/openapi.json"] {
            drop(request("GET", &sluice.admin_url(path), &[("authorization", &bearer)], "").await);
        }
        let body = format!(r#"{{"id":"{token}","nonsense":"{prompt}"}}"#);
        drop(request("POST", &sluice.admin_url("/admin/v1/tenants"), &[("authorization", &bearer)], &body).await);
    }
}

/// Every file below a folder.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let (mut left, mut found) = (vec![folder], Vec::new());
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push(path);
        }
    }
    found
}

fn search(place: &str, bytes: &[u8], found: &mut Vec<String>) {
    for (what, words) in CANARIES {
        if bytes.windows(words.len()).any(|window| window == words.as_bytes()) {
            found.push(format!("the {what} is in {place}"));
        }
    }
}

#[tokio::test]
async fn no_secret_and_no_word_of_a_client_is_in_any_log_metric_or_file() {
    let upstream = backend();
    let mut sluice = Sluice::launch().config(config(&upstream.url())).env("SLUICE_LOG", "debug").start().await;
    live(&sluice).await;
    sluice.rewrite_config(&(config(&upstream.url()) + "nonsense: 1\n"));
    assert!(eventually(SOON, || sluice.stderr().contains("is not usable")).await);
    // What was meant for the backend got there, or none of this would show anything.
    let seen = upstream.requests();
    assert!(seen.iter().any(|request| request.text().contains(canary("prompt"))));
    assert!(seen.iter().all(|request| request.header("authorization").unwrap().contains(canary("provider key"))));
    let charged = |sluice: &Sluice| sluice.stdout().matches("\"tokens\"").count() >= 2;
    assert!(eventually(SOON, || charged(&sluice)).await);
    let metrics = get(&sluice.admin_url("/metrics")).await.text();
    let data = sluice.launched().data_dir();
    // Killed: whatever was only in memory is gone, and whatever was written is as it was.
    sluice.kill();
    let mut found = Vec::new();
    search("the metrics", metrics.as_bytes(), &mut found);
    search("the access log", sluice.stdout().as_bytes(), &mut found);
    search("the operator's log", sluice.stderr().as_bytes(), &mut found);
    let kept = files(data);
    assert!(kept.iter().any(|file| file.extension().is_some_and(|end| end == "db")), "{kept:?}");
    for file in kept {
        search(&file.display().to_string(), &std::fs::read(&file).unwrap(), &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}
