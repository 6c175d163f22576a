//! Queues and quotas as JSON.

use std::time::Duration;

use kernel::Priority;
use kernel::explain::{LineView, Lines, QuotaView};
use serde_json::{Value, json};

pub(super) fn queues(lines: &dyn Lines) -> Vec<Value> {
    lines.lines().iter().map(queue).collect()
}

pub(super) fn quotas(lines: &dyn Lines) -> Vec<Value> {
    lines.quotas().iter().map(quota).collect()
}

fn queue(line: &LineView) -> Value {
    let classes = line.classes.iter().map(|(class, waiting, oldest)| {
        json!({ "class": class.as_str(), "waiting": waiting, "oldest_ms": oldest.map(millis) })
    });
    let tenants = line.tenants.iter().map(|tenant| {
        json!({
            "class": tenant.class.as_str(),
            "tenant": tenant.tenant.as_str(),
            "waiting": tenant.waiting.0,
            "bytes": tenant.waiting.1,
            // In tokens of input, by the tenant's weight; only differences mean something.
            "service": tenant.counter / 1000,
        })
    });
    json!({
        "deployment": &*line.deployment,
        "waiting": line.waiting.0,
        "bytes": line.waiting.1,
        "estimated_wait_ms": line.estimate.map(millis),
        "classes": classes.collect::<Vec<_>>(),
        "tenants": tenants.collect::<Vec<_>>(),
    })
}

fn quota(quota: &QuotaView) -> Value {
    let side = |(nominal, used): (Option<u64>, u64)| {
        // What the members of a cohort use is theirs: it borrows nothing.
        let borrowed = nominal.filter(|_| quota.tenant.is_some()).map(|nominal| used.saturating_sub(nominal));
        json!({ "nominal": nominal, "used": used, "borrowed": borrowed })
    };
    let [calls, tokens] = quota.amounts;
    json!({
        "tenant": quota.tenant.as_ref().map(|tenant| tenant.as_str()),
        "class": quota.class.map(Priority::as_str),
        "cohort": quota.cohort,
        "concurrency": side(calls),
        "tokens_in_flight": side(tokens),
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
