//! The signers in examples/signing make what `sluice sign` makes, and what a running Sluice lets in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use access::credential::signature::{self, Request};
use kernel::settings::Secret;
use serde_json::{Value, json};
use tenancy::Pepper;
use testkit::{Plan, Script, Sluice, Upstream, completion};

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const PEPPER: &str = "a pepper for tests";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/signing").canonicalize().unwrap()
}

fn vectors() -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("vectors.json")).unwrap()).unwrap()
}

/// Signers that this machine can run. Python, Node, Go, bash and openssl are part of what the tests need; a Java that is
/// not there is said aloud.
fn signers() -> Vec<(&'static str, Vec<&'static str>)> {
    let all = [
        ("python", vec!["python3", "sign.py"]),
        ("node", vec!["node", "sign.mjs"]),
        ("bash", vec!["bash", "sign.sh"]),
        ("java", vec!["java", "Sign.java"]),
        ("go", vec!["go", "run", "sign.go"]),
    ];
    let there = |words: &Vec<&str>| {
        Command::new(words[0]).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let (there, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, words)| there(words));
    for (name, _) in &missing {
        assert_eq!(*name, "java", "{name} is missing: see tests/install.sh");
        println!("{name} is not on this machine: its example was not run");
    }
    there
}

fn run(words: &[&str], arguments: &[&str], secret: &str) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments).current_dir(folder()).env("SLUICE_SIGNING_SECRET", secret);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn scratch(name: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_vectors_are_what_sluice_sign_makes() {
    for vector in vectors() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let signed = signature::sign(&Request {
            method: text("method"),
            url: text("url"),
            body: vector["body"].as_str().map(str::as_bytes),
            key_id: text("key_id"),
            secret: &Secret::new(text("secret")),
            created: vector["created"].as_i64().unwrap(),
            lifetime: vector["lifetime"].as_i64().unwrap(),
            nonce: Some(text("nonce")),
        })
        .unwrap();
        let headers: serde_json::Map<String, Value> =
            signed.headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        assert_eq!(json!(headers), vector["headers"], "{}", text("name"));
    }
}

#[test]
fn every_example_makes_the_vectors() {
    for (name, words) in signers() {
        if !["bash", "java"].contains(&name) {
            let said = run(&words, &["--vectors", "vectors.json"], "");
            assert_eq!(said.trim(), "all vectors agree", "{name}");
            continue;
        }
        // Neither reads JSON: each vector is given on the command line.
        for (i, vector) in vectors().iter().enumerate() {
            let text = |name: &str| vector[name].as_str().unwrap();
            let (created, lifetime) = (vector["created"].to_string(), vector["lifetime"].to_string());
            let body = vector["body"].as_str().map(|body| scratch(&format!("{name}-vector-{i}"), body));
            let mut arguments =
                vec!["--headers", text("key_id"), text("method"), text("url"), &created, &lifetime, text("nonce")];
            arguments.extend(body.as_deref());
            let said = run(&words, &arguments, text("secret"));
            let headers: serde_json::Map<String, Value> = said
                .lines()
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            assert_eq!(json!(headers), vector["headers"], "{name}: {}", text("name"));
        }
    }
}

#[tokio::test]
async fn a_running_sluice_lets_every_example_in() {
    let backend = Upstream::start(Plan::made(|_| Script::json(200, completion("m", "hello from behind"))));
    let launch = Sluice::launch().env("SLUICE_KEY_PEPPER", PEPPER);
    let key = launch.key("acme");
    let sluice = launch
        .config(format!(
            "auth: required
tenants: [ {{ id: acme, keys: [ {{ name: k, hash: \"{}\", signed: true }} ] }} ]
models: [ {{ model_name: m, endpoint: \"{}\" }} ]
",
            key.hash,
            backend.url()
        ))
        .start()
        .await;
    let id = key.hash.split('.').next().unwrap();
    let secret = Pepper::from_text(PEPPER).signing_secret(id);
    let (url, body) = (sluice.url("/v1/chat/completions"), scratch("signed-body.json", BODY));
    for (name, words) in signers() {
        let (id, url, body, secret) = (id.to_owned(), url.clone(), body.clone(), secret.clone());
        let said =
            tokio::task::spawn_blocking(move || run(&words, &[&id, &url, &body], secret.expose())).await.unwrap();
        assert!(said.contains("hello from behind"), "{name}: {said}");
    }
    assert_eq!(backend.requests().len(), signers().len());
}
