//! Tenants, plans and prices by the admin API and from the shell.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;

use console::Console;
use serde_json::{Value, json};
use testkit::{Sluice, request};

const TENANTS: &str = "/admin/v1/tenants";

#[tokio::test]
async fn a_tenant_made_here_calls_at_once_and_is_refused_while_it_is_suspended() {
    let console = Console::start("").await;
    console.made("PUT", "/admin/v1/plans/gold", json!({ "priority_max": "low" })).await;
    let tenant = console.made("POST", TENANTS, json!({ "id": "acme", "plan": "gold" })).await;
    assert_eq!((&tenant["id"], &tenant["plan"], &tenant["source"]), (&json!("acme"), &json!("gold"), &json!("api")));
    let key = console.key("acme", json!({ "name": "ci" })).await;
    let key = key["key"].as_str().unwrap();
    assert_eq!(console.call(key).await.0, 200);
    console.made("PATCH", "/admin/v1/tenants/acme", json!({ "suspended": true })).await;
    let (status, message) = console.call(key).await;
    assert_eq!(status, 403);
    assert!(message.contains("suspended"), "{message}");
    console.made("PATCH", "/admin/v1/tenants/acme", json!({ "suspended": null })).await;
    assert_eq!(console.call(key).await.0, 200);
}

#[tokio::test]
async fn lists_come_in_pages_and_leave_nobody_out() {
    let console = Console::start("").await;
    for nth in 0..7 {
        console.made("POST", TENANTS, json!({ "id": format!("tenant-{nth}") })).await;
    }
    let (mut seen, mut path) = (Vec::new(), format!("{TENANTS}?limit=3"));
    for pages in [3, 3, 1] {
        let page = console.got(&path).await;
        let ids: Vec<String> = page["tenants"].as_array().unwrap().iter().map(|row| row["id"].to_string()).collect();
        assert_eq!(ids.len(), pages, "{page}");
        seen.extend(ids);
        path = format!("{TENANTS}?limit=3&after={}", page["next"].as_str().unwrap_or("none"));
    }
    assert!(path.ends_with("none"), "the last page says so");
    assert_eq!(seen, (0..7).map(|nth| format!("\"tenant-{nth}\"")).collect::<Vec<_>>());
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("lmit=3", "lmit"),
        ("after=%00", "after"),
    ] {
        let (status, _, named, _) = console.refused("GET", &format!("{TENANTS}?{query}"), Value::Null).await;
        assert_eq!((status, named.as_str()), (400, field), "{query}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_field_and_changes_nothing() {
    let console = Console::start("").await;
    console.made("POST", TENANTS, json!({ "id": "acme" })).await;
    let cases = [
        (json!({}), "id"),
        (json!({ "id": "" }), "id"),
        (json!({ "id": "../etc" }), "id"),
        (json!({ "id": "x".repeat(65) }), "id"),
        (json!({ "id": "x", "plan": "none" }), "plan"),
        (json!({ "id": "x", "colour": "red" }), "colour"),
        (json!({ "id": "x", "limits": { "rps": 0 } }), "limits.rps"),
        (json!({ "id": "x", "limits": { "rpz": 1 } }), "limits.rpz"),
        (json!({ "id": "x", "networks": ["10.0.0.1/8"] }), "networks[0]"),
        (json!({ "id": "x", "budgets": [{ "limit": 5, "per": "day" }] }), "budgets[0].limit"),
        (json!({ "id": "x", "middleware": ["no_such_gate"] }), "middleware[0]"),
        (json!({ "id": "x", "keys": [{ "name": "k" }] }), "keys"),
    ];
    for (body, field) in cases {
        let (status, code, named, message) = console.refused("POST", TENANTS, body.clone()).await;
        assert_eq!((status, code.as_str(), named.as_str()), (400, "invalid", field), "{body}: {message}");
        assert!(!message.is_empty());
    }
    let (status, code, field, _) = console.refused("POST", TENANTS, json!({ "id": "acme" })).await;
    assert_eq!((status, code.as_str(), field.as_str()), (409, "taken", "id"));
    let answer = console.send("POST", TENANTS, Some(&console.token()), "{\"id\":").await;
    assert_eq!(answer.status(), 400);
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(300 << 10));
    assert_eq!(console.send("POST", TENANTS, Some(&console.token()), &large).await.status(), 413);
    let (status, _, field, _) = console.refused("PATCH", "/admin/v1/tenants/acme", json!({ "id": "other" })).await;
    assert_eq!((status, field.as_str()), (400, "id"));
    assert_eq!(console.refused("PATCH", "/admin/v1/tenants/nobody", json!({})).await.0, 404);
    assert_eq!(console.got(TENANTS).await["tenants"].as_array().unwrap().len(), 1, "nothing else was made");
}

