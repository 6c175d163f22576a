//! API keys over their life: made, used, changed, rotated, revoked; by operators and by tenants themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;

use std::time::{Duration, Instant};

use console::Console;
use serde_json::{Value, json};

const KEYS: &str = "/admin/v1/tenants/acme/keys";
/// Long enough on any machine.
const SOON: Duration = Duration::from_secs(20);

async fn start() -> Console {
    let console = Console::start("").await;
    console.made("POST", "/admin/v1/tenants", json!({ "id": "acme" })).await;
    console
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_the_next_call_and_told_why() {
    let console = start().await;
    let (key, other) =
        (console.key("acme", json!({ "name": "a" })).await, console.key("acme", json!({ "name": "b" })).await);
    assert_eq!(console.call(text(&key, "key")).await.0, 200);
    console.made("DELETE", &format!("{KEYS}/{}", text(&key, "id")), Value::Null).await;
    let (status, message) = console.call(text(&key, "key")).await;
    assert_eq!(status, 401);
    assert!(message.contains("revoked"), "{message}");
    assert_eq!(console.call(text(&other, "key")).await.0, 200, "the others go on");
    let shown = console.got(&format!("{KEYS}/{}", text(&key, "id"))).await;
    assert_eq!(text(&shown, "state"), "revoked");
    let again = console.refused("PATCH", &format!("{KEYS}/{}", text(&key, "id")), json!({ "name": "x" })).await;
    assert_eq!(again.0, 409);
    let rotated = console.refused("POST", &format!("{KEYS}/{}/rotate", text(&key, "id")), json!({})).await;
    assert_eq!(rotated.0, 409);
    console.key("acme", json!({ "name": "a" })).await;
}

#[tokio::test]
async fn only_rotation_says_whose_place_a_key_took() {
    let console = start().await;
    let given = console.refused("POST", KEYS, json!({ "name": "a", "former": ["abc"] })).await;
    assert_eq!(given.0, 400);
    assert!(given.2 == "former" && given.3.contains("set by rotation"), "{given:?}");
    let old = console.key("acme", json!({ "name": "ci" })).await;
    let path = |key: &Value| format!("{KEYS}/{}", text(key, "id"));
    let new = console.made("POST", &format!("{}/rotate", path(&old)), json!({})).await;
    assert_eq!(new["former"], json!([old["id"]]));
    for former in [json!(["abc"]), json!([]), Value::Null] {
        let changed = console.refused("PATCH", &path(&new), json!({ "former": former })).await;
        assert_eq!(changed.0, 400, "{former}");
    }
    let same = console.made("PATCH", &path(&new), json!({ "former": [old["id"]], "weight": 2 })).await;
    assert_eq!((&same["former"], &same["weight"]), (&json!([old["id"]]), &json!(2)), "what is shown can be sent back");
}

#[tokio::test]
async fn both_keys_of_a_rotation_work_until_the_old_ones_time_is_over() {
    let console = start().await;
    let settings = json!({ "name": "ci", "scopes": ["inference", "usage"], "models": ["m"] });
    let old = console.key("acme", settings).await;
    let path = format!("{KEYS}/{}/rotate", text(&old, "id"));
    let new = console.made("POST", &path, json!({ "overlap_ms": 600_000 })).await;
    assert_eq!((&new["name"], &new["scopes"], &new["models"]), (&old["name"], &old["scopes"], &old["models"]));
    assert_eq!(text(&new, "replaces"), text(&old, "id"));
    assert_ne!(new["key"], old["key"]);
    for key in [&old, &new] {
        assert_eq!(console.call(text(key, "key")).await.0, 200);
    }
    let path = format!("{KEYS}/{}/rotate", text(&new, "id"));
    let third = console.made("POST", &path, json!({ "overlap_ms": 0 })).await;
    let (status, message) = console.call(text(&new, "key")).await;
    assert_eq!(status, 401);
    assert!(message.contains("expired"), "{message}");
    assert_eq!(console.call(text(&third, "key")).await.0, 200);
    assert_eq!(console.call(text(&old, "key")).await.0, 200, "the first has time left");
    let (status, _, field, _) = console.refused("POST", &path, json!({ "overlap_ms": 99_999_999_999_u64 })).await;
    assert_eq!((status, field.as_str()), (400, "overlap_ms"));
}

#[tokio::test]
async fn a_key_expires_and_can_be_given_more_time() {
    let console = start().await;
    let just_now = tenancy::when::text(kernel::Timestamp(kernel::Timestamp::now().millis() - 1_000));
    let key = console.key("acme", json!({ "name": "ci", "expires": just_now })).await;
    assert_eq!(text(&key, "state"), "expired");
    let (status, message) = console.call(text(&key, "key")).await;
    assert_eq!(status, 401);
    assert!(message.contains("expired"), "{message}");
    let path = format!("{KEYS}/{}", text(&key, "id"));
    console.made("PATCH", &path, json!({ "expires": "2099-01-01" })).await;
    assert_eq!(console.call(text(&key, "key")).await.0, 200);
    console.made("PATCH", &path, json!({ "expires": null })).await;
    assert_eq!(console.got(&path).await["expires"], Value::Null);
}

#[tokio::test]
async fn the_whole_key_is_shown_once_and_kept_nowhere() {
    let console = start().await;
    let key = console.key("acme", json!({ "name": "ci" })).await;
    assert_eq!(console.call(text(&key, "key")).await.0, 200);
    for path in [KEYS.to_owned(), format!("{KEYS}/{}", text(&key, "id"))] {
        assert!(!console.got(&path).await.to_string().contains(text(&key, "key")));
    }
    let secret = text(&key, "key").as_bytes();
    let mut left = vec![console.0.launched().data_dir()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(secret.len()).any(|piece| piece == secret), "{}", path.display());
    }
    let said = console.0.stderr() + &console.0.stdout();
    assert!(!said.contains(text(&key, "key")) && !said.contains(&console.token()));
    let line = said.lines().find(|line| line.contains("\"key made\"")).expect("every change is logged");
    assert!(line.contains("operator") && line.contains("acme") && line.contains(text(&key, "id")), "{line}");
}

