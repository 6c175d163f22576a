//! Nobody sees or changes another tenant's things by the admin API, and nobody can tell them from what is not there.
//!
//! Every endpoint of the table is asked by everybody about another tenant's things. An endpoint with a parameter that is
//! not listed here fails the test until it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod console;

use access::admin::route::{Method, Route, Who, routes};
use console::Console;
use serde_json::{Value, json};
use testkit::Answer;

/// What stands in nothing that is shown to others.
const CANARY: &str = "bravo";

/// The values of parameters of paths and queries: another tenant's, and one that nobody has.
struct Parameters(Vec<(&'static str, String, &'static str)>);

impl Parameters {
    fn value(&self, name: &str, real: bool) -> &str {
        let found = self.0.iter().find(|(known, ..)| *known == name);
        let (_, theirs, nobodys) =
            found.unwrap_or_else(|| panic!("give the parameter `{name}` another tenant's value here"));
        if real { theirs } else { nobodys }
    }

    /// A route's path about another tenant's things, or about nobody's; `own` stands for `{tenant}` if it is given.
    fn path(&self, route: &Route, real: bool, own: Option<&str>) -> String {
        let part = |part: &str| match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some("tenant") if own.is_some() => own.unwrap().to_owned(),
            Some(name) => self.value(name, real).to_owned(),
            None => part.to_owned(),
        };
        let path = route.path.split('/').map(part).collect::<Vec<_>>().join("/");
        let known = |name: &str| self.0.iter().any(|(known, ..)| *known == name);
        let named = route.query.iter().filter(|query| known(query.name));
        let query: Vec<String> =
            named.map(|query| format!("{}={}", query.name, self.value(query.name, real))).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }
}

/// Who asks, and by what.
struct Asker {
    name: &'static str,
    credential: Option<String>,
    /// Whether it may use endpoints for such.
    may: fn(Who) -> bool,
    status: u16,
}

fn askers(alpha: &[(&str, String)]) -> Vec<Asker> {
    let key = |name: &str| Some(alpha.iter().find(|(known, _)| *known == name).unwrap().1.clone());
    let asker = |name, credential, may, status| Asker { name, credential, may, status };
    vec![
        asker("admin of another tenant", key("admin"), |who| who != Who::Operator, 403),
        asker("reader of another tenant", key("usage"), |who| matches!(who, Who::Anybody | Who::Reader), 403),
        asker("caller of another tenant", key("inference"), |who| who == Who::Anybody, 403),
        asker("nobody", None, |who| who == Who::Anybody, 401),
        asker("garbage", Some("not-a-token-at-all".into()), |who| who == Who::Anybody, 401),
        asker("mistyped key", Some(format!("{}x", key("admin").unwrap())), |who| who == Who::Anybody, 401),
    ]
}

async fn ask(console: &Console, route: &Route, path: &str, credential: Option<&str>) -> Answer {
    let body = if route.takes.is_some() { "{}" } else { "" };
    console.send(route.method.as_str(), path, credential, body).await
}

