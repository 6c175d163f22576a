//! A receipt as one line of JSON. Absent facts are left out.
//!
//! Written by hand, because a line is written for every request: a serializer costs three times as much.

use std::time::Duration;

use kernel::{Outcome, Receipt, Usage};

use super::clock::{Clock, write_millis};
use super::json::write_text;

/// Appends the line of a receipt.
pub(super) fn write(to: &mut Vec<u8>, receipt: &Receipt, clock: &mut Clock) {
    to.extend_from_slice(b"{\"ts\":\"");
    clock.write(to, receipt.at);
    text(to, b"\",\"id\":\"", receipt.id.as_str());
    text(to, b",\"method\":\"", &receipt.method);
    text(to, b",\"path\":\"", &receipt.path);
    number(to, b",\"status\":", receipt.status.into());
    match &receipt.outcome {
        Outcome::Answered => to.extend_from_slice(b",\"outcome\":\"answered\""),
        Outcome::Failed(cause) => text(to, b",\"outcome\":\"failed\",\"cause\":\"", cause),
        Outcome::Cancelled => to.extend_from_slice(b",\"outcome\":\"cancelled\""),
    }
    who_and_what(to, receipt);
    failures(to, &receipt.journal.failures);
    times(to, receipt);
    if let Some(usage) = &receipt.journal.usage {
        tokens(to, usage);
    }
    number(to, b",\"bytes_in\":", receipt.bytes.0);
    number(to, b",\"bytes_out\":", receipt.bytes.1);
    to.extend_from_slice(b"}\n");
}

fn who_and_what(to: &mut Vec<u8>, receipt: &Receipt) {
    if let Some(caller) = &receipt.caller {
        text(to, b",\"tenant\":\"", caller.tenant.as_str());
        if let Some(key) = &caller.key {
            text(to, b",\"key\":\"", key.as_str());
        }
    }
    if let Some(operation) = receipt.operation {
        text(to, b",\"operation\":\"", operation.as_str());
    }
    if let Some(model) = &receipt.model {
        text(to, b",\"model\":\"", model.as_str());
    }
    if let Some((deployment, instance)) = &receipt.journal.placed {
        text(to, b",\"version\":\"", deployment.version.as_str());
        text(to, b",\"instance\":\"", instance);
    }
    if let Some(class) = receipt.priority {
        text(to, b",\"class\":\"", class.as_str());
    }
    let stream: &[u8] = if receipt.stream { b",\"stream\":true" } else { b",\"stream\":false" };
    to.extend_from_slice(stream);
    number(to, b",\"attempts\":", receipt.journal.attempts.into());
    if receipt.journal.put_back > 0 {
        number(to, b",\"put_back\":", receipt.journal.put_back.into());
    }
}

fn failures(to: &mut Vec<u8>, failures: &[(Option<std::sync::Arc<str>>, std::sync::Arc<str>)]) {
    for (at, (instance, cause)) in failures.iter().enumerate() {
        to.extend_from_slice(if at == 0 { b",\"failures\":[{" } else { b",{" });
        if let Some(instance) = instance {
            text(to, b"\"instance\":\"", instance);
            to.push(b',');
        }
        text(to, b"\"cause\":\"", cause);
        to.push(b'}');
    }
    if !failures.is_empty() {
        to.push(b']');
    }
}

fn times(to: &mut Vec<u8>, receipt: &Receipt) {
    millis(to, b",\"queue_ms\":", receipt.journal.queued);
    if let Some(first) = receipt.journal.first_byte {
        millis(to, b",\"ttft_ms\":", first.since(receipt.started));
    }
    millis(to, b",\"took_ms\":", receipt.took);
}

fn tokens(to: &mut Vec<u8>, usage: &Usage) {
    number(to, b",\"tokens\":{\"input\":", usage.input.0);
    number(to, b",\"cached\":", usage.cached.0);
    number(to, b",\"output\":", usage.output.0);
    number(to, b",\"reasoning\":", usage.reasoning.0);
    let end: &[u8] = if usage.estimated { b",\"estimated\":true}" } else { b"}" };
    to.extend_from_slice(end);
}

/// A text, after what leads up to and including its opening quote. That is an array, so that copying it is a few moves
/// of known length.
fn text<const N: usize>(to: &mut Vec<u8>, lead: &[u8; N], value: &str) {
    to.extend_from_slice(lead);
    write_text(to, value);
    to.push(b'"');
}

fn number<const N: usize>(to: &mut Vec<u8>, lead: &[u8; N], value: u64) {
    to.extend_from_slice(lead);
    to.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn millis<const N: usize>(to: &mut Vec<u8>, lead: &[u8; N], value: Duration) {
    to.extend_from_slice(lead);
    write_millis(to, value);
}