#[tokio::test]
async fn it_is_seen_when_a_key_was_last_used() {
    let console = start().await;
    let key = console.key("acme", json!({ "name": "ci" })).await;
    let path = format!("{KEYS}/{}", text(&key, "id"));
    assert_eq!(console.got(&path).await["used"], Value::Null);
    console.call(text(&key, "key")).await;
    assert!(console.got(&path).await["used"].is_string());
    // A restart forgets nothing: the store is told when the process ends.
    let console = Console(console.0.stopped_and_started().await);
    assert!(console.got(&path).await["used"].is_string());
}

#[tokio::test]
async fn a_tenant_manages_its_own_keys_and_nothing_else() {
    let console = start().await;
    let admin = console.key("acme", json!({ "name": "admin", "scopes": ["admin"] })).await;
    let admin = Some(text(&admin, "key"));
    let made = console.send("POST", KEYS, admin, r#"{"name":"own"}"#).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    let made = made.json();
    assert_eq!(console.call(text(&made, "key")).await.0, 200);
    let one = format!("{KEYS}/{}", text(&made, "id"));
    assert_eq!(console.send("DELETE", &one, admin, "").await.status(), 204);
    assert_eq!(console.call(text(&made, "key")).await.0, 401);
    for (method, path, body) in [
        ("PATCH", "/admin/v1/tenants/acme", r#"{"limits":{"rps":1000000}}"#),
        ("POST", "/admin/v1/tenants", r#"{"id":"x"}"#),
        ("PUT", "/admin/v1/plans/gold", "{}"),
        ("GET", "/admin/v1/queues", ""),
    ] {
        assert_eq!(console.send(method, path, admin, body).await.status(), 403, "{method} {path}");
    }
    let named = r#"{"name":"x","certificates":[{"san":"spiffe://example.org/somebody"}]}"#;
    let refused = console.send("POST", KEYS, admin, named).await;
    assert_eq!((refused.status(), &refused.json()["error"]["field"]), (403, &json!("certificates")));
    console.made("PATCH", "/admin/v1/tenants/acme", json!({ "suspended": true })).await;
    assert_eq!(console.send("GET", KEYS, admin, "").await.status(), 403, "not while it is suspended");
}

#[tokio::test]
async fn a_tenants_admin_key_that_is_bound_to_addresses_is_bound_here_too() {
    let console = start().await;
    let there =
        console.key("acme", json!({ "name": "there", "scopes": ["admin"], "networks": ["192.0.2.0/24"] })).await;
    assert_eq!(console.send("GET", KEYS, Some(text(&there, "key")), "").await.status(), 403);
    let here = console.key("acme", json!({ "name": "here", "scopes": ["admin"], "networks": ["127.0.0.0/8"] })).await;
    assert_eq!(console.send("GET", KEYS, Some(text(&here, "key")), "").await.status(), 200);
}

#[tokio::test]
async fn keys_are_checked_before_they_are_made() {
    let console = start().await;
    console.key("acme", json!({ "name": "ci" })).await;
    for (body, field, status) in [
        (json!({}), "name", 400),
        (json!({ "name": " " }), "name", 400),
        (json!({ "name": "x", "scopes": [] }), "scopes", 400),
        (json!({ "name": "x", "scopes": ["root"] }), "scopes[0]", 400),
        (json!({ "name": "x", "expires": "soon" }), "expires", 400),
        (json!({ "name": "x", "key": "a-key-of-my-own-choosing" }), "key", 400),
        (json!({ "name": "x", "hash": "00" }), "hash", 400),
        (json!({ "name": "x", "models": ["a*b"] }), "models[0]", 400),
        (json!({ "name": "ci" }), "name", 409),
    ] {
        let (found, _, named, message) = console.refused("POST", KEYS, body.clone()).await;
        assert_eq!((found, named.as_str()), (status, field), "{body}: {message}");
        assert!(!message.contains("my-own-choosing"), "{message}");
    }
    assert_eq!(console.refused("POST", "/admin/v1/tenants/nobody/keys", json!({ "name": "x" })).await.0, 404);
}

#[tokio::test]
async fn the_shell_makes_lists_rotates_and_revokes_keys() {
    let console = start().await;
    let shown = console.shows(&["key", "create", "--tenant", "acme", "--name", "ci", "--model", "m"]);
    let key = shown.lines().next().unwrap().to_owned();
    assert_eq!(console.call(&key).await.0, 200);
    let listed = console.json(&["key", "list", "--tenant", "acme"]);
    let id = text(&listed["keys"][0], "id").to_owned();
    let table = console.shows(&["key", "list", "--tenant", "acme"]);
    assert!(table.starts_with("KEY") && table.contains(&id) && table.contains("active"), "{table}");
    console.shows(&[
        "key",
        "change",
        "--tenant",
        "acme",
        &id,
        "--name",
        "renamed",
        "--expires",
        "2099-01-01T00:00:00Z",
    ]);
    let one = console.json(&["key", "show", "--tenant", "acme", &id]);
    assert_eq!((text(&one, "name"), text(&one, "expires")), ("renamed", "2099-01-01T00:00:00Z"));
    let rotated = console.json(&["key", "rotate", "--tenant", "acme", &id, "--overlap-hours", "1"]);
    assert_eq!((console.call(&key).await.0, console.call(text(&rotated, "key")).await.0), (200, 200));
    let said = console.shows(&["key", "revoke", "--tenant", "acme", &id]);
    assert!(said.contains("revoked"), "{said}");
    assert_eq!((console.call(&key).await.0, console.call(text(&rotated, "key")).await.0), (401, 200));
    let complaint = console.complains(&["key", "revoke", "--tenant", "acme", "nobodys"]);
    assert!(complaint.contains("no such key"), "{complaint}");
    let offline = console.json(&["key", "create", "--offline", "--tenant", "acme"]);
    assert!(text(&offline, "hash").starts_with(text(&offline, "id")));
    assert_eq!(console.call(text(&offline, "key")).await.0, 401, "it is for the config");
    let admin = console.json(&["key", "create", "--tenant", "acme", "--name", "own", "--scope", "admin"]);
    let listed = console.shows(&["key", "list", "--tenant", "acme", "--token", text(&admin, "key")]);
    assert!(listed.contains("own"), "a tenant's own shell: {listed}");
}

#[tokio::test]
async fn a_hundred_keys_made_at_once_are_all_known() {
    let console = start().await;
    let since = Instant::now();
    let mut keys = Vec::new();
    for round in 0..10 {
        let names: Vec<String> = (0..10).map(|nth| format!("key-{round}-{nth}")).collect();
        let made = names.iter().map(|name| console.key("acme", json!({ "name": name })));
        let mut made: Vec<_> = made.map(Box::pin).collect();
        for one in &mut made {
            keys.push(one.await);
        }
    }
    for key in &keys {
        assert_eq!(console.call(text(key, "key")).await.0, 200);
    }
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}
