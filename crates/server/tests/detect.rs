//! `--backend URL`: what answers there is found out by asking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::time::Duration;

use testkit::{Plan, Script, Sluice, Until, Upstream, eventually, get};

/// A server of a kind, as far as its kind can be told from outside: the paths it answers.
fn server(paths: &'static [(&'static str, &'static str)]) -> Upstream {
    let upstream = Upstream::start(Script::json(404, "{}"));
    upstream.on_probe(Plan::made(move |request| {
        let body = paths.iter().find(|(path, _)| *path == request.path()).map(|(_, body)| *body);
        body.map_or_else(|| Script::json(404, r#"{"error":{"message":"no"}}"#), |body| Script::json(200, body))
    }));
    upstream
}

const LIST: (&str, &str) = ("/v1/models", r#"{"object":"list","data":[{"id":"org/model-7b","object":"model"}]}"#);

async fn check(paths: &'static [(&'static str, &'static str)], kind: &str) {
    let upstream = server(paths);
    let sluice = Sluice::launch().argument("--backend").argument(upstream.url()).until(Until::Healthy).start().await;
    // What it writes is read in the background: it may be ready before we have all of it.
    let said = || sluice.stderr().contains(&format!("{kind} at {}", upstream.url()));
    assert!(eventually(Duration::from_secs(5), said).await, "{}", sluice.stderr());
    assert_eq!(get(&sluice.url("/v1/models")).await.json()["data"][0]["id"], "org/model-7b");
}

#[tokio::test]
async fn a_server_is_told_by_the_paths_only_its_kind_answers() {
    check(&[LIST, ("/version", r#"{"version":"0.11.0"}"#), ("/health", "")], "vLLM").await;
    check(&[LIST, ("/get_server_info", r#"{"tp_size":1}"#), ("/health", "")], "SGLang").await;
    check(&[LIST, ("/api/version", r#"{"version":"0.9.1"}"#)], "Ollama").await;
    check(&[LIST, ("/props", r#"{"default_generation_settings":{}}"#), ("/health", "{}")], "llama.cpp").await;
    check(&[LIST], "OpenAI-compatible").await;
}

#[tokio::test]
async fn what_sluice_cannot_speak_with_is_said_with_what_would_help() {
    for (paths, said) in [
        (&[("/v2", r#"{"name":"triton","version":"2.51.0"}"#)][..], "is a Triton server"),
        (&[("/", "<html>")][..], "Sluice needs an OpenAI-compatible server there"),
        (&[("/v1/models", r#"{"object":"list","data":[]}"#)][..], "serves no model yet"),
    ] {
        let upstream = server(paths);
        let exit = Sluice::launch().argument("--backend").argument(upstream.url()).fails().await;
        assert_eq!(exit.code(), Some(1));
        assert!(exit.stderr.contains(said), "{}", exit.stderr);
    }
}

#[tokio::test]
async fn two_backends_with_the_same_model_share_it() {
    let (one, two) = (server(&[LIST]), server(&[LIST]));
    let sluice = Sluice::launch()
        .argument("--backend")
        .argument(one.url())
        .argument("--backend")
        .argument(two.url())
        .start()
        .await;
    assert_eq!(get(&sluice.url("/v1/models")).await.json()["data"].as_array().unwrap().len(), 1);
    let instances =
        sluice.metrics().await.to_map().keys().filter(|name| name.starts_with("sluice_instance_up{")).count();
    assert_eq!(instances, 2);
}
