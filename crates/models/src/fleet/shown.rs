//! What operators see of the machines: every instance, and what is out of every node.

use kernel::Moment;
use kernel::sight::{Gauges, Sample};

use super::Fleet;
use crate::health::Standing;
use crate::load::Told;

impl Gauges for Fleet {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        let now = Moment::now();
        for instance in &self.instances {
            let labels = || {
                vec![
                    ("model", instance.deployment.model.to_string()),
                    ("version", instance.deployment.version.to_string()),
                    ("instance", instance.name.to_string()),
                ]
            };
            let mut show = |name, help, counter, value| to(Sample { name, help, counter, labels: labels(), value });
            let standing = instance.standing(now);
            show(
                "sluice_instance_up",
                "1 while calls may go to the instance.",
                false,
                f64::from(u8::from(standing == Standing::Usable)),
            );
            show(
                "sluice_instance_busy",
                "Calls the instance is answering.",
                false,
                f64::from(instance.vitals.slots.busy()),
            );
            if let Some(limit) = instance.vitals.slots.limit() {
                show("sluice_instance_slots", "Calls the instance may answer at once.", false, f64::from(limit));
            }
            let census = instance.vitals.pool.as_ref().map(|pool| pool.census()).unwrap_or_default();
            show("sluice_pool_idle_connections", "Idle connections kept to the instance.", false, census.idle as f64);
            show("sluice_pool_opened_connections", "Connections opened to the instance.", true, census.opened as f64);
            show(
                "sluice_pool_reused_connections",
                "Calls that went over a kept connection.",
                true,
                census.reused as f64,
            );
            if let Some(room) = instance.vitals.slots.room() {
                let tokens = instance.vitals.slots.tokens();
                show("sluice_instance_kv_tokens", "Tokens its KV cache holds.", false, room as f64);
                show("sluice_instance_kv_tokens_used", "Tokens reserved there by calls.", false, tokens as f64);
            }
            for (name, help, value) in instance.told(now).iter().flat_map(Told::gauges) {
                show(name, help, false, value);
            }
            let mut labels = labels();
            labels.push(("standing", standing.as_str().to_owned()));
            to(Sample {
                name: "sluice_instance_standing",
                help: "1 for the instance's present standing.",
                counter: false,
                labels,
                value: 1.0,
            });
        }
        for node in &self.nodes {
            for (amount, out) in node.stock() {
                let labels = || vec![("node", node.name().to_string()), ("resource", amount.name.to_string())];
                let mut show = |name, help, milli: u64| {
                    to(Sample { name, help, counter: false, labels: labels(), value: milli as f64 / 1000.0 });
                };
                show("sluice_node_resources", "What a node has of a resource.", amount.milli);
                show("sluice_node_resources_used", "What calls have taken of it.", out);
            }
        }
    }
}
