//! The admin API: who may ask, what it tells, and what it never tells.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod callers;

use std::os::unix::fs::PermissionsExt;

use callers::{HOLD, Like, SOON, admin, join, send, tenant};
use serde_json::Value;
use testkit::{Answer, Sluice, Upstream, request};

/// What no page may hold.
const PROMPT: &str = "the-secret-of-the-prompt";
const PATHS: [&str; 3] = ["/admin/v1/queues", "/admin/v1/explain/some-id", "/admin/v1/nothing"];

async fn start(sections: &str) -> (Upstream, Sluice) {
    let upstream = Upstream::start(callers::holding());
    let sluice = Sluice::start(format!(
        "auth: required
{sections}plans: [ {{ name: curious, explain: true }}, {{ name: plain }} ]
tenants:
{}models: [ {{ model_name: m, endpoint: \"{}\", max_concurrency: 1 }} ]
",
        [tenant("curious", "plan: curious, ", &["curious"]), tenant("plain", "plan: plain, ", &["plain"])].concat(),
        upstream.url()
    ))
    .await;
    (upstream, sluice)
}

async fn ask(sluice: &Sluice, path: &str, credential: Option<&str>) -> Answer {
    let headers: Vec<(&str, &str)> = credential.map(|value| ("authorization", value)).into_iter().collect();
    request("GET", &sluice.admin_url(path), &headers, "").await.unwrap()
}

#[tokio::test]
async fn the_token_is_made_for_its_owner_to_read_and_nothing_else_opens_the_api() {
    let (_upstream, sluice) = start("").await;
    let path = sluice.launched().data_dir().join("admin-token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap();
    assert_eq!(token.trim().len(), 64);
    assert!(!sluice.stdout().contains(token.trim()) && !sluice.stderr().contains(token.trim()), "it is not printed");
    let key = format!("Bearer {}", callers::key("plain"));
    let other = format!("Bearer {}x", token.trim());
    let basic = format!("Basic {}", token.trim());
    for path in PATHS {
        for wrong in [None, Some(""), Some("Bearer "), Some(&*key), Some(&*other), Some(&*basic), Some("Bearer \u{e9}")]
        {
            let answer = ask(&sluice, path, wrong).await;
            if wrong == Some(&*key) {
                assert_eq!((answer.status(), &answer.json()["error"]["code"]), (403, &"forbidden".into()), "{path}");
                continue;
            }
            assert_eq!(answer.status(), 401, "{path} {wrong:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.json()["error"]["code"], "invalid_admin_token");
        }
    }
    let right = format!("bearer {}", token.trim());
    assert_eq!(ask(&sluice, PATHS[0], Some(&right)).await.status(), 200);
    assert_eq!(ask(&sluice, PATHS[1], Some(&right)).await.status(), 404);
    assert_eq!(ask(&sluice, PATHS[2], Some(&right)).await.status(), 404);
    let posted = request("POST", &sluice.admin_url(PATHS[0]), &[("authorization", &right)], "").await.unwrap();
    assert_eq!(posted.status(), 405);
    let data_plane = request("GET", &sluice.url(PATHS[0]), &[("authorization", &right)], "").await.unwrap();
    assert!((401..=404).contains(&data_plane.status()), "clients cannot reach it: {}", data_plane.status());
}

#[tokio::test]
async fn a_token_of_the_config_is_the_one_that_counts_and_may_be_changed_by_a_reload() {
    let (upstream, sluice) = start("admin: { token: a-token-of-the-config }\n").await;
    assert_eq!(ask(&sluice, PATHS[0], Some("Bearer a-token-of-the-config")).await.status(), 200);
    assert!(!sluice.launched().data_dir().join("admin-token").exists(), "none is made beside it");
    callers::reload(
        &sluice,
        &format!(
            "admin: {{ token: another-token-of-it }}\nauth: none\nmodels: [ {{ model_name: m, endpoint: \"{}\" }} ]\n",
            upstream.url()
        ),
    )
    .await;
    assert_eq!(ask(&sluice, PATHS[0], Some("Bearer a-token-of-the-config")).await.status(), 401);
    assert_eq!(ask(&sluice, PATHS[0], Some("Bearer another-token-of-it")).await.status(), 200);
}

#[tokio::test]
async fn a_short_token_is_refused_at_the_start() {
    let exit = Sluice::launch()
        .config(
            "admin: { token: short }\nauth: none\nmodels: [ { model_name: m, endpoint: \"http://127.0.0.1:9\" } ]\n",
        )
        .fails()
        .await;
    assert!(exit.stderr.contains("admin.token") && exit.stderr.contains("at least 16"), "{}", exit.stderr);
    assert!(!exit.stderr.contains("short"), "{}", exit.stderr);
}

#[tokio::test]
async fn the_queues_tell_who_waits_since_when_and_nothing_of_what_they_ask() {
    let (upstream, sluice) = start("").await;
    let prompt = format!(r#","metadata":{{"x":"{PROMPT}"}}"#);
    let like = |key, priority| Like { key, priority, body: &prompt, ..Like::default() };
    let holder = send(&sluice, HOLD, like("plain", "")).await;
    assert!(upstream.hanging(1, SOON).await);
    let mut calls = vec![
        join(&sluice, "a", like("plain", "low"), 0).await,
        join(&sluice, "b", like("plain", "low"), 1).await,
        join(&sluice, "c", like("curious", ""), 2).await,
    ];
    let page = admin(&sluice, "/admin/v1/queues").await;
    let queue = &page["queues"][0];
    assert_eq!((queue["deployment"].as_str().unwrap().split('@').next(), &queue["waiting"]), (Some("m"), &3.into()));
    let class = |name: &str| -> Value {
        queue["classes"].as_array().unwrap().iter().find(|class| class["class"] == name).unwrap().clone()
    };
    assert_eq!((&class("low")["waiting"], &class("normal")["waiting"]), (&2.into(), &1.into()));
    assert_eq!((&class("high")["waiting"], &class("high")["oldest_ms"]), (&0.into(), &Value::Null));
    assert!(class("low")["oldest_ms"].is_u64());
    let tenants = queue["tenants"].as_array().unwrap();
    let plain = tenants.iter().find(|tenant| tenant["tenant"] == "plain").unwrap();
    assert_eq!((&plain["waiting"], &plain["class"]), (&2.into(), &"low".into()));
    assert_eq!(
        tenants.iter().map(|tenant| tenant["bytes"].as_u64().unwrap()).sum::<u64>(),
        queue["bytes"].as_u64().unwrap()
    );
    assert!(!page.to_string().contains(PROMPT));
    drop(holder);
    callers::all_answered(&mut calls).await;
}

#[tokio::test]
async fn a_call_is_explained_to_operators_and_to_tenants_whose_plan_says_so() {
    let (upstream, sluice) = start("").await;
    let body = format!(r#","metadata":{{"x":"{PROMPT}"}}"#);
    let holder = send(&sluice, HOLD, Like { key: "plain", ..Like::default() }).await;
    assert!(upstream.hanging(1, SOON).await);
    let headers = [("x-sluice-explain", "true"), ("x-request-id", "asked-for")];
    let like = Like { key: "curious", priority: "low", body: &body, headers: &headers, ..Like::default() };
    let mut call = join(&sluice, "why", like, 0).await;
    drop(holder);
    let answer = call.answered().await;
    let told: Value = serde_json::from_str(answer.header("x-sluice-explain").unwrap()).unwrap();
    assert_eq!((&told["class"], &told["position"], &told["reason"].is_string()), (&"low".into(), &1.into(), &true));
    assert_eq!((&told["instances"][0]["verdict"], &told["instances"][0]["slots"]), (&"taken".into(), &1.into()));
    assert!(told["waited_ms"].as_f64().unwrap() > 0.0);
    let page = admin(&sluice, "/admin/v1/explain/asked-for").await;
    assert_eq!((&page["tenant"], &page["request_id"]), (&"curious".into(), &"asked-for".into()));
    assert_eq!(page["decisions"].as_array().unwrap().len(), 1);
    assert_eq!(page["decisions"][0], told, "operators are told the same");
    assert!(!page.to_string().contains(PROMPT) && !told.to_string().contains(PROMPT));
    // Not asked for: operators are told all the same.
    let silent = [("x-request-id", "not-asked-for")];
    let answer = send(&sluice, "u", Like { key: "plain", headers: &silent, ..Like::default() }).await.answered().await;
    assert_eq!(answer.header("x-sluice-explain"), None);
    assert_eq!(admin(&sluice, "/admin/v1/explain/not-asked-for").await["tenant"], "plain");
}

#[tokio::test]
async fn who_may_not_ask_for_an_explanation_is_told_so_and_nobody_may_ask_for_half_of_one() {
    let (upstream, sluice) = start("").await;
    for (key, said, status) in
        [("plain", "true", 403), ("plain", "maybe", 400), ("curious", "maybe", 400), ("curious", "", 400)]
    {
        let headers = [("x-sluice-explain", said)];
        let answer = send(&sluice, "u", Like { key, headers: &headers, ..Like::default() }).await.answer().await;
        assert_eq!(answer.status(), status, "{key} {said}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "x-sluice-explain", "{key} {said}");
        assert_eq!(answer.header("x-sluice-explain"), None);
    }
    assert_eq!(upstream.requests().len(), 0);
    let headers = [("x-sluice-explain", "false")];
    send(&sluice, "u", Like { key: "plain", headers: &headers, ..Like::default() }).await.answered().await;
}
