//! The chain: what requests pass before they are answered, in the order and with the rules the config gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Answer, Plan, Script, Sluice, Upstream, completion, eventually, request};

const CHAT: &str = "/v1/chat/completions";
/// Long enough on any machine.
const SOON: Duration = Duration::from_secs(10);
const KEY: &str = "key-of-the-tests-0123456789";
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;

/// A config over a backend; `more` are further sections, `plan` what the one plan says.
fn config(backend: &str, plan: &str, more: &str) -> String {
    format!(
        "models:
  - {{ model_name: m, endpoint: \"{backend}\" }}
  - {{ model_name: other, endpoint: \"{backend}\" }}
plans: [ {{ name: p{plan} }} ]
tenants: [ {{ id: acme, plan: p, keys: [ {{ name: k, key: \"{KEY}\" }} ] }} ]
{more}"
    )
}

fn backend() -> Upstream {
    Upstream::start(Plan::made(|_| Script::json(200, completion("m", "hello"))))
}

async fn ask(sluice: &Sluice, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    request(method, &sluice.url(path), headers, body).await.unwrap()
}

/// A call with the key.
async fn send(sluice: &Sluice, headers: &[(&str, &str)], body: &str) -> Answer {
    let bearer = format!("Bearer {KEY}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    ask(sluice, "POST", CHAT, &all, body).await
}

#[tokio::test]
async fn a_page_of_a_listed_origin_is_let_in_and_told_so_even_when_refused() {
    let backend = backend();
    let cors = "cors: { origins: [ \"https://app.example.com\" ] }\n";
    let sluice = Sluice::start(config(&backend.url(), "", cors)).await;
    let question = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let preflight = ask(&sluice, "OPTIONS", CHAT, &question, "").await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
    let answer = send(&sluice, &[("origin", "https://app.example.com")], BODY).await;
    assert_eq!((answer.status(), answer.header("vary")), (200, Some("origin")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    let refused = ask(&sluice, "POST", CHAT, &[("origin", "https://app.example.com")], BODY).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example.com"));
    let stranger = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let preflight = ask(&sluice, "OPTIONS", CHAT, &stranger, "").await;
    assert_eq!((preflight.header("access-control-allow-origin"), preflight.header("vary")), (None, Some("origin")));
    let answer = send(&sluice, &[("origin", "https://evil.example")], BODY).await;
    assert_eq!(
        (answer.status(), answer.header("access-control-allow-origin"), answer.header("vary")),
        (200, None, Some("origin")),
        "the browser keeps it back, and a cache keeps it from a listed page"
    );
    let answer = send(&sluice, &[], BODY).await;
    assert_eq!(
        (answer.status(), answer.header("vary")),
        (200, Some("origin")),
        "nor is what no page asked for given to one"
    );
    assert_eq!(ask(&sluice, "OPTIONS", CHAT, &[], "").await.status(), 405, "that is no question of a browser's");
}

#[tokio::test]
async fn addresses_are_kept_out_by_the_filter_and_by_a_keys_networks() {
    let backend = backend();
    let more = "ip_filter: { deny: [ 198.51.100.0/24 ] }\nproxies: [ 127.0.0.0/8 ]\n";
    let text = config(&backend.url(), "", more).replace("name: k,", "name: k, networks: [ 192.0.2.0/24 ],");
    let sluice = Sluice::start(text).await;
    let from = async |address: &str| send(&sluice, &[("x-forwarded-for", address)], BODY).await;
    assert_eq!(from("192.0.2.7").await.status(), 200);
    let denied = from("192.0.2.7, 198.51.100.9").await;
    assert_eq!((denied.status(), denied.json()["error"]["code"].as_str()), (403, Some("not_allowed")));
    assert!(denied.text().contains("are not let in"));
    assert!(from("203.0.113.1").await.text().contains("may not be used from this address"));
    assert_eq!(send(&sluice, &[], BODY).await.status(), 403, "loopback is not the key's network");
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn models_that_are_not_a_keys_are_neither_called_nor_shown() {
    let backend = backend();
    let sluice = Sluice::start(config(&backend.url(), ", models: [ \"ot*\" ]", "")).await;
    let refused = send(&sluice, &[], BODY).await;
    assert_eq!((refused.status(), refused.json()["error"]["param"].as_str()), (403, Some("model")));
    assert_eq!(send(&sluice, &[], &BODY.replace("\"m\"", "\"other\"")).await.status(), 200);
    let bearer = format!("Bearer {KEY}");
    let list = ask(&sluice, "GET", "/v1/models", &[("authorization", &bearer)], "").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&sluice, "GET", "/v1/models/m", &[("authorization", &bearer)], "").await.status(), 404);
}

#[tokio::test]
async fn requests_are_made_what_the_plan_wants_and_a_models_own_chain_can_leave_that_out() {
    let backend = backend();
    let plan =
        ", preprocess: { max_tokens: 5, defaults: { temperature: 0 }, system_prompt: Hi, fields: [ max_tokens ] }";
    let text = config(&backend.url(), plan, "").replace("model_name: other,", "model_name: other, middleware: [],");
    let sluice = Sluice::start(text).await;
    assert_eq!(send(&sluice, &[], BODY).await.status(), 200);
    let seen = backend.last_request().json();
    assert_eq!((seen["max_tokens"].as_u64(), seen["temperature"].as_u64()), (Some(5), Some(0)));
    assert_eq!(seen["messages"][0]["content"].as_str(), Some("Hi"));
    let refused = send(&sluice, &[], &BODY.replace("\"model\"", "\"n\":9,\"model\"")).await;
    assert_eq!((refused.status(), refused.json()["error"]["param"].as_str()), (400, Some("n")));
    assert_eq!(send(&sluice, &[], &BODY.replace("\"m\"", "\"other\"")).await.status(), 200);
    assert!(backend.last_request().json().get("max_tokens").is_none());
}

#[tokio::test]
async fn what_is_not_in_the_chain_does_not_happen_and_a_reload_changes_it() {
    let backend = backend();
    let with =
        |list: &str| config(&backend.url(), ", preprocess: { max_tokens: 5 }", &format!("middleware: [ {list} ]\n"));
    let sluice = Sluice::start(with("authenticate, verify_signature")).await;
    assert_eq!(send(&sluice, &[("x-request-id", "quiet")], BODY).await.status(), 200);
    assert!(backend.last_request().json().get("max_tokens").is_none());
    sluice.rewrite_config(&with("access_log, authenticate, verify_signature, preprocess"));
    let in_force = |sluice: &Sluice| sluice.stderr().contains("config reloaded");
    assert!(eventually(SOON, || in_force(&sluice)).await);
    assert_eq!(send(&sluice, &[("x-request-id", "loud")], BODY).await.status(), 200);
    assert!(backend.last_request().json().get("max_tokens").is_some());
    assert!(eventually(SOON, || sluice.stdout().contains("\"loud\"")).await);
    assert!(!sluice.stdout().contains("\"quiet\""));
}

/// What `sluice check` says of a config.
fn check(name: &str, text: &str) -> (bool, String) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(["check", "-c"]).arg(&path).env_clear().output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_chain_that_lets_everybody_in_is_refused_unless_that_is_said_and_makes_sense() {
    let keyless = |auth: &str, list: &str| {
        format!("{auth}middleware: [ {list} ]\nmodels: [ {{ model_name: m, endpoint: \"http://127.0.0.1:9\" }} ]\n")
    };
    // Without a word about it the door is open only until there is a first key, which the store may hold.
    let (good, said) = check("gates-open.yaml", &keyless("", "access_log, cors"));
    assert!(!good && said.contains("also once there are keys") && said.contains("gates-open.yaml:1:"), "{said}");
    assert!(!check("gates-open.yaml", &keyless("", "")).0);
    assert!(!check("gates-open.yaml", &keyless("auth: required\n", "access_log")).0);
    assert!(check("gates-open.yaml", &keyless("auth: none\n", "access_log")).0);
    assert!(check("gates-open.yaml", &keyless("", "authenticate, verify_signature")).0);
    let keys = config("http://127.0.0.1:9", "", "auth: none\nmiddleware: [ access_log ]\n");
    let (good, said) = check("gates-open.yaml", &keys);
    assert!(!good && said.contains("does not look at the keys, tokens and certificates"), "{said}");
}

#[test]
fn a_senseless_chain_is_refused_with_the_reason() {
    let more = "middleware: [ preprocess, authenticate, cors, cors ]\ncors: { origins: [ example.com ] }\n";
    let text = config("http://127.0.0.1:9", "", more)
        .replace("model_name: other,", "model_name: other, middleware: [ cors ],");
    let (good, said) = check("gates-senseless.yaml", &text);
    assert!(!good);
    for words in [
        "gates-senseless.yaml:6:15",
        "`authenticate` must stand before `preprocess`: whose plan it is must be known",
        "`cors` must stand before `authenticate`: browsers ask without a credential",
        "`cors` is listed twice",
        "it can only stand in the top-level `middleware`",
        "must be an origin, as in https://app.example.com",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}