#[tokio::test]
async fn nobody_is_given_what_stands_for_somebody_else() {
    let console = Console::start("").await;
    let san = json!([{ "san": "spiffe://example.org/training" }]);
    let jwt = json!({ "issuer": "https://idp.example.org", "audience": "sluice" });
    console.made("POST", TENANTS, json!({ "id": "one", "certificates": san, "jwt": jwt })).await;
    console.made("PATCH", "/admin/v1/tenants/one", json!({ "certificates": san })).await;
    for (body, field) in
        [(json!({ "id": "two", "certificates": san }), "certificates"), (json!({ "id": "two", "jwt": jwt }), "jwt")]
    {
        let (status, code, named, _) = console.refused("POST", TENANTS, body).await;
        assert_eq!((status, code.as_str(), named.as_str()), (409, "taken", field));
    }
    console.made("POST", TENANTS, json!({ "id": "two" })).await;
    let (status, _, field, _) =
        console.refused("POST", "/admin/v1/tenants/two/keys", json!({ "name": "k", "certificates": san })).await;
    assert_eq!((status, field.as_str()), (409, "certificates"));
}

#[tokio::test]
async fn a_change_on_top_of_somebody_elses_is_refused() {
    let console = Console::start("").await;
    let made = console.made("POST", TENANTS, json!({ "id": "acme", "limits": { "rps": 5 } })).await;
    let token = format!("Bearer {}", console.token());
    let change = async |etag: &str, body: Value| {
        let headers = [("authorization", token.as_str()), ("if-match", etag)];
        request("PATCH", &console.0.admin_url("/admin/v1/tenants/acme"), &headers, body.to_string()).await.unwrap()
    };
    let first = change(made["etag"].as_str().unwrap(), json!({ "limits": { "tpm": 9 } })).await;
    assert_eq!(first.status(), 200, "{}", first.text());
    assert_eq!(first.json()["limits"], json!({ "rps": 5, "tpm": 9 }), "a patch leaves the rest as it is");
    let stale = change(made["etag"].as_str().unwrap(), json!({ "limits": null })).await;
    assert_eq!((stale.status(), &stale.json()["error"]["code"]), (412, &json!("changed")));
    let quoted = first.header("etag").unwrap();
    assert_eq!(change(quoted, json!({ "limits": null })).await.json()["limits"], Value::Null);
    assert_eq!(change("rubbish", json!({})).await.status(), 400);
}

