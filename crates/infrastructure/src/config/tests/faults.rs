//! What is said about bad files, word for word.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::{Document, Position};
use super::{faults, lookup, read};

/// One fault a line: what is written, and the fault without the file's name.
#[rustfmt::skip]
const FAULTS: &[(&str, &str)] = &[
    // Keys.
    ("modles: []", "1:1: modles: unknown key (did you mean `models`?)"),
    ("retries: {}\nxyz: 1", "2:1: xyz: unknown key; the keys here are listen, models, balance, strategy, cache, backends, headers, retries, enabled, ratio, log"),
    ("models: [ { port: 1 } ]", "1:11: models[0].model_name: this key is required"),
    ("models: [ { model_nam: x } ]", "1:13: models[0].model_nam: unknown key (did you mean `model_name`?)"),
    ("log: text\nlog: json", "2:1: log: this key is here twice; the first is on line 1"),
    ("headers: { x.y: 1 }", "1:17: headers[\"x.y\"]: expected text, found the number 1 (did you mean `\"1\"`?)"),
    ("? [a]\n: b", "1:3: a key must be plain text"),
    ("<<: {}", "1:1: merge keys (`<<`) are not part of YAML 1.2; write the keys out"),
    // Types.
    ("[]", "1:1: expected a map, found a list"),
    ("models:", "1:1: models: expected a list, found nothing"),
    ("models: {}", "1:9: models: expected a list, found a map"),
    ("ratio: abc", "1:8: ratio: expected a number, found the text \"abc\""),
    ("retries: { a: abc }", "1:15: retries.a: expected a whole number, found the text \"abc\""),
    ("retries: { a: 1.5 }", "1:15: retries.a: expected a whole number, found the number 1.5"),
    ("headers: { a: true }", "1:15: headers.a: expected text, found true (did you mean `\"true\"`?)"),
    ("enabled: yes", "1:10: enabled: expected true or false, found the text \"yes\" (did you mean `true`?)"),
    ("ratio: .nan", "1:8: ratio: infinity and not-a-number are no values for a setting"),
    ("ratio: !!int x", "1:8: ratio: tagged `!!int` but not written as one"),
    ("ratio: !big 1", "1:8: ratio: the tag `!big` is not known here"),
    // Ranges and formats.
    ("retries: { a: -1 }", "1:15: retries.a: expected at least 0, found the number -1"),
    ("retries: { a: 5000000000 }", "1:15: retries.a: expected at most 4294967295, found the number 5000000000"),
    ("models: [ { model_name: a, port: 65536 } ]", "1:34: models[0].port: expected at most 65535, found the number 65536"),
    ("models: [ { model_name: a, weight: 101 } ]", "1:36: models[0].weight: expected at most 100, found the number 101"),
    ("models: [ { model_name: a, max_body: 10M } ]", "1:38: models[0].max_body: expected 10MiB (1024) or 10MB (1000), found the text \"10M\""),
    ("listen: { http: 8080 }", "1:17: listen.http: expected an address and a port such as 127.0.0.1:8080 or [::1]:8080, found the number 8080"),
    ("listen: { http: localhost }", "1:17: listen.http: expected an address and a port such as 127.0.0.1:8080 or [::1]:8080, found the text \"localhost\""),
    // Choices.
    ("log: jason", "1:6: log: expected one of json, text, found the text \"jason\" (did you mean `json`?)"),
    ("balance: rond_robin", "1:10: balance: expected one of consistent_hash, round_robin, least_load, found the text \"rond_robin\" (did you mean `round_robin`?)"),
    ("balance: [a]", "1:10: balance: expected one of consistent_hash, round_robin, least_load, found a list"),
    ("strategy: { fallbak: [a] }", "1:13: strategy.fallbak: unknown key; expected one of fallback, weighted (did you mean `fallback`?)"),
    ("strategy: { fallback: a }", "1:23: strategy.fallback: expected a list, found the text \"a\""),
    ("strategy: { fallback: [], weighted: {} }", "1:11: strategy: only one of fallback, weighted can be given"),
    ("strategy: {}", "1:11: strategy: expected one of fallback, weighted, found an empty map"),
    ("strategy: frist", "1:11: strategy: expected `first` or a map with fallback or weighted, found the text \"frist\" (did you mean `first`?)"),
    ("cache: { type: redsi }", "1:16: cache.type: expected one of memory, redis, found the text \"redsi\" (did you mean `redis`?)"),
    ("cache: { url: x }", "1:8: cache.type: this key is required: one of memory, redis"),
    ("cache: { type: redis, ulr: x }", "1:23: cache.ulr: unknown key (did you mean `url`?)"),
    ("cache: memory", "1:8: cache: expected a map, found the text \"memory\""),
    ("backends: [ { a: b } ]", "1:13: backends[0]: expected text or a list, found a map"),
    ("backends: [ [ a, [] ] ]", "1:18: backends[0][1]: expected text, found a list"),
    // Variables.
    ("ratio: ${NOPE}", "1:8: ratio: the environment variable `NOPE` is not set (did you mean `${NOPE:-default}`?)"),
    ("headers: { a: \"x ${YES} ${NOPE}\" }", "1:25: headers.a: the environment variable `NOPE` is not set (did you mean `${NOPE:-default}`?)"),
    ("headers:\n  a: |\n    x\n    ${NOPE}", "4:5: headers.a: the environment variable `NOPE` is not set (did you mean `${NOPE:-default}`?)"),
    ("headers: { a: '${not-a-name}' }", "1:16: headers.a: `${not-a-name}` is neither `${VAR}` nor `${VAR:-default}` (did you mean `$${not-a-name}`?)"),
    ("headers:\n  a: ${", "2:6: headers.a: a `${` without its `}`, or with another `${` before it; write `$${` for the two characters"),
    ("headers: { a: ${YES} }", "1:16: not YAML: while parsing a flow mapping, did not find expected ',' or '}' (did you mean `\"${YES}\"`?)"),
    ("ratio: ${KEY}", "1:8: ratio: expected a number, found the text from `${KEY}`"),
    // The file as a whole.
    ("log: text\n\tratio: 1", "2:1: a tab in the indentation; YAML is indented with spaces"),
    ("log: [ a", "1:9: not YAML: while parsing a flow sequence, expected ',' or ']'"),
    ("log: a: b", "1:7: not YAML: mapping values are not allowed in this context"),
    ("log: *nope", "1:6: not YAML: while parsing node, found unknown anchor"),
    ("log: &a [ *a ]", "1:11: log[0]: this alias stands inside the value that it names"),
    ("log: text\n---\nlog: json", "2:1: a second document; a configuration is one document"),
    ("log: te\0xt", "1:8: the control character U+0000 is not allowed"),
];

