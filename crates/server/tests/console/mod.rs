//! An operator at the admin API and the shell of a running Sluice, and callers with the keys made there.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test uses some of it, and a helper of a test fails by panicking"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::{Answer, Sluice, request};

/// A model that answers at once.
pub(crate) const MODELS: &str =
    "auth: required\nmodels: [ { model_name: m, provider: sim, sim: { ttft_ms: 0, tokens_per_second: 0 } } ]\n";

/// A Sluice and its operator.
pub(crate) struct Console(pub(crate) Sluice);

impl Console {
    /// Starts one; `sections` are further sections of its config.
    pub(crate) async fn start(sections: &str) -> Self {
        Self(Sluice::start(format!("{sections}{MODELS}")).await)
    }

    /// The admin token.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.0.launched().data_dir().join("admin-token")).unwrap().trim().to_owned()
    }

    /// Asks, with any credential.
    pub(crate) async fn send(&self, method: &str, path: &str, credential: Option<&str>, body: &str) -> Answer {
        let bearer = credential.map(|credential| format!("Bearer {credential}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        request(method, &self.0.admin_url(path), &headers, body).await.unwrap()
    }

    /// Asks as the operator.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, Some(&self.token()), &body).await
    }

    /// Asks as the operator for what must be done.
    pub(crate) async fn made(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path, body).await;
        assert!((200..300).contains(&answer.status()), "{method} {path}: {} {}", answer.status(), answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// Reads as the operator.
    pub(crate) async fn got(&self, path: &str) -> Value {
        self.made("GET", path, Value::Null).await
    }

    /// Makes a key.
    pub(crate) async fn key(&self, tenant: &str, settings: Value) -> Value {
        self.made("POST", &format!("/admin/v1/tenants/{tenant}/keys"), settings).await
    }

    /// Asks as the operator for what must be refused: status, code, field, message.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String, String, String) {
        let answer = self.ask(method, path, body).await;
        let error = answer.json()["error"].clone();
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (answer.status(), text("code"), text("field"), text("message"))
    }

    /// A call with a key: its status and, where it is refused, why.
    pub(crate) async fn call(&self, key: &str) -> (u16, String) {
        let bearer = format!("Bearer {key}");
        let body = r#"{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#;
        let url = self.0.url("/v1/chat/completions");
        let answer = request("POST", &url, &[("authorization", &bearer)], body).await.unwrap();
        (answer.status(), answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The shell: `sluice` with these arguments, at this server.
    pub(crate) fn shell(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).env_clear().current_dir(self.0.launched().home());
        command.arg("--admin").arg(self.0.admin_url("")).arg("--data-dir").arg(self.0.launched().data_dir());
        command.output().unwrap()
    }

    /// The same where it must succeed: what it wrote.
    pub(crate) fn shows(&self, arguments: &[&str]) -> String {
        let output = self.shell(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The same as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.shows(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{fault}: {text}"))
    }

    /// The same where it must fail: what it complained of.
    pub(crate) fn complains(&self, arguments: &[&str]) -> String {
        let output = self.shell(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The binary the tests are about.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("SLUICE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_sluice").into(), PathBuf::from)
}