#[tokio::test]
async fn what_the_config_declares_is_shown_and_changed_there_only() {
    let sections = "plans: [ { name: free, rps: 100 } ]
prices: [ { model: m, from: 2026-01-01, per_call: \"0.5\" } ]
tenants: [ { id: lab, plan: free, keys: [ { name: ci, key: a-key-of-the-config } ] } ]
";
    let console = Console::start(sections).await;
    let lab = console.got("/admin/v1/tenants/lab").await;
    assert_eq!((&lab["source"], &lab["plan"]), (&json!("config"), &json!("free")));
    let keys = console.got("/admin/v1/tenants/lab/keys").await;
    let id = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    let price = console.got("/admin/v1/prices").await["prices"][0]["id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        ("PATCH", "/admin/v1/tenants/lab".to_owned(), json!({ "suspended": true })),
        ("PATCH", format!("/admin/v1/tenants/lab/keys/{id}"), json!({ "name": "x" })),
        ("POST", format!("/admin/v1/tenants/lab/keys/{id}/rotate"), json!({})),
        ("DELETE", format!("/admin/v1/tenants/lab/keys/{id}"), Value::Null),
        ("PUT", "/admin/v1/plans/free".to_owned(), json!({ "rps": 1 })),
        ("DELETE", "/admin/v1/plans/free".to_owned(), Value::Null),
        ("DELETE", format!("/admin/v1/prices/{price}"), Value::Null),
    ] {
        let (status, code, _, message) = console.refused(method, &path, body).await;
        assert_eq!((status, code.as_str()), (409, "declared_in_config"), "{method} {path}");
        assert!(message.contains("config file"), "{message}");
    }
    // Keys of its own a tenant of the config may have all the same, and a tenant made here its plan.
    let made = console.key("lab", json!({ "name": "made-here" })).await;
    assert_eq!(console.call(made["key"].as_str().unwrap()).await.0, 200);
    console.made("POST", TENANTS, json!({ "id": "acme", "plan": "free" })).await;
    assert_eq!(console.call("a-key-of-the-config").await.0, 200);
}

#[tokio::test]
async fn a_plan_has_versions_and_cannot_be_retired_while_tenants_are_on_it() {
    let console = Console::start("").await;
    let plan = "/admin/v1/plans/gold";
    let first = console.made("PUT", plan, json!({ "rps": 10 })).await;
    let second = console.made("PUT", plan, json!({ "rps": 20 })).await;
    assert_ne!(first["id"], second["id"]);
    assert_eq!(console.made("PUT", plan, json!({ "rps": 20 })).await["id"], second["id"], "the same is no new version");
    assert_eq!(console.got(&format!("{plan}/versions")).await["versions"].as_array().unwrap().len(), 2);
    assert_eq!(console.got(plan).await["rps"], json!(20));
    console.made("POST", TENANTS, json!({ "id": "acme", "plan": "gold" })).await;
    let (status, _, _, message) = console.refused("DELETE", plan, Value::Null).await;
    assert_eq!(status, 409);
    assert!(message.contains("another"), "{message}");
    console.made("PATCH", "/admin/v1/tenants/acme", json!({ "plan": null })).await;
    console.made("DELETE", plan, Value::Null).await;
    let (status, _, field, _) = console.refused("PATCH", "/admin/v1/tenants/acme", json!({ "plan": "gold" })).await;
    assert_eq!((status, field.as_str()), (400, "plan"), "nobody can be put on it");
    let history = console.got("/admin/v1/tenants/acme/subscriptions").await;
    let ended = &history["subscriptions"][0];
    assert_eq!(ended["plan"], json!("gold"));
    assert!(ended["until"].is_string(), "{history}");
    assert_eq!(console.refused("DELETE", "/admin/v1/plans/none", Value::Null).await.0, 404);
}

#[tokio::test]
async fn prices_are_entered_once_and_withdrawn_but_never_changed() {
    let console = Console::start("").await;
    let price = json!({ "model": "m", "from": "2026-01-01", "input_per_1m_tokens": "0.60" });
    let first = console.made("POST", "/admin/v1/prices", price.clone()).await;
    assert_eq!(console.made("POST", "/admin/v1/prices", price).await["id"], first["id"]);
    for (body, field) in [
        (json!({ "model": "m", "from": "today" }), "from"),
        (json!({ "model": "", "from": "2026-01-01" }), "model"),
        (json!({ "model": "m", "from": "2026-01-01", "per_call": 1 }), "per_call"),
        (json!({ "model": "m", "from": "2026-01-01", "per_cal": "1" }), "per_cal"),
    ] {
        let (status, _, named, message) = console.refused("POST", "/admin/v1/prices", body).await;
        assert_eq!((status, named.as_str()), (400, field), "{message}");
    }
    console.made("DELETE", &format!("/admin/v1/prices/{}", first["id"].as_str().unwrap()), Value::Null).await;
    let listed = console.got("/admin/v1/prices?model=m").await;
    assert!(listed["prices"][0]["withdrawn"].is_string(), "{listed}");
    assert_eq!(console.refused("DELETE", "/admin/v1/prices/none", Value::Null).await.0, 404);
}

#[tokio::test]
async fn everything_is_still_there_after_a_kill() {
    let mut console = Console::start("").await;
    console.made("PUT", "/admin/v1/plans/gold", json!({ "rps": 1000 })).await;
    console.made("POST", TENANTS, json!({ "id": "acme", "plan": "gold" })).await;
    let key = console.key("acme", json!({ "name": "ci" })).await;
    let gone = console.key("acme", json!({ "name": "gone" })).await;
    console.made("DELETE", &format!("{TENANTS}/acme/keys/{}", gone["id"].as_str().unwrap()), Value::Null).await;
    let before = (console.got("/admin/v1/tenants/acme").await, console.got("/admin/v1/plans/gold").await);
    console.0.kill();
    let console = Console(console.0.restarted().await);
    assert_eq!((console.got("/admin/v1/tenants/acme").await, console.got("/admin/v1/plans/gold").await), before);
    assert_eq!(console.call(key["key"].as_str().unwrap()).await.0, 200, "at the first call");
    assert_eq!(console.call(gone["key"].as_str().unwrap()).await.0, 401);
}

#[tokio::test]
async fn a_door_without_a_word_on_credentials_asks_for_them_as_soon_as_there_is_a_tenant() {
    let launch = Sluice::launch().config(console::MODELS.replace("auth: required\n", ""));
    let console = Console(launch.start().await);
    assert_eq!(console.call("anything").await.0, 200);
    console.made("POST", TENANTS, json!({ "id": "acme" })).await;
    assert_eq!(console.call("anything").await.0, 401);
    let key = console.key("acme", json!({ "name": "ci" })).await;
    assert_eq!(console.call(key["key"].as_str().unwrap()).await.0, 200);
}

#[tokio::test]
async fn the_shell_does_what_the_api_does() {
    let console = Console::start("").await;
    console.shows(&["plan", "put", "gold", "--set", "rps=50", "--set", "models=[\"m\"]"]);
    console.shows(&["tenant", "create", "acme", "--plan", "gold", "--set", "limits.rps=5"]);
    let shown = console.json(&["tenant", "show", "acme"]);
    assert_eq!((&shown["plan"], &shown["limits"]), (&json!("gold"), &json!({ "rps": 5 })));
    console.shows(&["tenant", "change", "acme", "--set", "limits.tpm=1000", "--unset", "limits.rps"]);
    assert_eq!(console.json(&["tenant", "show", "acme"])["limits"], json!({ "tpm": 1000 }));
    let table = console.shows(&["tenant", "list"]);
    assert!(table.starts_with("TENANT") && table.contains("acme") && table.contains("gold"), "{table}");
    assert_eq!(console.json(&["tenant", "list"])[0]["id"], json!("acme"));
    let made = console.json(&["key", "create", "--tenant", "acme", "--name", "ci"]);
    let key = made["key"].as_str().unwrap();
    assert_eq!(console.call(key).await.0, 200);
    console.shows(&["tenant", "suspend", "acme"]);
    assert_eq!(console.call(key).await.0, 403);
    console.shows(&["tenant", "resume", "acme"]);
    assert_eq!(console.call(key).await.0, 200);
    let subscriptions = console.shows(&["tenant", "subscriptions", "acme"]);
    assert!(subscriptions.contains("gold"), "{subscriptions}");
    console.shows(&["price", "add", "m", "--from", "2026-01-01", "--set", "per_call=0.5"]);
    let prices = console.json(&["price", "list"]);
    assert_eq!(prices["prices"][0]["per_call"], json!("0.5"));
    console.shows(&["price", "withdraw", prices["prices"][0]["id"].as_str().unwrap()]);
    assert!(console.shows(&["plan", "versions", "gold"]).contains("gold@"));
    assert!(console.shows(&["plan", "list"]).contains("gold"));
    let complaint = console.complains(&["plan", "retire", "gold"]);
    assert!(complaint.contains("Tenants are on this plan"), "{complaint}");
    let complaint = console.complains(&["tenant", "create", "x", "--plan", "none"]);
    assert!(complaint.starts_with("sluice: plan: There is no plan `none`"), "{complaint}");
    let complaint = console.complains(&["tenant", "show", "../../metrics"]);
    assert!(complaint.contains("no such tenant"), "{complaint}");
    let complaint = console.complains(&["tenant", "list", "--token", "wrong-wrong-wrong"]);
    assert!(complaint.contains("--token"), "{complaint}");
}

#[tokio::test]
async fn the_shell_says_how_to_go_on_where_no_server_is() {
    let mut console = Console::start("").await;
    console.0.kill();
    let complaint = console.complains(&["tenant", "list"]);
    assert!(complaint.contains("sluice serve") && complaint.contains("--admin"), "{complaint}");
    let complaint = console.complains(&["key", "create", "--tenant", "acme"]);
    assert!(complaint.contains("sluice serve"), "it was told which server: {complaint}");
}