#[tokio::test]
async fn no_endpoint_tells_or_changes_anything_of_another_tenant() {
    let console = Console::start("").await;
    console.made("PUT", "/admin/v1/plans/gold", json!({ "rps": 1000 })).await;
    let price = console
        .made("POST", "/admin/v1/prices", json!({ "model": "m", "from": "2026-01-01", "per_call": "0.1" }))
        .await;
    let mut alpha = Vec::new();
    for tenant in ["alpha", CANARY] {
        console.made("POST", "/admin/v1/tenants", json!({ "id": tenant, "plan": "gold" })).await;
    }
    for scope in ["admin", "usage", "inference"] {
        let made = console.key("alpha", json!({ "name": scope, "scopes": [scope] })).await;
        alpha.push((scope, made["key"].as_str().unwrap().to_owned()));
    }
    let theirs = console.key(CANARY, json!({ "name": "bravo-key" })).await;
    let key = theirs["id"].as_str().unwrap().to_owned();
    let paid = json!({ "amount": "5", "idempotency_key": "bravo-paid" });
    let paid = console.made("POST", &format!("/admin/v1/tenants/{CANARY}/top-ups"), paid).await;
    let transfer = paid["id"].as_str().unwrap().to_owned();
    let parameters = Parameters(vec![
        ("tenant", CANARY.into(), "nobody-at-all"),
        ("key", key.clone(), "nokeyatl"),
        ("plan", "gold".into(), "no-such-plan"),
        ("price", price["id"].as_str().unwrap().into(), "0000000000000000"),
        ("request", "some-request".into(), "another-request"),
        ("invoice", "bravo-0001".into(), "nobody-0001"),
        ("transfer", transfer.clone(), "00000000-0000-4000-8000-000000000000"),
    ]);
    let before = everything(&console).await;
    let mut asked = 0;
    for route in routes() {
        for asker in askers(&alpha) {
            let what = format!("{} {} by {}", route.method.as_str(), route.path, asker.name);
            let credential = asker.credential.as_deref();
            let real = ask(&console, route, &parameters.path(route, true, None), credential).await;
            let nobodys = ask(&console, route, &parameters.path(route, false, None), credential).await;
            asked += 2;
            assert_eq!(
                (real.status(), real.text()),
                (nobodys.status(), nobodys.text()),
                "{what}: it can be told apart"
            );
            assert!(!real.text().contains(CANARY) && !real.text().contains(&key), "{what}: {}", real.text());
            let about_a_tenant = route.parameters().any(|name| name == "tenant");
            match ((asker.may)(route.who), about_a_tenant) {
                (false, _) => assert_eq!(real.status(), asker.status, "{what}"),
                (true, true) => assert_eq!(real.status(), 404, "{what}"),
                (true, false) => {}
            }
        }
        // Its own tenant's path with another's key or invoice in it.
        let tenants = matches!(route.who, Who::Admin | Who::Reader);
        if tenants && route.parameters().any(|name| matches!(name, "key" | "invoice" | "transfer")) {
            let admin = Some(alpha[0].1.as_str());
            let real = ask(&console, route, &parameters.path(route, true, Some("alpha")), admin).await;
            let nobodys = ask(&console, route, &parameters.path(route, false, Some("alpha")), admin).await;
            assert_eq!((real.status(), nobodys.status()), (404, 404), "{} {}", route.method.as_str(), route.path);
            assert_eq!(real.text(), nobodys.text(), "{}", route.path);
            asked += 2;
        }
    }
    assert!(asked >= 12 * routes().count());
    assert_eq!(everything(&console).await, before, "nothing of it has changed");
}

/// What the operator sees of the other tenant.
async fn everything(console: &Console) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in ["", "/keys", "/subscriptions", "/invoices", "/transfers", "/balance", "/budgets"] {
        seen.push(console.got(&format!("/admin/v1/tenants/{CANARY}{path}")).await);
    }
    seen.push(console.got("/admin/v1/plans/gold/versions").await);
    seen.push(console.got("/admin/v1/prices").await);
    seen
}

#[tokio::test]
async fn whoever_may_ask_is_answered() {
    let console = Console::start("").await;
    console.made("PUT", "/admin/v1/plans/gold", json!({})).await;
    console.made("POST", "/admin/v1/tenants", json!({ "id": "alpha", "plan": "gold" })).await;
    let key = |scope: &'static str| console.key("alpha", json!({ "name": scope, "scopes": [scope] }));
    let (admin, reader) = (key("admin").await, key("usage").await);
    let id = admin["id"].as_str().unwrap();
    for route in routes().filter(|route| {
        // Of these there are none yet.
        route.method == Method::Get && !["{request}", "{invoice}"].iter().any(|name| route.path.contains(name))
    }) {
        let path = route.path.replace("{tenant}", "alpha").replace("{key}", id).replace("{plan}", "gold");
        for (who, credential) in [
            (Who::Operator, console.token()),
            (Who::Admin, admin["key"].as_str().unwrap().to_owned()),
            (Who::Reader, reader["key"].as_str().unwrap().to_owned()),
        ] {
            let may = match route.who {
                Who::Anybody | Who::Reader => true,
                Who::Admin => who != Who::Reader,
                Who::Operator => who == Who::Operator,
            };
            let answer = console.send("GET", &path, Some(&credential), "").await;
            assert_eq!(answer.status(), if may { 200 } else { 403 }, "{path} {who:?}: {}", answer.text());
        }
    }
}