#[test]
fn every_kind_of_fault_is_told_with_its_place_its_path_and_what_was_meant() {
    for (text, expected) in FAULTS {
        assert_eq!(faults(text), format!("sluice.yaml:{expected}"), "{text}");
    }
}

#[test]
fn all_faults_of_a_file_are_told_at_once_in_its_order() {
    let text = "\
models:
  - model_name: a
    endpont: http://x
    port: ${NOPE}
  - endpoint: y
    timeout_ms: soon
    instances:
      - endpoint: [z]
      - max_concurrency: x
    max_body: 1X
balance: least
ratio: 1
ratio: 2
";
    let expected = "\
sluice.yaml:3:5: models[0].endpont: unknown key (did you mean `endpoint`?)
sluice.yaml:4:11: models[0].port: the environment variable `NOPE` is not set (did you mean `${NOPE:-default}`?)
sluice.yaml:5:5: models[1].model_name: this key is required
sluice.yaml:6:17: models[1].timeout_ms: expected a whole number, found the text \"soon\"
sluice.yaml:8:19: models[1].instances[0].endpoint: expected text, found a list
sluice.yaml:9:9: models[1].instances[1].endpoint: this key is required
sluice.yaml:9:26: models[1].instances[1].max_concurrency: expected a whole number, found the text \"x\"
sluice.yaml:10:15: models[1].max_body: expected a size such as 64MiB, 512KiB or 10MB, or a number of bytes, found the text \"1X\"
sluice.yaml:11:10: balance: expected one of consistent_hash, round_robin, least_load, found the text \"least\" (did you mean `least_load`?)
sluice.yaml:13:1: ratio: this key is here twice; the first is on line 12";
    assert_eq!(faults(text), expected);
}

