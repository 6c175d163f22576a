//! The configuration source as a whole, with a small file type of its own: here what is right, in
//! `faults` what is wrong, in `bounds` what is too much and what holds for every text.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use kernel::settings::{Secret, Size};

use super::{Document, Faults};

mod bounds;
mod faults;

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {
    listen: Option<Listen>,
    models: Vec<Model>,
    balance: Balance,
    strategy: Option<Strategy>,
    cache: Option<Cache>,
    backends: Vec<OneOrMore>,
    headers: BTreeMap<String, String>,
    retries: BTreeMap<String, u32>,
    enabled: bool,
    ratio: f64,
    log: Log,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
struct Listen {
    #[schemars(schema_with = "address")]
    http: SocketAddr,
    #[serde(default)]
    #[schemars(schema_with = "optional_address")]
    admin: Option<SocketAddr>,
}

fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "socket-address" })
}

fn optional_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "format": "socket-address" })
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
struct Model {
    model_name: String,
    endpoint: Option<String>,
    #[serde(default)]
    timeout_ms: u64,
    port: Option<u16>,
    api_key: Option<Secret>,
    max_body: Option<Size>,
    #[schemars(range(min = 1, max = 100))]
    weight: Option<u32>,
    #[serde(default)]
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
struct Instance {
    endpoint: String,
    max_concurrency: Option<u32>,
}

/// How a model's instances share its calls.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Default)]
#[serde(rename_all = "snake_case")]
enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The least busy.
    LeastLoad,
    ConsistentHash,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Default)]
#[serde(rename_all = "snake_case")]
enum Log {
    #[default]
    Json,
    Text,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    Fallback(Vec<String>),
    Weighted(BTreeMap<String, u32>),
    First,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Cache {
    Memory { max_bytes: Size },
    Redis { url: String },
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "PORT" => "8080",
        "KEY" => "sk-live-topsecret",
        "DIGITS" => "0123456789",
        "TRICKY" => "a: b\n- [c, {d: e}] # f",
        "YES" => "true",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(text: &str) -> Result<Config, Faults> {
    Document::parse("sluice.yaml", text, &lookup)?.read()
}

/// Every fault of `text`, as a log would show them.
fn faults(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

fn model(text: &str) -> Model {
    let mut config = read(&format!("models:\n  - model_name: m\n    {text}\n")).expect(text);
    config.models.remove(0)
}

#[test]
fn a_whole_file_becomes_its_type() {
    let text = "\u{feff}# comment
listen: { http: 0.0.0.0:8080 }
models:
- &m
  model_name: a
  port: 80
  max_body: 64MiB
- *m
strategy: { fallback: [a] }
cache: { type: memory, max_bytes: 1 }
backends: [x, [y, z]]
headers: { a: 'x', \"b\": y }
balance: least_load
";
    let config = read(text).unwrap();
    assert_eq!(read(&text.replace('\n', "\r\n")).unwrap(), config);
    let model = &config.models[1];
    assert_eq!(config.models[0], *model);
    assert_eq!((model.port, model.max_body), (Some(80), Some(Size::of_mib(64))));
    assert_eq!(config.balance, Balance::LeastLoad);
    assert_eq!(config.strategy, Some(Strategy::Fallback(vec!["a".into()])));
    assert_eq!(config.cache, Some(Cache::Memory { max_bytes: Size::of_bytes(1) }));
    assert_eq!(config.headers["b"], "y");
    assert_eq!(config.backends[0], OneOrMore::One("x".into()));
}

#[test]
fn a_document_and_its_faults_can_travel_between_threads() {
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Document>();
    travels::<Faults>();
}

#[test]
fn a_file_that_sets_nothing_is_the_default() {
    for text in ["", "\n\n", "# comment\n", "---\n", "---\n...\n", "null\n", "{}", "\u{feff}"] {
        assert_eq!(read(text).expect(text), Config::default(), "{text:?}");
    }
}

#[test]
fn what_a_variable_holds_never_becomes_structure() {
    for written in ["endpoint: ${TRICKY}", "endpoint: \"${TRICKY}\"", "endpoint: '${TRICKY}'"] {
        assert_eq!(model(written).endpoint, lookup("TRICKY"), "{written}");
    }
    assert_eq!(model("endpoint: |-\n      ${TRICKY}").endpoint, lookup("TRICKY"));
}

#[test]
fn a_variable_is_the_kind_of_value_that_the_setting_wants() {
    assert_eq!(model("port: ${PORT}").port, Some(8080));
    assert_eq!(model("port: \"${PORT}\"").port, Some(8080));
    assert_eq!(model("port: ${NOPE:-9}0").port, Some(90));
    assert_eq!(model("port: ${EMPTY}").port, None);
    assert_eq!(model("weight: ${EMPTY:-7}").weight, Some(7));
    assert_eq!(model("max_body: ${PORT}").max_body, Some(Size::of_bytes(8080)));
    assert!(read("enabled: ${YES}").unwrap().enabled);
    // A key that is all digits is still a key, and so is one that says `true`.
    assert_eq!(model("api_key: ${DIGITS}").api_key, Some(Secret::new("0123456789")));
    assert_eq!(model("endpoint: ${YES}").endpoint, Some("true".into()));
    assert_eq!(read("backends: [\"${PORT}\"]").unwrap().backends, [OneOrMore::One("8080".into())]);
    assert_eq!(model("endpoint: http://$${PORT}:${PORT}").endpoint, Some("http://${PORT}:8080".into()));
}

#[test]
fn of_two_kinds_that_a_variable_could_be_the_one_it_is_written_as_wins() {
    #[derive(Debug, Deserialize, JsonSchema, PartialEq)]
    #[serde(untagged)]
    enum Limit {
        Number(u32),
        Name(String),
    }
    let text = "[ \"${PORT}\", 7, \"x\" ]";
    let document = Document::parse("f", text, &lookup).unwrap();
    let expected = [Limit::Name("8080".into()), Limit::Number(7), Limit::Name("x".into())];
    assert_eq!(document.read::<Vec<Limit>>().unwrap(), expected);
    let document = Document::parse("f", "- ${PORT}", &lookup).unwrap();
    assert_eq!(document.read::<Vec<Limit>>().unwrap(), [Limit::Number(8080)]);
}
