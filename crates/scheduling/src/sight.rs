//! What operators see: gauges and counters, and the lines of those who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kernel::explain::{Decision, Decisions, LineView, Lines, QuotaView, TenantView};
use kernel::fleet::Choose;
use kernel::sight::{Gauges, Sample};
use kernel::{Moment, Priority};

use crate::clock;
use crate::queue::{Counts, Queue};
use crate::scheduler::Scheduler;
use crate::state::State;

/// The counters of a queue by class: name, help, where.
type Counter = (&'static str, &'static str, fn(&Counts) -> &[AtomicU64; 3]);

const COUNTERS: [Counter; 4] = [
    ("sluice_queue_shed", "Calls refused because the queue was full or would have been too slow.", |counts| {
        &counts.shed
    }),
    ("sluice_queue_pushed_out", "Calls put out of a full queue by more deserving ones.", |counts| &counts.pushed_out),
    ("sluice_queue_expired", "Calls whose deadline passed while they waited.", |counts| &counts.expired),
    ("sluice_preemptions", "Calls put back by more urgent ones before anything of their answer was sent.", |counts| {
        &counts.put_back
    }),
];

impl<F: Choose> Gauges for Scheduler<F> {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        self.queues.iter().for_each(|queue| show_queue(queue, to));
        for quota in self.shared.quotas.show() {
            let labels = |resource: &str| {
                let class = quota.class.map_or("any", Priority::as_str);
                vec![
                    ("tenant", quota.tenant.as_ref().map(ToString::to_string).unwrap_or_default()),
                    ("class", class.to_owned()),
                    ("cohort", quota.cohort.clone().unwrap_or_default()),
                    ("resource", resource.to_owned()),
                ]
            };
            for (resource, (nominal, used)) in ["concurrency", "tokens_in_flight"].into_iter().zip(quota.amounts) {
                let mut show = |name, help, value: u64| {
                    to(Sample { name, help, counter: false, labels: labels(resource), value: value as f64 });
                };
                let Some(nominal) = nominal else { continue };
                show("sluice_quota", "What a quota or cohort has of its own.", nominal);
                show("sluice_quota_used", "What is taken of it, borrowed included.", used);
                if quota.tenant.is_some() {
                    show(
                        "sluice_quota_borrowed",
                        "What a tenant has taken beyond its own.",
                        used.saturating_sub(nominal),
                    );
                }
            }
        }
    }
}

fn show_queue(queue: &Queue, to: &mut dyn FnMut(Sample)) {
    let (model, version) = queue.label.rsplit_once('@').unwrap_or((&queue.label, ""));
    let place = || vec![("model", model.to_owned()), ("version", version.to_owned())];
    queue.count_ended();
    let books = queue.books();
    let gauges: Vec<_> = Priority::ALL
        .map(|class| (class, books.line().census(class).0, books.line().gap(class) as f64 / 1000.0))
        .into();
    let (bytes, reasons) = (books.line().bytes(), books.reasons().to_vec());
    drop(books);
    for (class, waiting, gap) in gauges {
        let labels = || [place(), vec![("class", class.as_str().to_owned())]].concat();
        let mut show = |name, help, counter, value| to(Sample { name, help, counter, labels: labels(), value });
        show("sluice_queue_waiting", "Calls waiting for their turn.", false, waiting as f64);
        show(
            "sluice_fairness_gap_tokens",
            "Service between the tenant that has had most and the one that has had least of those waiting, by share, in input tokens.",
            false,
            gap,
        );
        for (name, help, of) in COUNTERS {
            let count = of(&queue.counts).get(class.rank()).map_or(0, |count| count.load(Ordering::Relaxed));
            show(name, help, true, count as f64);
        }
    }
    let (name, help) = ("sluice_queue_waiting_bytes", "What the bodies of the calls waiting hold.");
    to(Sample { name, help, counter: false, labels: place(), value: bytes as f64 });
    for (reason, count) in reasons {
        let labels = [place(), vec![("reason", reason.to_owned())]].concat();
        let (name, help) = ("sluice_placements", "Calls placed, by the balance's reason for the instance.");
        to(Sample { name, help, counter: true, labels, value: count as f64 });
    }
}

impl Decisions for State {
    fn about(&self, id: &str) -> Vec<Arc<Decision>> {
        self.0.memory.about(id)
    }
}

impl Lines for State {
    fn lines(&self) -> Vec<LineView> {
        let now = clock::now();
        let mut views: Vec<LineView> = self.0.all().iter().map(|queue| view(queue, now)).collect();
        views.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        views
    }

    fn quotas(&self) -> Vec<QuotaView> {
        self.0.quotas.show()
    }
}

fn view(queue: &Queue, now: Moment) -> LineView {
    let books = queue.books();
    let line = books.line();
    let mut tenants = Vec::new();
    for class in Priority::ALL {
        line.show(class, &mut |tenant, waiting, bytes, counter| {
            tenants.push(TenantView { class, tenant: tenant.clone(), waiting: (waiting, bytes), counter });
        });
    }
    LineView {
        deployment: queue.label.clone(),
        waiting: (line.len(), line.bytes()),
        estimate: books.wait(Priority::Normal, now),
        classes: Priority::ALL
            .map(|class| (class, line.census(class).0, line.oldest(class).map(|since| now.since(since))))
            .into(),
        tenants,
    }
}
