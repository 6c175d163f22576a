//! What makes no sense in a config about scheduling is refused, by its place in the file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::path::Path;
use std::process::Command;

/// Runs `sluice check` on a config and wants exactly these faults: (line and column, what the message must hold).
fn check(name: &str, text: &str, expected: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("scheduling-{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(["check", "--config"]).arg(&path).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.success(), expected.is_empty(), "{name}:\n{said}");
    for (at, words) in expected {
        let place = format!("scheduling-{name}.yaml:{at}");
        let found = said
            .split("scheduling-")
            .any(|fault| format!("scheduling-{fault}").starts_with(&place) && fault.contains(words));
        assert!(found, "{name}: no fault at {at} with {words:?} in\n{said}");
    }
    assert_eq!(
        said.matches(&format!("scheduling-{name}.yaml:")).count() - usize::from(expected.is_empty()),
        expected.len(),
        "{name}:\n{said}"
    );
}

const MODELS: &str = "models: [ { model_name: m, endpoint: \"http://127.0.0.1:9\" } ]\ntenants: [ { id: acme } ]\n";

fn scheduling(name: &str, lines: &str, expected: &[(&str, &str)]) {
    check(name, &format!("{MODELS}scheduling:\n{lines}"), expected);
}

#[test]
fn a_good_config_of_everything_is_good() {
    let text = "
nodes: [ { name: n, gpu: 2, cpu: 7.5 } ]
models:
  - model_name: m
    call_needs: { cpu: 1.5 }
    kv_tokens: 100000
    priority: low
    versions: [ { version: v, instances: [ { endpoint: \"http://127.0.0.1:9\", node: n, needs: { gpu: 1 } } ] } ]
  - { model_name: found-out, endpoint: \"http://127.0.0.1:9\", adaptive: {}, load: {} }
plans: [ { name: gold, weight: 3, priority: high, explain: true } ]
tenants: [ { id: acme, plan: gold }, { id: lab } ]
scheduling:
  reserved_percent: { low: 10, normal: 20 }
  cohorts: [ { name: all, tokens_in_flight: 1000 }, { name: some, parent: all, borrow: { concurrency: 2 } } ]
  quotas:
    - { tenant: acme, cohort: some, concurrency: 4, lend: { concurrency: 2 } }
    - { tenant: acme, class: low, concurrency: 1 }
    - { tenant: lab, cohort: some, concurrency: 0, tokens_in_flight: 5000 }
";
    check("good", text, &[]);
}

#[test]
fn quotas_must_belong_to_somebody_and_to_a_cohort_there_is() {
    let lines = "  cohorts: [ { name: c } ]
  quotas:
    - { tenant: nobody, concurrency: 1 }
    - { tenant: acme, cohort: d, concurrency: 1 }
    - { tenant: acme, concurrency: 2 }
";
    let expected =
        [("6:17", "there is no tenant `nobody`"), ("7:31", "there is no cohort `d`"), ("8:17", "has this quota twice")];
    scheduling("owners", lines, &expected);
}

#[test]
fn amounts_that_cannot_be_are_named() {
    let lines = "  quotas:
    - { tenant: acme, concurrency: -1 }
    - { tenant: acme, class: low, concurrency: 1.5 }
    - { tenant: acme, class: high, tokens_in_flight: many }
";
    scheduling("amounts", lines, &[("5:36", "concurrency"), ("6:48", "concurrency"), ("7:54", "tokens_in_flight")]);
    let lines = "  quotas:
    - { tenant: acme, concurrency: 99999999999999999 }
    - { tenant: acme, class: low, concurrency: 0 }
    - { tenant: acme, class: high }
";
    let expected = [("5:7", "beyond"), ("6:7", "would let nothing run"), ("7:7", "limits nothing")];
    scheduling("absurd", lines, &expected);
}

#[test]
fn cohorts_may_not_go_round_in_a_circle() {
    let lines = "  cohorts:
    - { name: a, parent: b }
    - { name: b, parent: a }
    - { name: c, parent: c }
";
    let expected = [("5:26", "a → b → a"), ("6:26", "b → a → b"), ("7:26", "c → c")];
    scheduling("circle", lines, &expected);
}

#[test]
fn bounds_of_the_rules_are_held() {
    let lines = "  reserved_percent: { high: 40, normal: 30, low: 21 }
  aging_ms: 5
  preemptions_max: 101
  queue_max: 1000001
  tenant_queue_max: 0
  token_weights: { input: 0, output: 0 }
  fairness: fair
";
    scheduling("words", "  fairness: fair\n  prioritys: 1\n", &[("4:13", "fairness"), ("5:3", "prioritys")]);
    let expected = [
        ("4:21", "90 or less"),
        ("5:13", "at least 10"),
        ("6:20", "at most 100"),
        ("7:14", "at most 1000000"),
        ("8:21", "at least 1"),
        ("9:18", "must not be zero"),
    ];
    scheduling("bounds", &lines.replace("  fairness: fair\n", ""), &expected);
}

#[test]
fn plans_must_be_there_and_weigh_something() {
    let text = "models: [ { model_name: m, endpoint: \"http://127.0.0.1:9\" } ]
plans:
  - { name: gold, weight: 0 }
  - { name: gold, priority_max: normal }
tenants:
  - { id: acme, plan: silver }
";
    let expected = [("3:27", "between 1 and 1000"), ("4:13", "listed twice"), ("6:23", "there is no plan `silver`")];
    check("plans", text, &expected);
}

#[test]
fn nodes_must_be_there_be_used_and_be_large_enough() {
    let text = "nodes:
  - { name: small, gpu: 1 }
  - { name: idle, gpu: 8 }
  - { name: small, gpu: 2 }
models:
  - model_name: m
    call_needs: { gpu: 0.5 }
    versions:
      - version: v
        instances:
          - { endpoint: \"http://127.0.0.1:9\", node: small, needs: { gpu: 1 } }
          - { endpoint: \"http://127.0.0.1:10\", node: missing }
          - { endpoint: \"http://127.0.0.1:11\" }
  - { model_name: short, endpoint: \"http://127.0.0.1:9\", call_needs: { gpu: 1 } }
";
    let expected = [
        ("3:5", "no instance is on `idle`"),
        ("4:13", "listed twice"),
        ("11:53", "it needs 1.5 gpu, and node `small` has 1"),
        ("12:54", "there is no node `missing`"),
        ("13:13", "is missing"),
        ("14:70", "write the long form"),
    ];
    check("nodes", text, &expected);
}

#[test]
fn a_limit_is_given_or_found_out_but_not_both() {
    let text = "models:
  - { model_name: m, endpoint: \"http://127.0.0.1:9\", max_concurrency: 4, adaptive: {} }
  - { model_name: n, endpoint: \"http://127.0.0.1:9\", adaptive: { min: 5, initial: 4 } }
  - { model_name: o, endpoint: \"http://127.0.0.1:9\", load: { path: metrics, interval_ms: 1 } }
";
    let expected = [
        ("2:71", "max_concurrency"),
        ("3:83", "at least `min`"),
        ("4:68", "must start with `/`"),
        ("4:90", "interval_ms"),
    ];
    check("limits", text, &expected);
}
