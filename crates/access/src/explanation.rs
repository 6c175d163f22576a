//! Why a call was placed as it was, as JSON: for the header of its answer, and for operators.

use kernel::explain::Decision;
use kernel::fleet::{Seen, Verdict};
use serde_json::{Value, json};

/// A decision as JSON.
pub(crate) fn whole(decision: &Decision) -> Value {
    let reason = decision.seen.iter().find_map(|seen| match seen.verdict {
        Verdict::Taken(reason) => Some(reason),
        _ => None,
    });
    let mut told = json!({
        "deployment": &*decision.deployment.label,
        "class": decision.class.as_str(),
        "waited_ms": millis(decision.waited),
        "estimate": estimate(decision),
        "instances": decision.seen.iter().map(|seen| instance(decision, seen)).collect::<Vec<_>>(),
    });
    let mut put = |name: &str, value: Value| {
        if let Some(map) = told.as_object_mut() {
            map.insert(name.into(), value);
        }
    };
    if decision.left_out > 0 {
        put("instances_left_out", json!(decision.left_out));
    }
    if let Some((ahead, wait)) = decision.joined {
        put("position", json!(u64::from(ahead) + 1));
        put("estimated_wait_ms", json!(wait.map(millis)));
    }
    if decision.put_back > 0 {
        put("put_back", json!(decision.put_back));
    }
    if let Some(reason) = reason {
        put("reason", json!(reason));
    }
    if let Some(refused) = decision.refused {
        put("refused", json!(refused));
    }
    told
}

/// The same on one line of ASCII. Bound: [`SEEN_MAX`](kernel::explain::SEEN_MAX) instances, which is far below what
/// servers and proxies take in a header unless names are very long; then there is none.
pub(crate) fn header(decision: &Decision) -> String {
    const HEADER_MAX: usize = 4096;
    let text = ascii(&whole(decision).to_string());
    if text.len() <= HEADER_MAX { text } else { String::new() }
}

/// `null` where nothing hung on it, and none was made.
fn estimate(decision: &Decision) -> Value {
    let (input, output) = decision.estimate;
    if input.0 + output.0 == 0 { Value::Null } else { json!({ "input_tokens": input.0, "output_tokens": output.0 }) }
}

fn instance(decision: &Decision, seen: &Seen) -> Value {
    let name = decision.deployment.names.get(seen.index as usize).map_or("?", |name| name);
    let mut told = json!({ "name": name, "verdict": seen.verdict.as_str(), "busy": seen.busy });
    if let Some(map) = told.as_object_mut() {
        if seen.limit != u32::MAX {
            map.insert("slots".into(), json!(seen.limit));
        }
        if seen.score.is_finite() {
            map.insert("score".into(), json!((seen.score * 1e6).round() / 1e6));
        }
        if let Verdict::Down(standing) = seen.verdict {
            map.insert("standing".into(), json!(standing));
        }
    }
    told
}

fn millis(span: std::time::Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 100.0
}

/// JSON in ASCII: names may hold anything, headers may not.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            let mut units = [0; 2];
            letter.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kernel::fleet::Deployment;
    use kernel::{ModelName, Moment, Priority, RequestId, TenantId, Tokens, Version};

    use super::*;

    fn decision(names: Vec<&str>, seen: Vec<Seen>) -> Decision {
        let deployment = Deployment {
            index: 0,
            model: ModelName::new("m"),
            version: Version::new("v"),
            weight: 1,
            instances: Vec::new(),
            names: names.into_iter().map(Into::into).collect(),
            gpus: Vec::new(),
            label: "m@v".into(),
        };
        Decision {
            id: RequestId::new("r"),
            tenant: TenantId::new("t"),
            at: Moment::now(),
            class: Priority::Low,
            estimate: (Tokens(3), Tokens(4)),
            waited: Duration::from_micros(1_234),
            joined: Some((6, None)),
            put_back: 0,
            deployment: Arc::new(deployment),
            seen: seen.into(),
            left_out: 0,
            refused: None,
        }
    }

    const fn seen(index: u32, score: f64, verdict: Verdict) -> Seen {
        Seen { index, busy: 2, limit: u32::MAX, score, verdict }
    }

    #[test]
    fn a_decision_is_one_line_of_ascii() {
        let all = vec![seen(1, 0.25, Verdict::Taken("least_load")), seen(0, f64::NAN, Verdict::Down("failing"))];
        let decision = Decision { left_out: 3, ..decision(vec!["a", "b\u{e9}"], all) };
        assert_eq!(
            header(&decision),
            r#"{"deployment":"m@v","class":"low","waited_ms":1.23,"estimate":{"input_tokens":3,"output_tokens":4},"instances":[{"name":"b\u00e9","verdict":"taken","busy":2,"score":0.25},{"name":"a","verdict":"down","busy":2,"standing":"failing"}],"instances_left_out":3,"position":7,"estimated_wait_ms":null,"reason":"least_load"}"#
        );
    }

    #[test]
    fn what_is_too_long_for_a_header_is_no_header() {
        let names = vec!["x".repeat(1_000); 8];
        let all = (0..8).map(|index| seen(index, 1.0, Verdict::Passed)).collect();
        let decision = decision(names.iter().map(String::as_str).collect(), all);
        assert_eq!(header(&decision), "");
        assert_eq!(whole(&decision)["instances"].as_array().unwrap().len(), 8);
    }
}