#[test]
fn a_terminal_is_shown_the_line_with_a_caret_under_the_column() {
    let faults = read("# 模型\nlog: jason\nheaders: { 名: 1 }\n").unwrap_err();
    let expected = "\
sluice.yaml:2:6: log: expected one of json, text, found the text \"jason\" (did you mean `json`?)
    2 | log: jason
      |      ^
sluice.yaml:3:15: headers.名: expected text, found the number 1 (did you mean `\"1\"`?)
    3 | headers: { 名: 1 }
      |                ^
";
    assert_eq!(faults.render(), expected);
}

#[test]
fn a_fault_that_only_serde_finds_is_told_at_its_place() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Listens {
        #[expect(dead_code, reason = "only its refusal is of interest")]
        on: Vec<std::net::IpAddr>,
    }
    let text = "on:\n  - 127.0.0.1\n  - nowhere\n";
    let document = Document::parse("f", text, &lookup).unwrap();
    let faults = document.read::<Listens>().unwrap_err();
    assert_eq!(faults.to_string(), "f:3:5: on[1]: invalid IP address syntax");
}

#[test]
fn a_fault_never_shows_what_the_environment_holds() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(try_from = "String")]
    struct Picky;
    impl TryFrom<String> for Picky {
        type Error = String;
        fn try_from(text: String) -> Result<Picky, String> {
            Err(format!("{text} or {text:?}"))
        }
    }
    let told = |text: &str| {
        let document = Document::parse("f", text, &lookup).unwrap();
        let faults = document.read::<Vec<Picky>>().unwrap_err();
        format!("{faults} {} {faults:?}", faults.render())
    };
    for text in ["- ${KEY}", "- a${KEY}b", "- [\"${KEY}\"]", "- { a: \"${KEY}\" }", "- \"${TRICKY}\""] {
        let told = told(text);
        assert!(!told.contains("topsecret") && !told.contains("a: b"), "{told}");
    }
    let inline = faults("models: [ { model_name: a, api_key: 918273 } ]");
    assert_eq!(inline, "sluice.yaml:1:37: models[0].api_key: expected text, found the number ***");
}

#[test]
fn a_fault_of_the_owner_gets_the_place_of_its_path_or_of_the_nearest_ancestor() {
    let text = "models:\n  - model_name: a\n    instances:\n      - endpoint: x\n";
    let document = Document::parse("f", text, &lookup).unwrap();
    let cases = [
        ("", Some((1, 1))),
        ("models", Some((1, 1))),
        ("models[0]", Some((2, 5))),
        ("models[0].model_name", Some((2, 17))),
        ("models[0].instances", Some((3, 5))),
        ("models[0].instances[0].endpoint", Some((4, 19))),
        ("models[0].instances[7].endpoint", Some((3, 5))),
        ("models[0].nope.deeper[3]", Some((2, 5))),
        ("nope", Some((1, 1))),
        ("models[", None),
    ];
    for (path, expected) in cases {
        let expected = expected.map(|(line, column)| Position { line, column });
        assert_eq!(document.locate(path), expected, "{path}");
    }
    let fault = document.fault("models[0].model_name", "two models have this name");
    let faults = document.refuse(vec![fault]).unwrap_err();
    assert_eq!(faults.to_string(), "f:2:17: models[0].model_name: two models have this name");
    assert!(document.refuse(Vec::new()).is_ok());
}
