//! Asks an instance for its metrics regularly, on connections of their own.

use std::sync::Arc;
use std::time::Duration;

use kernel::settings::Secret;
use kernel::{Moment, Slots};

use super::{Load, Reading, dialect};
use crate::endpoint::Endpoint;
use crate::health::active::{self, get};
use crate::instance::Instance;
use crate::settings::{InstanceSettings, LoadSettings, ModelSettings};

/// Where an instance tells its load, and how often it is asked.
pub(crate) struct Sampling {
    endpoint: Endpoint,
    path: String,
    key: Option<Secret>,
    pub(crate) interval: Duration,
    timeout: Duration,
}

// === impl Sampling ===

impl Sampling {
    /// As the model's settings have it; `None` when nobody is to be asked.
    pub(crate) fn of(model: &ModelSettings, instance: &InstanceSettings, endpoint: Option<&Endpoint>) -> Option<Self> {
        let (LoadSettings { path, port, interval_ms, timeout_ms }, endpoint) = (model.load.as_ref()?, endpoint?);
        // The key is for whoever answers at the endpoint; at another port may be somebody else.
        let key = instance.api_key.as_ref().or(model.api_key.as_ref()).filter(|_| port.is_none());
        Some(Self {
            endpoint: port.map_or_else(|| endpoint.clone(), |port| endpoint.at(port)),
            path: path.clone(),
            key: key.cloned(),
            interval: interval_ms.duration(),
            timeout: timeout_ms.duration(),
        })
    }

    /// Asks once and keeps the answer, if it is one.
    async fn sample(&self, load: &Load, slots: &Slots) -> bool {
        let (at, before) = (Moment::now(), slots.busy());
        let Some(reading) = self.ask().await else { return false };
        // The backend counted at some moment in between. The larger of ours it is: a call of our own taken for somebody
        // else's would be counted twice for as long as the sample lives.
        load.tell(reading, before.max(slots.busy()), at);
        true
    }

    async fn ask(&self) -> Option<Reading> {
        let asked = get(&self.endpoint, &self.path, self.key.as_ref(), self.timeout);
        let (status, body) = tokio::time::timeout(self.timeout, asked).await.ok()??;
        // What was cut at the bound may lack any of its series.
        if status != 200 || body.len() > active::BODY_MAX {
            return None;
        }
        dialect::read(std::str::from_utf8(&body).ok()?)
    }
}

/// Samples one instance for as long as the config that asked for it lives. A sample that fails is no verdict on the
/// instance's health: the last one fades.
pub(crate) async fn watch(instance: Arc<Instance>) {
    let Some(sampling) = &instance.load else { return };
    let mut turn = tokio::time::interval(sampling.interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut answered = true;
    loop {
        turn.tick().await;
        let vitals = &instance.vitals;
        let good = sampling.sample(&vitals.load, &vitals.slots).await;
        if answered && !good {
            tracing::warn!(model = %instance.deployment.label, instance = %instance.name, path = sampling.path, "the instance does not tell its load: no answer there, or metrics of no known kind");
        }
        answered = good;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use kernel::settings::Millis;
    use kernel::sight::Gauges;

    use super::*;
    use crate::{Fleet, State};

    const METRICS: &str = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 2\n";

    /// Answers every connection with this, and says what was asked. It goes with the process.
    fn server(status: &'static str, body: String) -> (u16, std::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, asked) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut head = vec![0; 4096];
                let read = connection.read(&mut head).unwrap();
                let _ = to.send(String::from_utf8_lossy(&head[..read]).into_owned());
                let length = body.len();
                let _ = write!(connection, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            }
        });
        (port, asked)
    }

    fn model(port: u16, metrics_port: Option<u16>) -> ModelSettings {
        let mut model = ModelSettings::short("m", Some(format!("http://127.0.0.1:{port}/up/v1")), "openai");
        model.api_key = Some(Secret::new("sesame"));
        model.load = Some(LoadSettings { port: metrics_port, interval_ms: Millis(100), ..LoadSettings::default() });
        model
    }

    async fn ask(model: &ModelSettings) -> Option<Reading> {
        let instance = &model.versions()[0].instances[0];
        let endpoint = Endpoint::parse(instance.endpoint.as_deref().unwrap()).unwrap();
        Sampling::of(model, instance, Some(&endpoint)).unwrap().ask().await
    }

    #[tokio::test]
    async fn the_key_goes_to_the_endpoint_and_to_no_other_port() {
        let (port, asked) = server("200 OK", METRICS.into());
        assert_eq!(ask(&model(port, None)).await, Some(Reading { waiting: 2.0, running: 3.0, kv_used: None }));
        let head = asked.recv().unwrap();
        assert!(head.starts_with("GET /up/metrics HTTP/1.1\r\n") && head.contains("Bearer sesame"), "{head}");
        assert!(ask(&model(9, Some(port))).await.is_some());
        assert!(!asked.recv().unwrap().contains("sesame"));
    }

    #[tokio::test]
    async fn refusals_and_answers_that_are_too_long_or_no_text_are_no_samples() {
        let long = METRICS.to_owned() + &"# and so on\n".repeat(active::BODY_MAX / 12 + 1);
        let table = [("503 Service Unavailable", METRICS.to_owned()), ("200 OK", long), ("200 OK", String::new())];
        for (status, body) in table {
            assert_eq!(ask(&model(server(status, body).0, None)).await, None);
        }
        assert_eq!(ask(&model(9, None)).await, None, "nobody listens there");
    }

    #[tokio::test]
    async fn a_watched_fleet_shows_what_its_instances_told_and_one_without_the_section_does_not() {
        let (state, (port, _asked)) = (State::default(), server("200 OK", METRICS.into()));
        let shown = |fleet: &Fleet| {
            let mut found = Vec::new();
            fleet.show(&mut |sample| {
                found.extend(sample.name.contains("_told_").then_some((sample.name, sample.value)))
            });
            found
        };
        let mut model = model(port, None);
        let fleet = Fleet::new(std::slice::from_ref(&model), &[], &state);
        assert_eq!(shown(&fleet), []);
        fleet.watch();
        tokio::time::timeout(Duration::from_secs(10), async {
            while shown(&fleet).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let found = shown(&fleet);
        let expected = [("sluice_instance_told_waiting", 2.0), ("sluice_instance_told_running", 3.0)];
        assert_eq!(found[..2], expected);
        assert_eq!(found[2].0, "sluice_instance_told_age_seconds");
        model.load = None;
        assert_eq!(shown(&Fleet::new(&[model], &[], &state)), []);
    }
}
