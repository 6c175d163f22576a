//! A model's own tokenizer, through the real binary: what it counts is charged, and a file that is no good is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;
mod money;

use std::path::Path;
use std::process::Command;

use money::{CHAT, SOON, Shop, chat, tenant};
use serde_json::json;
use testkit::{Plan, Script, Upstream, delta, eventually};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tenancy/testdata/tokenizer.json");
/// Nine tokens of that file.
const WORDS: [&str; 4] = ["The water", " went", " through the", " sluice."];

/// A backend that never says what it consumed.
fn silent() -> Plan {
    Plan::made(|request| {
        if request.json()["stream"] == true {
            return Script::sse_head().events(WORDS.map(|words| delta("m", words))).done();
        }
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": WORDS.concat() }, "finish_reason": "stop" });
        Script::json(
            200,
            json!({ "id": "c", "object": "chat.completion", "model": "m", "choices": [choice] }).to_string(),
        )
    })
}

/// The config, with `more` in the model's settings.
fn config(upstream: &Upstream, more: &str) -> String {
    let before =
        money::config(upstream, &format!("plans: [ {{ name: p }} ]\ntenants:\n{}", tenant("acme", "p", &["a"])));
    before.replace("model_name: m,", &format!("model_name: m{more},"))
}

#[tokio::test]
async fn what_a_backend_does_not_say_is_counted_with_the_models_own_tokenizer() {
    let shop =
        Shop::open(silent(), &format!("plans: [ {{ name: p }} ]\ntenants:\n{}", tenant("acme", "p", &["a"]))).await;
    let round = async |own: bool| {
        for more in ["", r#","stream":true"#] {
            assert_eq!(shop.post("a", CHAT, &[], &chat("m", more)).await.status(), 200);
        }
        let charges = shop.charges("acme").await;
        let last = charges[charges.len() - 2..].iter();
        let counted: Vec<_> = last.clone().map(|charge| (&charge["input_tokens"], &charge["output_tokens"])).collect();
        assert!(last.clone().all(|charge| charge["estimated"] == true), "{charges:?}");
        // The prompt is `hi`: two tokens, four around a message and three before an answer.
        let expected = (json!(9), json!(9));
        let found = counted.iter().all(|(input, output)| (*input, *output) == (&expected.0, &expected.1));
        assert_eq!(found, own, "{counted:?}");
    };
    round(false).await;
    shop.sluice().rewrite_config(&config(&shop.upstream, &format!(", tokenizer: \"{FILE}\"")));
    assert!(eventually(SOON, || shop.sluice().stderr().contains("config reloaded")).await);
    round(true).await;

    // A file that has become no good changes nothing, and is named.
    shop.sluice().rewrite_config(&config(&shop.upstream, ", tokenizer: Cargo.toml"));
    assert!(eventually(SOON, || shop.sluice().stderr().contains("`Cargo.toml`")).await);
    round(true).await;
}

#[test]
fn a_tokenizer_that_is_missing_or_none_is_refused_by_the_check() {
    let upstream = Upstream::start(Script::new());
    let check = |file: &str| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tokenizers.yaml");
        std::fs::write(&path, config(&upstream, &format!(", tokenizer: \"{file}\""))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.args(["check", "-c"]).arg(&path).env_clear().output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(FILE), (true, String::new()));
    for (file, words) in [
        ("no/tokenizer.json", "`no/tokenizer.json` cannot be read: No such file"),
        (env!("CARGO_MANIFEST_DIR"), "is no file"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "is no tokenizer.json as Hugging Face writes it"),
    ] {
        let (good, said) = check(file);
        assert!(!good && said.contains(words) && said.contains("models[0].tokenizer"), "{words:?} is not in\n{said}");
    }
}
