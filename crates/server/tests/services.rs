//! Plain HTTP services behind the same door and the same chain as models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Answer, Ended, Script, Sluice, Upstream, eventually, request};

const KEY: &str = "key-of-the-tests-0123456789";
/// Long enough on any machine.
const SOON: Duration = Duration::from_secs(10);

fn config(upstreams: &[&str], more: &str) -> String {
    let upstreams: Vec<String> = upstreams.iter().map(|url| format!("\"{url}\"")).collect();
    format!(
        "models: [ {{ model_name: m, provider: sim }} ]
tenants: [ {{ id: acme, keys: [ {{ name: k, key: \"{KEY}\" }} ] }} ]
services:
  - {{ path: \"/api/orders/{{*rest}}\", upstream: [ {} ]{more} }}
",
        upstreams.join(", ")
    )
}

async fn ask(sluice: &Sluice, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer, Ended> {
    let bearer = format!("Bearer {KEY}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    request(method, &sluice.url(path), &all, body).await
}

#[tokio::test]
async fn a_request_goes_on_as_it_came_and_so_does_its_answer() {
    let backend =
        Upstream::start(Script::answer(418, &[("x-pot", "tea"), ("content-type", "text/plain")], "short and stout"));
    let sluice = Sluice::start(config(&[&backend.url()], "")).await;
    let headers = [("x-color", "red"), ("x-tenant-id", "acme"), ("content-type", "text/csv")];
    let answer = ask(&sluice, "PUT", "/api/orders/7/items?all=1&x=%20", &headers, "a,b\n").await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (418, "short and stout"));
    assert_eq!((answer.header("x-pot"), answer.header("content-type")), (Some("tea"), Some("text/plain")));
    let seen = backend.last_request();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/api/orders/7/items?all=1&x=%20"));
    assert_eq!(seen.text(), "a,b\n");
    assert_eq!((seen.header("x-color"), seen.header("content-type")), (Some("red"), Some("text/csv")));
    assert_eq!((seen.header("authorization"), seen.header("x-tenant-id")), (None, Some("acme")));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("host"), Some(&*backend.address().to_string()));
}

#[tokio::test]
async fn nobody_gets_in_without_a_key_and_nobody_reaches_it_by_name() {
    let backend = Upstream::start(Script::json(200, "{}"));
    let sluice = Sluice::start(config(&[&backend.url()], ", name: orders, methods: [ GET ]")).await;
    assert_eq!(request("GET", &sluice.url("/api/orders/1"), &[], "").await.unwrap().status(), 401);
    let by_name = r#"{"model":"service:orders","messages":[]}"#;
    assert_eq!(ask(&sluice, "POST", "/v1/chat/completions", &[], by_name).await.unwrap().status(), 404);
    let models = ask(&sluice, "GET", "/v1/models", &[], "").await.unwrap().json();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&sluice, "GET", "/v1/models/service:orders", &[], "").await.unwrap().status(), 404);
    let refused = ask(&sluice, "DELETE", "/api/orders/1", &[], "").await.unwrap();
    assert_eq!((refused.status(), refused.header("allow")), (405, Some("GET")));
    assert!(backend.requests().is_empty());
    assert_eq!(ask(&sluice, "GET", "/api/orders/1", &[], "").await.unwrap().status(), 200);
    let logged = |sluice: &Sluice| sluice.stdout().contains(r#""model":"service:orders""#);
    assert!(eventually(SOON, || logged(&sluice)).await);
}

#[tokio::test]
async fn another_instance_stands_in_where_that_can_do_no_harm() {
    let (dead, alive) = (Upstream::refusing(Script::json(200, "{}")), Upstream::start(Script::json(200, "{}")));
    let sluice = Sluice::start(config(&[&dead.url(), &alive.url()], "")).await;
    for _ in 0..4 {
        assert_eq!(ask(&sluice, "POST", "/api/orders/1", &[], "x").await.unwrap().status(), 200);
    }
    let (breaking, spare) = (Upstream::start(Script::new().close()), Upstream::start(Script::json(200, "{}")));
    let sluice = Sluice::start(config(&[&breaking.url(), &spare.url()], "")).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(ask(&sluice, "POST", "/api/orders/1", &[], "x").await.unwrap().status());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502], "what may have been done is not done again");
    assert_eq!(spare.requests().len(), 1);
    let sluice = Sluice::start(config(&[&breaking.url(), &spare.url()], "")).await;
    for _ in 0..2 {
        assert_eq!(ask(&sluice, "GET", "/api/orders/1", &[], "").await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_have_broken_off() {
    let backend = Upstream::start(Script::sse_head().data("first").pause(Duration::from_millis(300)).close());
    let sluice = Sluice::start(config(&[&backend.url()], "")).await;
    let answer = ask(&sluice, "POST", "/api/orders/1", &[], "").await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str(), answer.is_complete()), (200, "first", false));
    let head = [("content-length", "5"), ("content-type", "text/html")];
    backend.always(Script::new().head(200, &head).send("hello"));
    let answer = ask(&sluice, "POST", "/api/orders/2", &[], "").await.unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.header("content-length"), answer.is_complete()),
        ("hello", Some("5"), true)
    );
    backend.always(Script::new().head(204, &[]));
    assert_eq!(ask(&sluice, "DELETE", "/api/orders/3", &[], "").await.unwrap().status(), 204);
    assert!(eventually(SOON, || sluice.stdout().matches("orders").count() >= 3).await);
    assert!(!sluice.stdout().contains("499"), "none of them was left by its client");
}

#[test]
fn paths_that_cannot_be_are_refused_by_their_place() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("services-wrong.yaml");
    let text = "
models: [ { model_name: m, provider: sim } ]
services:
  - { path: \"/v1/chat\", upstream: [ \"http://127.0.0.1:9\" ] }
  - { path: \"/a/{id}\", upstream: [ \"ftp://127.0.0.1\" ] }
  - { path: \"/a/{other}\", upstream: [], methods: [ get ] }
";
    std::fs::write(&path, text).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(["check", "-c"]).arg(&path).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    for words in [
        "services-wrong.yaml:4:13",
        "`/v1` is Sluice's own",
        "`ftp` is not supported",
        "means the same as `/a/{id}`",
        "name at least one instance",
        "must be a method in capitals",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}
